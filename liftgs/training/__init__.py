"""The state of a training and its update, on any number of workers. Knows neither data sets nor losses."""
