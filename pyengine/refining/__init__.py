"""The specification's scores of listed candidates, fast and to the bit."""
