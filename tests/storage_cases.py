"""What the tests of saved indexes share: indexes of every kind, and what to fill them with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyengine import DenseIndex, MultiVectorIndex, SparseIndex, conformance
from pyengine.conformance import conformance_cases
from pyengine.indexes import sparse_store
from pyengine.refining import exact
from pyengine.types import F32
from tests.sparse_model import V, drawn

D = 8
RNG = np.random.default_rng(5)
DOCS: F32 = RNG.standard_normal((40, D)).astype(np.float32)
QUERIES: F32 = RNG.standard_normal((3, D)).astype(np.float32)
TOKENS: list[F32] = [RNG.standard_normal((length, D)).astype(np.float32) for length in [0, 1, 5, 2, 30, 1, 0, 3] * 5]
TERMS = [dict(zip(terms.tolist(), weights.tolist())) for terms, weights in drawn(40)]
ASKED = [{term: 1.0} for term in range(V)]  # the answers are the weights
STORES = ["float32", *(["int8"] if exact.native() else [])]
mapped = pytest.mark.parametrize("mmap", [False, True], ids=["read", "mapped"])


@dataclass(frozen=True)
class Kind:
    """A kind of index, and what to fill it with."""

    name: str
    empty: Callable[[], Any]
    docs: Any  # 40 of them
    queries: Any

    @property
    def family(self) -> str:
        return self.name.partition("-")[0]

    def made(self, first: int = 0) -> Any:
        """38 documents."""
        index = self.empty()
        index.add(self.docs, ids=np.arange(first, first + 40)[::-1])
        index.remove([first + 3, first + 20])
        return index


def dense(store: str, originals: str | None = "ram", metric: str = "dot") -> Kind:
    made = partial(DenseIndex, D, metric, store, originals)
    return Kind(f"dense-{store}-{originals}-{metric}", made, DOCS, QUERIES)


def tokens(codec: str, originals: str | None = "ram") -> Kind:
    return Kind(f"tokens-{codec}-{originals}", partial(MultiVectorIndex, D, codec, originals), TOKENS, QUERIES[None])


def sparse(weights: str, originals: str = "ram") -> Kind:
    return Kind(f"sparse-{weights}-{originals}", partial(SparseIndex, V, weights, originals), TERMS, ASKED)


DENSE = [dense(store) for store in conformance_cases.stores() if store != "matrix"]
KINDS = [*DENSE, *map(sparse, sparse_store.WEIGHTS)]
ON_DISK = [sparse("uint8", "disk")]
if exact.native() is not None:
    KINDS += [tokens("float32"), tokens("int8"), tokens("residual2", None), tokens("residual1")]
    ON_DISK += [dense("int8", "disk"), tokens("int8", "disk"), tokens("residual2", "disk")]
OTHERS = [each for each in KINDS if each.name in ("tokens-int8-ram", "sparse-uint8-ram")]
KILLED = [dense(STORES[-1]), *OTHERS]
some = partial(pytest.mark.parametrize, "kind", ids=lambda kind: kind.name)
kinds = some(KINDS)


def same(kind: Kind, found: Any, want: Any) -> None:
    assert type(found) is type(want)
    for name in want.settings:
        assert getattr(found, name) == getattr(want, name)
    np.testing.assert_array_equal(found.ids, want.ids)
    conformance.same(found.search(kind.queries, 50), want.search(kind.queries, 50), "after loading")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
