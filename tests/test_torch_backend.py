"""torch as a proposer: its bits, its settings, and documents that stay tensors."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyengine as pe
from pyengine import checks, conformance
from pyengine.backends import registry
from pyengine.backends.torch import torch_backend
from pyengine.backends.torch.torch_backend import TorchBackend
from pyengine.problems.problem import DenseProblem, Documents
from pyengine.searches import dense, search
from pyengine.specification import reference
from pyengine.types import TopK

torch = pytest.importorskip("torch")
from pyengine.backends.shared import float32  # noqa: E402
from pyengine.backends.torch import torch_float32, torch_float64  # noqa: E402

GOLDEN = sorted((Path(__file__).parent / "golden").glob("dense_*.npz"))
CPU = torch.device("cpu")


def on_tensor(problem: DenseProblem) -> DenseProblem:
    """The same search, its documents a tensor, as they are on a GPU."""
    return replace(problem, docs=Documents(torch_float32.tensor(problem.docs.rows)))


def random_problem(n_queries: int = 5, n_docs: int = 500, dim: int = 33, metric: str = "cosine") -> DenseProblem:
    rows = np.random.default_rng(dim).standard_normal((n_queries + n_docs, dim)).astype(np.float32)
    return dense.prepare(rows[:n_queries], Documents(rows[n_queries:]), 10, metric=metric, num_threads=2)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks and chunks even in small problems."""
    monkeypatch.setattr(torch_float32, "BLOCK", {"cpu": (2, 64)})
    monkeypatch.setattr(torch_float64, "PAIRS", 256)
    monkeypatch.setattr(torch_float64, "DOCUMENTS", 128)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("case", [case for case in conformance.cases() if case.store == "matrix"], ids=str)
def test_tensor_documents_conform(case: conformance.Case, small_blocks: None) -> None:
    problem, backend = case.problem(), TorchBackend()
    asked, want = on_tensor(problem), conformance.specified(problem)
    scores = conformance.rank_scores(problem)
    for width in (problem.k, 3 * problem.k, max(problem.k, len(problem.docs))):
        conformance.check_candidates(problem, backend.propose(asked, width), scores)
    conformance.same(search.exact_search(asked, backend), want, "topk")
    asked, problem = (replace(each, filters=None) for each in (asked, problem))  # `scan` is for searches without
    conformance.same(backend.scan(asked), conformance.specified(problem), "scan")
    ids = np.random.default_rng(0).permutation(len(problem.docs)) * 7 + 3
    conformance.same(backend.scan(replace(asked, ids=ids)), conformance.specified(replace(problem, ids=ids)), "ids")


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize("tensor", [False, True])
def test_golden(path: Path, metric: str, tensor: bool) -> None:
    with np.load(path) as golden:
        for k in (1, 10, 2 * len(golden["docs"])):
            problem = dense.prepare(golden["queries"], Documents(golden["docs"]), k, metric=metric)
            scores, ids = (golden[f"top{k}_{metric}_{part}"] for part in ("scores", "ids"))
            got = search.exact_search(on_tensor(problem) if tensor else problem, TorchBackend())
            conformance.same(got, TopK(scores, ids, np.ones(len(ids), bool)), f"k={k}")


@given(seed=st.integers(0, 2**32 - 1), metric=st.sampled_from(reference.METRICS), dim=st.sampled_from([1, 3, 8, 127]))
def test_pair_scores_are_the_specification(seed: int, metric: str, dim: int) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((14, dim)) * 10 ** rng.uniform(-40, 37, (14, 1))).astype(np.float32)
    rows[rng.random(14) < 0.2] = 0
    bias = rng.choice([0.0, -0.0, 1e-30, 3.0, -1e39], 10)
    want = reference.pair_scores(rows[:4, None], rows[None, 4:], metric, bias)
    queries, docs = torch.from_numpy(rows[:4, None]), torch.from_numpy(rows[None, 4:])
    got = torch_float64.pair_scores(queries, docs, metric, torch.from_numpy(bias)).numpy()
    np.testing.assert_array_equal(got.view(np.int32), want.view(np.int32))


def test_roots_are_correctly_rounded() -> None:
    values = np.random.default_rng(0).random(10_000) * 1000
    assert torch_float64.root(torch.from_numpy(values)).numpy().tobytes() == np.sqrt(values).tobytes()


