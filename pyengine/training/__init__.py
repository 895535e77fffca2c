"""Scores with gradients, and searches as operators of torch."""
