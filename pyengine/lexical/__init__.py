"""Text to weights of terms: analysis, BM25, lexicons."""
