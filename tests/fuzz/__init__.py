"""A fuzzer of the public API: `python -m tests.fuzz --seconds 60`. See `__main__`."""
