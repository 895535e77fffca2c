"""What is searched: shapes by name, their data, and lists of them."""
