"""Speed and size, as ratios against a peer or a bound measured in the same run. `python -m benchmarks.NAME [--json]`."""
