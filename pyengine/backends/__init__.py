"""One module per backend, and `registry`, which knows them all. They never import one another."""
