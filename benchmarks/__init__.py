"""Speed and size as ratios against a peer or a bound, measured in one run. `python -m benchmarks.NAME [--json]`."""
