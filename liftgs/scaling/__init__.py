"""What a pretraining is worth in labels: the statistics of sweeps, as pure functions over scores.

Knows nothing of networks, files or stages: only the scores of runs by ratio of the labels, seed and choice of scenes.
`arms` holds the scores of one way to train, `resample` says how far they could have come out otherwise, `curve` turns
the from-scratch scores into a curve that can be read backwards, and `multiplier`, `transfer` and `compare` read it.
`fairness` says in plain words when an answer must not be believed; `simulate` makes runs whose answer is known.
"""
