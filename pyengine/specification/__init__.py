"""The specification: what every answer is, in NumPy float64, written to be read."""
