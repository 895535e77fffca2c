"""Faces of other libraries: their arguments in, one call of the engine, their results out. Import the one you need."""
