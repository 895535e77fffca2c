"""Benchmarks: `python -m bench.run`. Nothing here reports a speed for an answer that is not the specification's."""
