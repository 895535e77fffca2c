"""Rows of values, of which several families' conformance cases are made: tokens, or weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
Values = Callable[[Rng, tuple[int, int]], Any]  # rows of a shape


def normal(rng: Rng, shape: tuple[int, int]) -> Any:
    return rng.standard_normal(shape)


def scaled(scale: float) -> Values:
    return lambda rng, shape: scale * rng.uniform(-1, 1, shape)


def some_rows(rng: Rng, shape: tuple[int, int]) -> Any:
    """Of which most are 0."""
    return rng.standard_normal(shape) * (rng.random((shape[0], 1)) < 0.3)


def one_spike(rng: Rng, shape: tuple[int, int]) -> Any:
    """One coordinate per row dwarfs the others, which is where codes with one scale per row are coarsest."""
    rows = rng.standard_normal(shape)
    rows[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] *= 1000
    return rows


def all_magnitudes(rng: Rng, shape: tuple[int, int]) -> Any:
    return rng.standard_normal(shape) * 10.0 ** rng.uniform(-37, 37, (shape[0], 1))