@pytest.mark.parametrize("name", ["cpu", "faiss", "numpy"])
def test_other_backends_refuse_tensors(name: str) -> None:
    problem = on_tensor(random_problem())
    with pytest.raises(RuntimeError, match="it reads host memory"):
        dense.run(problem, name, "exact", like=None)
    assert TorchBackend().refusals(problem) == []


@pytest.fixture
def resident(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU tensors are treated as those of a GPU."""
    monkeypatch.setattr(checks, "RESIDENT", ("cpu", "meta"))


@pytest.mark.usefixtures("resident")
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int8"])
def test_documents_stay_on_their_device(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (torch.randn(300, 19) * 30).to(getattr(torch, dtype))
    propose = Mock(wraps=TorchBackend().propose)
    monkeypatch.setattr(TorchBackend, "propose", propose)
    got = pe.topk(rows[:4], rows, k=7, metric="l2", backend="torch")
    values = rows.float().numpy()
    want = reference.topk(values[:4], values, 7, "l2")
    searched = propose.call_args.args[0].docs.rows
    assert isinstance(searched, torch.Tensor)
    assert dtype != "float32" or searched.data_ptr() == rows.data_ptr()
    for part, expected in zip(got, want):
        assert part.device == CPU
        np.testing.assert_array_equal(part.numpy(), expected)


@pytest.mark.usefixtures("resident")
def test_bad_documents_on_a_device() -> None:
    docs = torch.randn(400, 5)
    with pytest.raises(ValueError, match="queries and docs must be on one device; got queries on meta, docs on cpu"):
        pe.topk(torch.empty(2, 5, device="meta"), docs)
    with pytest.raises(ValueError, match="queries on the host, docs on cpu"):
        pe.topk(np.zeros((2, 5), np.float32), docs)
    with pytest.raises(ValueError, match="docs must have shape"):
        pe.topk(docs[:2], docs[0])
    with pytest.raises(TypeError, match=r"docs must be a dense tensor of real numbers; got torch\.complex64"):
        pe.topk(docs[:2], docs.to(torch.complex64))
    with pytest.raises(TypeError, match=r"torch\.sparse_coo"):
        pe.topk(docs[:2], docs.to_sparse())
    docs[317, 2] = torch.nan
    with pytest.raises(ValueError, match="docs must be finite in float32; row 317"):
        pe.topk(docs[:2], docs)


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_tensors_in_tensors_out(backend: str) -> None:
    rows = torch.randn(400, 31, requires_grad=True)
    got = pe.topk(rows[:3], rows, k=5, backend=backend)
    want = reference.topk(rows.detach().numpy()[:3], rows.detach().numpy(), 5)
    assert [part.dtype for part in got] == [torch.float32, torch.int64, torch.bool]
    for part, expected in zip(got, want):
        assert not part.requires_grad
        np.testing.assert_array_equal(part.numpy(), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_types_and_strides(dtype: str) -> None:
    rows = torch.randn(62, 300).to(getattr(torch, dtype)).T[:, ::2]
    values = rows.float().numpy()
    got = pe.topk(rows[:5], rows, k=9, metric="dot", backend="torch")
    np.testing.assert_array_equal(got.ids.numpy(), reference.topk(values[:5], values, 9, "dot").ids)


def test_rows_are_not_copied_even_where_they_are_read_only() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    rows.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch_float32.tensor(rows).data_ptr() == rows.ctypes.data
        assert pe.topk(rows[:2], rows, backend="torch").ids[0, 0] == 0
    assert not rows.flags.writeable


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize(("name", "expected"), [("highest", 0.0), ("high", 2.0**-10), ("medium", 2.0**-7)])
def test_reduced_matmul_precision_widens_the_bound(name: str, expected: float, metric: str) -> None:
    problem = random_problem(metric=metric)
    with matmul_precision(name):
        assert torch_float32.rounding(CPU) == torch_float32.rounding(torch.device("cuda")) == expected
        conformance.check_candidates(problem, TorchBackend().propose(problem, 20), conformance.rank_scores(problem))
        conformance.same(search.exact_search(problem, TorchBackend()), conformance.specified(problem), name)
        assert torch.get_float32_matmul_precision() == name
    terms = torch_float32.document_terms(problem, torch_float32.tensor(problem.docs.rows))
    with matmul_precision(name):
        wider = torch_float32.document_terms(problem, torch_float32.tensor(problem.docs.rows))
    assert (wider.columns[:, 2] >= terms.columns[:, 2] * (1 + 1000 * expected)).all()


@pytest.mark.parametrize(("setting", "value"), [("bf16", 2.0**-7), ("tf32", 2.0**-10), ("ieee", 0.0)])
def test_the_newer_settings_are_read(setting: str, value: float) -> None:
    """In a process of its own: torch has no way back from them to the older."""
    program = (
        "import torch; from pyengine.backends.torch import torch_float32 as t\n"
        f"torch.backends.mkldnn.matmul.fp32_precision = {setting!r}\n"
        f"torch.backends.cuda.matmul.fp32_precision = 'tf32'\n"
        f"assert t.rounding(torch.device('cpu')) == {value!r}\n"
        "assert t.rounding(torch.device('cuda')) == 2.0**-10\n"
    )
    if not hasattr(torch.backends.mkldnn, "matmul"):
        pytest.skip("this torch has the older settings only")
    ordinary = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", program], check=True, env=ordinary)


def test_settings_in_the_environment_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem()
    for value, expected in (("BF16", 2.0**-7), ("STRICT", 0.0), ("ANY", np.inf)):
        monkeypatch.setitem(os.environ, "DNNL_DEFAULT_FPMATH_MODE", value)
        assert torch_float32.rounding(CPU) == expected
        conformance.same(search.exact_search(problem, TorchBackend()), conformance.specified(problem), value)
    assert not np.isfinite(float32.error_factor(8, np.inf))
    monkeypatch.setitem(os.environ, "NVIDIA_TF32_OVERRIDE", "1")
    assert torch_float32.rounding(torch.device("cuda")) == 2.0**-10


@pytest.mark.parametrize("tensor", [False, True])
def test_autocast_and_the_default_device_change_nothing(tensor: bool) -> None:
    problem = random_problem(dim=200)
    want = conformance.specified(problem)
    asked = on_tensor(problem) if tensor else problem
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        conformance.same(search.exact_search(asked, TorchBackend()), want, "autocast")
        conformance.same(TorchBackend().scan(asked), want, "scan")
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("number", [1, 3])
def test_threads_are_set_and_restored(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    inside = Mock(side_effect=lambda *args: [torch.get_num_threads()])
    monkeypatch.setattr(torch_float32, "propose", inside)
    assert list(TorchBackend().propose(replace(random_problem(), num_threads=number), 10)) == [number]
    assert torch.get_num_threads() == before
    inside.side_effect = KeyError
    with pytest.raises(KeyError):
        TorchBackend().propose(replace(random_problem(), num_threads=number), 10)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("metric", reference.METRICS)
@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_fast_scores_are_within_the_documented_bound(metric: str, backend: str) -> None:
    missing = registry.get(backend).missing()
    if missing:
        pytest.skip(missing)
    rng = np.random.default_rng(3)
    rows = (rng.standard_normal((1200, 50)) + 0.5).astype(np.float32)
    bias = rng.standard_normal(1200)
    got = pe.topk(rows[:9], rows, k=20, metric=metric, bias=bias, precision="fast", backend=backend)
    length = np.ones(1200) if metric == "cosine" else float32.norms(rows)
    for q in range(9):
        ids = got.ids[q]
        exact = reference.unrounded_scores(rows[q : q + 1], rows[ids], metric, bias[ids])
        magnitude = (length[q] + length[ids]) ** 2 if metric == "l2" else length[q] * length[ids]
        allowed = 2 * float32.error_factor(50) * (magnitude + np.abs(bias[ids]))
        assert (np.abs(got.scores[q] - exact) <= allowed).all()
    assert not got.certified.any()


def test_missing_is_a_sentence_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_backend, "find_spec", lambda name: None)
    assert TorchBackend().missing() == "torch is not installed: run 'pip install torch'"


def test_nothing_optional_is_imported_early() -> None:
    program = (
        "import sys, numpy as np, pyengine as pe\n"
        "pe.backends(); pe.topk(np.eye(3), np.eye(3), k=1, backend='numpy')\n"
        "assert not {'torch', 'faiss', 'triton'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
