"""A search as data: one kind of problem for each family."""
