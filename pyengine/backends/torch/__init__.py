"""torch alone: float32 products with a bound, on any device torch knows."""
