"""State: what is added, removed, saved and loaded again."""
