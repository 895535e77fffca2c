"""What a caller may give as sparse rows. Other libraries are recognised without being imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyengine import checks
from pyengine.inputs.sparse_rows import SparseRows, build
from pyengine.types import I64

FORMS = "SparseRows, a scipy sparse matrix, a torch sparse COO or CSR tensor, or a list of dicts {term id: weight}"


def rows_of(value: Any, n_terms: int | None, name: str) -> SparseRows:
    """See `SparseRows.of`."""
    if n_terms is not None:
        checks.positive_int(n_terms, "n_terms")
    if isinstance(value, SparseRows):
        _check_width(value.n_terms, n_terms, name)
        return value
    if any(kind.__module__.startswith("scipy.sparse") for kind in type(value).__mro__):
        return _of_scipy(value, _width(value.shape, n_terms, name), name)
    if checks.is_torch(value) and "sparse" in str(value.layout):
        return _of_torch(value, _width(tuple(value.shape), n_terms, name), name)
    if isinstance(value, (list, tuple)) and all(isinstance(row, Mapping) for row in value):
        return _of_dicts(value, n_terms, name)
    raise TypeError(f"{name} must be {FORMS}; got {_described(value)}")


def both(queries: Any, docs: Any, names: tuple[str, str] = ("queries", "docs")) -> tuple[SparseRows, SparseRows]:
    """Queries and documents over one vocabulary. Dicts take that of the other side, or what both of them ask for."""
    if not isinstance(docs, (list, tuple)):
        rows = rows_of(docs, None, names[1])
        return rows_of(queries, rows.n_terms, names[0]), rows
    if not isinstance(queries, (list, tuple)):
        asked = rows_of(queries, None, names[0])
        return asked, rows_of(docs, asked.n_terms, names[1])
    asked, rows = (rows_of(each, None if len(each) else 1, name) for each, name in zip((queries, docs), names))
    n_terms = max(asked.n_terms, rows.n_terms)
    first, second = (SparseRows.canonical(each.indptr, each.indices, each.values, n_terms) for each in (asked, rows))
    return first, second


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"a dense {type(value).__name__} of shape {tuple(shape)}"
    if isinstance(value, (list, tuple)):
        odd = next(i for i, row in enumerate(value) if not isinstance(row, Mapping))
        return f"a list whose entry {odd} is a {type(value[odd]).__name__}"
    return f"a {type(value).__name__}"


def _width(shape: tuple[int, ...], n_terms: int | None, name: str) -> int:
    if len(shape) != 2:
        raise ValueError(f"{name} must have shape [n, n_terms]; got shape {shape}")
    width = checks.positive_int(shape[1], f"the number of terms of {name}")
    _check_width(width, n_terms, name)
    return width


def _check_width(width: int, n_terms: int | None, name: str) -> None:
    if n_terms is not None and width != n_terms:
        raise ValueError(f"{name} must have {n_terms} terms; got {width}")


def _of_scipy(matrix: Any, n_terms: int, name: str) -> SparseRows:
    """COO is put into rows here, since scipy would sum its duplicates in their own dtype."""
    if matrix.format == "coo":
        return _of_pairs(matrix.row, matrix.col, _ones(matrix.data), matrix.shape[0], n_terms, name)
    rows = matrix.tocsr()
    return build(rows.indptr, rows.indices, _ones(rows.data), n_terms, name)


def _of_torch(tensor: Any, n_terms: int, name: str) -> SparseRows:
    """As it is: `coalesce` would sum duplicates in an order of its own."""
    layout = str(tensor.layout)
    tensor = tensor.detach()
    if layout == "torch.sparse_csr":
        parts = tensor.crow_indices(), tensor.col_indices(), tensor.values()
        indptr, terms, weights = (checks.host_array(part, name) for part in parts)
        return build(indptr, terms, _ones(weights), n_terms, name)
    if layout != "torch.sparse_coo":
        raise TypeError(f"{name} must be {FORMS}; got a tensor of layout {layout}")
    (rows, terms), weights = checks.host_array(tensor._indices(), name), checks.host_array(tensor._values(), name)
    return _of_pairs(rows, terms, _ones(weights), tensor.shape[0], n_terms, name)


def _ones(weights: NDArray[Any]) -> NDArray[Any]:
    """Of a boolean matrix, which is a binary code, True is a weight of 1."""
    return weights.view(np.uint8) if weights.dtype == np.bool_ else weights


def _of_pairs(rows: Any, terms: Any, weights: Any, n_rows: int, n_terms: int, name: str) -> SparseRows:
    """From weights in any order, of these rows and terms."""
    if len(rows) and (rows.min() < 0 or rows.max() >= n_rows):
        got = f"{rows.min()} to {rows.max()}"
        raise ValueError(f"{name} must hold row numbers of its {n_rows} rows; got rows {got}")
    order: I64 | slice = slice(None) if (rows[1:] >= rows[:-1]).all() else np.argsort(rows, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_rows))])
    return build(indptr, terms[order], weights[order], n_terms, name)


def _of_dicts(rows: Sequence[Mapping[Any, Any]], n_terms: int | None, name: str) -> SparseRows:
    if n_terms is None and not len(rows):
        raise ValueError(f"n_terms must be given with an empty list of {name}; got None")
    terms = _numbers(list(chain.from_iterable(rows)), "iu")
    weights = _numbers(list(chain.from_iterable(row.values() for row in rows)), "fiu")
    if terms is None or weights is None:
        row, got = _odd(rows, "iu" if terms is None else "fiu")
        raise TypeError(f"{name} must be dicts of integer term ids and real weights; row {row} holds {got!r}")
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    if n_terms is None:
        n_terms = checks.positive_int(int(terms.max(initial=0)) + 1 if terms.size else 1, f"the terms of {name}")
    return build(indptr, terms, weights, n_terms, name)


def _numbers(values: list[Any], kinds: str) -> NDArray[Any] | None:
    """The array of these numbers, None where they are not numbers of these kinds."""
    try:
        array = np.asarray(values)
    except ValueError:  # of sequences of several lengths
        return None
    return array if not array.size or (array.ndim == 1 and array.dtype.kind in kinds) else None


def _odd(rows: Sequence[Mapping[Any, Any]], kinds: str) -> tuple[int, Any]:
    """The first term id ("iu") or weight ("fiu") that is not a number of these kinds, and its row."""
    each = ((number, value) for number, row in enumerate(rows) for value in (row if kinds == "iu" else row.values()))
    return next((number, value) for number, value in each if _numbers([value], kinds) is None)
