"""What the tests of `MultiVectorIndex` share: small whole numbers as tokens, and the check of an index."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyengine import MultiVectorIndex, Ragged, conformance
from pyengine.specification import reference_maxsim as spec
from pyengine.types import F32

D = 5
RNG = np.random.default_rng(7)
QUERIES = Ragged.of([RNG.integers(-2, 3, (length, D)) for length in (3, 0, 1)])
LENGTHS = [0, 1, 2, 3, 7, 1, 30, 2, 0, 5] * 4
DOCS: list[F32] = [RNG.integers(-2, 3, (length, D)).astype(np.float32) for length in LENGTHS]


def holds(index: MultiVectorIndex, ids: Any, k: int = 6, **arguments: Any) -> None:
    """The index answers as the specification does over the tokens that it says it keeps of these ids."""
    assert index.ids.tolist() == list(ids)
    assert len(index) == len(index.ids)
    docs = index.tokens(index.ids)
    want = spec.topk(QUERIES, docs, k, ids=np.asarray(ids, np.int64), normalize=index.normalize, **arguments)
    conformance.same(index.search(QUERIES, k, **arguments), want, f"{index}, {arguments}")


def made(codec: str = "int8", originals: str | None = "ram", normalize: bool = False) -> MultiVectorIndex:
    index = MultiVectorIndex(D, codec, originals, normalize)
    index.add(DOCS)
    return index
