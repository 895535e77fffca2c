"""Searches as torch operators: the engine's answers, and what torch asks of an operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.backends import registry

torch = pytest.importorskip("torch")
torch_ops = pytest.importorskip("pyengine.torch").torch_ops
ops = torch.ops.pyengine


def vectors(n: int, dim: int, seed: int, dtype: Any = None) -> Any:
    made = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))
    return made if dtype is None else made.to(dtype)


def rows(n: int, seed: int, n_terms: int = 40) -> pe.SparseRows:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 6, n)
    terms = [np.sort(rng.choice(n_terms, length, replace=False)) for length in lengths]
    values = rng.standard_normal(lengths.sum()).astype(np.float32)
    return pe.SparseRows(np.concatenate([[0], np.cumsum(lengths)]), np.concatenate(terms), values, n_terms)


def parts(made: pe.SparseRows) -> list[Any]:
    return [torch.tensor(np.asarray(each)) for each in (made.indptr, made.indices.astype(np.int64), made.values)]


def same(found: Any, want: Any) -> None:
    for got, expected in zip(found, want):
        assert isinstance(got, torch.Tensor)
        expected = expected if isinstance(expected, torch.Tensor) else torch.from_numpy(expected)
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


DENSE = {
    "plain": (vectors(3, 8, 1), vectors(50, 8, 2), 4),
    "bfloat16, l2": (vectors(3, 8, 1, torch.bfloat16), vectors(50, 8, 2, torch.bfloat16), 4, "l2"),
    "k beyond N": (vectors(2, 5, 1), vectors(3, 5, 2), 7, "dot"),
    "mask and bias": (
        vectors(3, 8, 1),
        vectors(50, 8, 2),
        4,
        "dot",
        torch.arange(50) % 3 == 0,
        vectors(50, 1, 3)[:, 0],
    ),
    "strided": (vectors(6, 16, 1)[::2, ::2], vectors(16, 50, 2).T[:, ::2], 4, "cosine"),
    "no documents": (vectors(2, 5, 1), vectors(0, 5, 2), 2),
    "no queries": (vectors(0, 5, 1), vectors(4, 5, 2), 2),
}


@pytest.mark.parametrize("given", DENSE.values(), ids=DENSE)
def test_dense_is_the_engine_s_answer(given: Any) -> None:
    queries, docs, k, *rest = given
    more = dict(zip(("metric", "mask", "bias"), rest))
    same(ops.dense_topk(*given), pe.topk(queries, docs, k, **more)[:2])


@pytest.mark.parametrize("given", DENSE.values(), ids=DENSE)
def test_opcheck_of_dense(given: Any) -> None:
    torch.library.opcheck(ops.dense_topk.default, given)


@pytest.mark.parametrize("k", [1, 5, 100])
@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 60)])
def test_sparse_is_the_engine_s_answer(k: int, bias: Any) -> None:
    queries, docs = rows(4, 1), rows(60, 2)
    given = (*parts(queries), *parts(docs), 40, k, bias)
    same(ops.sparse_topk(*given), pe.sparse_topk(queries, docs, k, bias=bias)[:2])
    torch.library.opcheck(ops.sparse_topk.default, given)


def test_a_model_with_searches_compiles_whole() -> None:
    docs, sparse = vectors(50, 8, 2), parts(rows(60, 2))

    def model(queries: Any, offsets: Any, terms: Any, weights: Any) -> Any:
        scores, ids = ops.dense_topk(queries * 2, docs, 3, "dot")
        other, _ = ops.sparse_topk(offsets, terms, weights, *sparse, 40, 3)
        return scores + other, docs[ids]

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (3, 5):
        given = vectors(n, 8, n), *parts(rows(n, n))
        same(compiled(*given), model(*given))


def test_wrong_shapes_are_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="queries must have 4 dimensions per row; got shape"):
        ops.dense_topk(vectors(2, 5, 1), vectors(3, 4, 1), 1)
    meta = [each.to("meta") for each in (vectors(2, 5, 1), vectors(3, 4, 1))]
    with pytest.raises(RuntimeError, match=r"must have shapes \[Q, D\] and \[N, D\]; got \(2, 5\) and \(3, 4\)"):
        ops.dense_topk(*meta, 1)
    with pytest.raises(RuntimeError, match="k must be at least 1; got 0"):
        ops.dense_topk(meta[0], meta[0], 0)


class Pretended:
    """A tensor that is on a GPU, as far as the choice of a backend can tell."""

    is_cuda = True


@pytest.mark.parametrize(
    ("missing", "chosen"), [(None, "triton"), ("the kernels need compute capability 8.0; this GPU has 7.5", "auto")]
)
def test_a_gpu_gets_triton_or_the_next_backend(
    missing: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Kernels:
        def missing(self) -> str | None:
            return missing

    monkeypatch.setattr(registry, "names", lambda: ["cpu", "triton", "torch"])
    monkeypatch.setattr(registry, "of_family", lambda name, family: Kernels() if family == "dense" else None)
    assert torch_ops._backend(Pretended(), "dense") == chosen
    assert torch_ops._backend(Pretended(), "sparse") == "auto"
    assert torch_ops._backend(torch.ones(1), "dense") == "auto"
