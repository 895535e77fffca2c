"""What `bench.report` is made of: reading results, tables and figures of them, and the page."""
