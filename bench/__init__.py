"""Benchmarks: `python -m bench.dense`. Nothing here reports a speed for an answer that is not the specification's."""
