"""The machine, and what it can do at best."""
