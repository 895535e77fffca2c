"""pyengine's own contestants; those of others are in `bench.peers`."""
