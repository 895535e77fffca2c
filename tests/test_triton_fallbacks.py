"""Where Triton's kernels cannot run: why, in a sentence, and that the next backend takes the search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.backends import registry
from pyengine.backends.shared import nvml, parts
from pyengine.backends.triton import triton_backend, triton_refusals
from pyengine.kernels.chips import CHIPS, chip_of
from pyengine.kernels.dense_plan import plan_dense_scan
from pyengine.problems.problem import Documents
from pyengine.searches import dense


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ((8, 0), "sm_80"),
        ((8, 6), "sm_80"),
        ((8, 9), "sm_80"),
        ((9, 0), "sm_90"),
        ((10, 0), "sm_100"),
        ((12, 0), "sm_100"),
    ],
)
def test_a_gpu_is_planned_for_as_the_newest_chip_that_is_not_newer(capability: tuple[int, int], name: str) -> None:
    assert chip_of(capability) is CHIPS[name]


def test_an_old_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^the kernels need compute capability 8\.0; this GPU has 7\.5$"):
        chip_of((7, 5))


@pytest.mark.parametrize("package", ["torch", "triton"])
def test_a_package_that_is_not_installed(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_refusals, "find_spec", lambda name: None if name == package else object())
    assert triton_refusals.missing() == f"{package} is not installed: run 'pip install {package}'"
    falls_back()


def test_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(triton_refusals, "find_spec", lambda name: object())
    monkeypatch.setattr(triton_refusals, "_driver", lambda: False)
    assert triton_refusals.missing() == triton_refusals.NO_DRIVER
    assert "NVIDIA GPU" in triton_refusals.NO_DRIVER
    falls_back()


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with a driver, and kernels that are not interpreted: `triton_device`, and torch to be lied to."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    from pyengine.backends.triton import triton_device

    monkeypatch.setattr(triton_refusals, "_driver", lambda: True)
    monkeypatch.setattr(triton_device, "interpreted", lambda: False)
    monkeypatch.setattr(nvml, "LIBRARY", "libnvidia-ml-of-nobody.so.1")
    return torch


def test_a_gpu_is_known_without_initialising_cuda(driven: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By NVML, so that processes which are forked later may use it; unless torch has no CUDA in it."""
    known = {"known": 90}
    monkeypatch.setattr(nvml, "capability", lambda driver: known["known"])
    monkeypatch.setattr(driven.version, "cuda", "13.0")
    monkeypatch.setattr(driven.cuda, "is_available", lambda: pytest.fail("CUDA is initialised"))
    assert triton_refusals.missing() is None
    known["known"] = 75
    assert triton_refusals.missing() == "the kernels need compute capability 8.0; this GPU has 7.5"
    monkeypatch.setattr(driven.cuda, "is_available", lambda: False)
    monkeypatch.setattr(driven.version, "cuda", None)
    assert str(triton_refusals.missing()).startswith("it needs an NVIDIA GPU, and torch finds none")


def test_a_machine_without_a_gpu(driven: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driven.cuda, "is_available", lambda: False)
    assert str(triton_refusals.missing()).startswith("it needs an NVIDIA GPU, and torch finds none")
    falls_back()


def test_a_gpu_that_is_too_old(driven: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driven.cuda, "is_available", lambda: True)
    monkeypatch.setattr(driven.cuda, "get_device_capability", lambda device=None: (7, 5))
    assert triton_refusals.missing() == "the kernels need compute capability 8.0; this GPU has 7.5"
    falls_back()
    monkeypatch.setattr(driven.cuda, "get_device_capability", lambda device=None: (9, 0))
    assert triton_refusals.missing() is None


@pytest.mark.parametrize(("capability", "shared"), [((8, 0), 166_912), ((8, 9), 101_376), ((12, 0), 101_376)])
def test_plans_keep_to_the_shared_memory_of_the_gpu(
    capability: tuple[int, int], shared: int, driven: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyengine.backends.triton import triton_device

    monkeypatch.setattr(driven.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(triton_device, "_shared_bytes", lambda device: shared)
    chip = triton_device.chip()
    assert chip == replace(chip_of(capability), shared=shared)
    for n_queries in (1, 64, 500):
        plan = plan_dense_scan(chip, "i8", n_queries, 10**6, 768, 10, 768, 4096)
        assert plan.tile.shared_bytes("i8") <= shared


def test_what_is_free_and_what_is_kept(driven: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyengine.backends.triton import triton_device

    for name, found in (
        ("mem_get_info", (3 << 30, 8 << 30)),
        ("memory_reserved", 2 << 30),
        ("memory_allocated", 1 << 30),
    ):
        monkeypatch.setattr(driven.cuda, name, lambda device, found=found: found)
    monkeypatch.setattr(driven.cuda, "current_device", lambda: 0)
    corpus = Documents(np.zeros((2, 4), np.float32), cache={"norms": 1})
    assert triton_device.free(corpus) == (4 << 30) * 15 // 16
    assert not triton_device.kept(corpus, "originals")
    corpus.derived(("triton", "cuda:0", "originals"), lambda: 1)
    assert triton_device.kept(corpus, "originals")
    assert not triton_device.kept(Documents(corpus.rows), "originals")


def test_documents_that_do_not_fit(driven: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """50,000 rows of float32 with their codes and terms take 3.6 MB: they pass through, unless too little is free."""
    monkeypatch.setattr(driven.cuda, "is_available", lambda: True)
    monkeypatch.setattr(driven.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(driven.cuda, "current_device", lambda: 0)
    rows, free = np.zeros((50_000, 8), np.float32), [3 << 20]
    for name, found in (("mem_get_info", free), ("memory_reserved", 0), ("memory_allocated", 0)):
        monkeypatch.setattr(driven.cuda, name, lambda device, found=found: found)
    problem = dense.prepare(rows[:1], Documents(rows), 3, metric="dot")
    monkeypatch.setattr(parts, "LEAST", 49_000 * 72)
    assert registry.reasons(problem)["triton"] == ["it needs 4 MB of the GPU, of which 3 are free"]
    monkeypatch.setattr(parts, "LEAST", 2 << 20)
    assert registry.reasons(problem)["triton"] == []
    first, *_ = triton_backend.TritonBackend()._parts(problem) or []
    assert first == slice(0, (3 << 20) * 15 // 16 // 3 // (5 * 8 + 32))
    free[0] = 4 << 20
    assert triton_backend.TritonBackend()._parts(problem) is None
    free[0] = 1 << 10
    tokens, terms = pe.Ragged(rows[:100], np.arange(101)), pe.SparseRows([0, 300], np.arange(300), None, 300)
    slices = pe.SlicedRows(rows[:100], np.zeros((100, 8), np.uint8))
    calls: list[Callable[[], object]] = [
        lambda: pe.maxsim_topk(tokens, tokens, 3, backend="triton"),
        lambda: pe.sparse_topk(terms, terms, 3, backend="triton"),
        lambda: pe.sliced_topk(slices, slices, 3, backend="triton"),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="triton: it needs 0 MB of the GPU, of which 0 are free"):
            call()


def falls_back() -> None:
    """ "auto" searches all the same, and a search that insists is told the reason."""
    rows = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    assert pe.topk(rows[:2], rows, 3).ids[:, 0].tolist() == [0, 1]
    with pytest.raises(RuntimeError) as refused:
        pe.topk(rows[:2], rows, 3, backend="triton")
    assert f"  triton: {triton_refusals.missing()}" in str(refused.value)
    assert "backends that can: " in str(refused.value)
