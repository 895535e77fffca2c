"""Pairs refined by `kernels/refine.py` have the specification's scores, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyengine.kernels.chips import CHIPS
from pyengine.specification import reference

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
from pyengine.kernels import refine  # noqa: E402

pytestmark = pytest.mark.usefixtures("interpreter", "poison")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
N_DOCS = 40


def documents(kind: str, dim: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Rows of that kind, in a wider array, and their step."""
    if kind == "int8":
        codes = torch.from_numpy(rng.integers(-127, 128, (N_DOCS, dim)).astype(np.int8))
        return codes.to(DEVICE), torch.from_numpy(rng.random(N_DOCS).astype(np.float32) * 1e-40).to(DEVICE)
    rows = rng.standard_normal((N_DOCS, dim + 3)).astype(np.float32)
    rows[5] = 0
    if kind == "float32":
        rows *= 10.0 ** rng.integers(-38, 19, (N_DOCS, 1))
    return torch.from_numpy(rows).to(getattr(torch, kind)).to(DEVICE)[:, :dim], None


@pytest.mark.parametrize("dim", [1, 45])
@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "int8"])
def test_pairs(kind: str, metric: str, dim: int) -> None:
    rng = np.random.default_rng(dim)
    queries = (rng.standard_normal((4, dim)) * 10.0 ** rng.integers(-38, 19, (4, 1))).astype(np.float32)
    queries[3] = 0
    docs, step = documents(kind, dim, rng)
    values = docs.float().cpu().numpy() * (1 if step is None else step.cpu().numpy()[:, None])
    counts, starts = np.array([33, 0, 7, 40], np.int32), np.array([50, 3, 4, 90], np.int64)
    rows = rng.integers(0, N_DOCS, 140).astype(np.int32)
    for bias in (None, rng.choice([0.0, -1e300, 1e-40, 3.0], N_DOCS)):
        scores = torch.empty(140, device=DEVICE)
        there, at, first, number = (torch.from_numpy(each).to(DEVICE) for each in (queries, rows, starts, counts))
        added = None if bias is None else torch.from_numpy(bias).to(DEVICE)
        refine.refine(there, docs, step, added, at, first, number, scores, 40, metric, dim, CHIPS["sm_90"])
        want = np.full(140, np.nan, np.float32)
        for q, (start, count) in enumerate(zip(starts, counts)):
            part = slice(start, start + count)
            own = None if bias is None else bias[rows[part]]
            want[part] = reference.pair_scores(queries[q], values[rows[part]], metric, own)
        assert scores.cpu().numpy().tobytes() == want.tobytes()


def test_a_prefix() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((6, 30)).astype(np.float32)
    there = torch.from_numpy(rows).to(DEVICE)
    scores = torch.empty(6, device=DEVICE)
    at, first, number = torch.arange(6).int().to(DEVICE), torch.tensor([0], device=DEVICE), torch.tensor([6]).int()
    refine.refine(there[:1], there, None, None, at, first, number.to(DEVICE), scores, 6, "cosine", 11, CHIPS["sm_90"])
    want = reference.pair_scores(rows[:1, :11], rows[:, :11], "cosine")
    assert scores.cpu().numpy().tobytes() == want.tobytes()
