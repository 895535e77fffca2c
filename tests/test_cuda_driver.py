"""The NVIDIA driver, found at run time: what is said where there is none that will do, and what is launched."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pyengine as pe
from pyengine.backends import registry
from pyengine.backends.cuda import cuda_backend, cuda_dense, cuda_device, cuda_kernels
from pyengine.backends.cuda.cuda_device import Gpu
from pyengine.backends.shared import counts
from pyengine.kernels import measured
from pyengine.problems.problem import Documents
from pyengine.refining import exact
from pyengine.searches import dense
from pyengine.types import F32
from tests import cuda_driver
from tests.cuda_driver import FakeDriver

native = exact.native()
pytestmark = pytest.mark.skipif(native is None, reason="the extension is not built")
UNAVAILABLE = "CUDA backend unavailable: "


def opened(library: str) -> str:
    """What is said when it is opened."""
    with pytest.raises(RuntimeError) as refused:
        native.CudaDriver(library)  # type: ignore[union-attr]
    return str(refused.value)


def rows(seed: int, count: int, dim: int) -> F32:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def gpu() -> Gpu:
    return cuda_device.gpu_of(Documents(rows(0, 1, 1)))


def test_no_driver() -> None:
    library = "libcuda-of-nobody.so.1"
    assert opened(library).startswith(f"{UNAVAILABLE}cannot load the NVIDIA driver ({library}): {library}: ")


def test_a_build_without_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "cuda_images", lambda: [])
    assert cuda_device.missing() == cuda_device.NOT_BUILT
    monkeypatch.setattr(exact, "native", lambda: None)
    assert cuda_device.missing() == "the C++ extension is not built"


@pytest.mark.skipif(cuda_driver.compiler() is None, reason="no C++ compiler")
def test_a_driver_that_lacks_a_function(tmp_path: Path) -> None:
    source = tmp_path / "old.cpp"
    source.write_text('extern "C" int cuDriverGetVersion(int* version) { return *version = 13000, 0; }')
    library = cuda_driver.build(source, tmp_path / "libcuda.so.1")
    assert opened(str(library)) == (
        f"{UNAVAILABLE}the NVIDIA driver ({library}) has no function cuInit: these kernels need version 580 or newer"
    )


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            {"version": 12040},
            "the NVIDIA driver is made for CUDA 12.4, and these kernels need 13.0: version 580 or newer",
        ),
        ({"devices": 0}, "the NVIDIA driver finds no GPU"),
        ({"cuInit": 100}, "the NVIDIA driver finds no GPU"),
        ({"cuInit": 2}, "cuInit failed: out of memory (CUDA error 2)"),
    ],
)
def test_a_driver_that_will_not_do(told: dict[str, int], said: str, emulated: FakeDriver) -> None:
    emulated.tell(**told)
    assert opened(emulated.path) == UNAVAILABLE + said


def test_an_old_gpu(emulated: FakeDriver) -> None:
    assert registry.get("cuda").missing() is None
    emulated.tell(major=7, minor=5)
    said = "the kernels need compute capability 8.0; this GPU has 7.5"
    assert registry.get("cuda").missing() == said
    assert pe.topk(rows(1, 2, 8), rows(1, 9, 8), 3).ids[:, 0].tolist() == [0, 1]
    with pytest.raises(RuntimeError, match=f"  cuda: {said}"):
        pe.topk(rows(1, 2, 8), rows(1, 9, 8), 3, backend="cuda")


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_documents_that_int32_cannot_count(name: str, emulated: FakeDriver) -> None:
    """A count is at most the number of documents, and loops over so many places end below 2^31."""
    assert counts.BLOCK >= cuda_kernels.SELECT_THREADS
    assert counts.MOST + counts.BLOCK - 1 < 1 << 31
    few = dense.prepare(rows(2, 1, 1), Documents(rows(3, 5, 1)), 3, metric="dot")

    def refusals(n_docs: int) -> list[str]:
        docs = Documents(np.broadcast_to(np.zeros(1, np.float32), (n_docs, 1)))
        return registry.get(name).refusals(replace(few, docs=docs))

    assert counts.too_many(counts.MOST) == []
    assert refusals(counts.MOST + 1) == ["its kernels number at most 2^31 - 2,048 documents"]


def test_a_gpu_that_is_too_small(emulated: FakeDriver) -> None:
    emulated.tell(megabytes=3)
    problem = dense.prepare(rows(2, 1, 8), Documents(rows(3, 50_000, 8)), 3, metric="dot")
    assert registry.reasons(problem)["cuda"] == ["it needs 5 MB of the GPU, of which 3 are free"]
    emulated.tell(megabytes=6)
    assert registry.reasons(problem)["cuda"] == []


@pytest.mark.parametrize("function", ["cuDevicePrimaryCtxRetain", "cuLibraryLoadData"])
def test_a_gpu_that_is_taken_is_refused(function: str, emulated: FakeDriver) -> None:
    """Its memory is full, or it is another process's alone: others are chosen, and `explain` says so."""
    cuda_device._feed.cache_clear()
    cuda_device._device.cache_clear()
    emulated.tell(**{function: 2})
    said = f"{function} failed: out of memory (CUDA error 2)"
    problem = dense.prepare(rows(2, 1, 8), Documents(rows(3, 50, 8)), 3, metric="dot")
    assert registry.reasons(problem)["cuda"] == [said]
    emulated.tell(**{function: 0})
    assert registry.reasons(problem)["cuda"] == []


@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        (
            "cuLaunchKernel",
            700,
            "the launch of code_float32 failed: an illegal memory access was encountered (CUDA error 700)",
        ),
        ("cuMemAllocAsync", 2, "an allocation of 320 bytes on the GPU failed: out of memory (CUDA error 2)"),
        ("cuStreamSynchronize", 2, "cuStreamSynchronize failed: out of memory (CUDA error 2)"),
    ],
)
def test_errors_are_sentences(function: str, error: int, said: str, emulated: FakeDriver) -> None:
    gpu()
    emulated.tell(**{function: error})
    with pytest.raises(RuntimeError, match=f"^{re.escape(said)}$"):
        pe.topk(rows(4, 2, 8), rows(5, 10, 8), 3, backend="cuda")
    emulated.tell(**{function: 0})
    assert pe.topk(rows(4, 2, 8), rows(5, 10, 8), 3, backend="cuda").certified.all()


def test_launches_that_cannot_be(emulated: FakeDriver) -> None:
    with pytest.raises(RuntimeError, match=r"^tighten takes 8 words of arguments; got 1$"):
        gpu().launch("tighten", (1, 1), 512, 0)
    with pytest.raises(RuntimeError, match=r"^no kernel is called nothing$"):
        gpu().launch("nothing", (1, 1), 32)
    with pytest.raises(RuntimeError, match=r"^asking for 300000 bytes of shared memory for tighten failed"):
        gpu().launch("tighten", (1, 1), 512, *range(8), shared=300_000)


@pytest.mark.parametrize("n_queries", [1, 4, 5, 16, 17, 65])
def test_launches_are_as_planned(n_queries: int, emulated: FakeDriver) -> None:
    problem = dense.prepare(rows(6, n_queries, 40), Documents(rows(7, 500, 40)), 3, metric="cosine")
    backend = cuda_backend.CudaBackend()
    plan = cuda_dense.plan(problem, gpu(), 3)
    backend.propose(problem, 3)
    tile, scans = plan.tile, [line for line in emulated.log if line.startswith("dense_")]
    few = n_queries <= cuda_kernels.FEW
    blocks = -(-n_queries // tile.queries)
    assert scans == [
        f"dense_{'few' if few else tile.queries} grid {(last - first) * blocks} 1 threads {32 * tile.warps} "
        f"shared {2 * n_queries * 48 if few else tile.shared_bytes('i8')} stream 0"
        for first, last in zip(plan.parts, plan.parts[1:])
    ]
    assert [line.split()[0] for line in emulated.log[:2]] == ["code_float32", "code_queries"]
    assert sum(line.startswith(f"tighten grid {n_queries} 1 ") for line in emulated.log) == len(scans)


def test_launches_have_no_more_blocks_than_there_can_be(emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile of documents with one of queries is a block: bits have narrow tiles, and many documents in 80 GB."""
    bits = replace(
        dense.prepare(rows(2, 20_000, 2), Documents(rows(3, 5, 2)), 3, metric="dot"),
        docs=Documents(np.broadcast_to(np.zeros(1, np.float32), (400_000_000, 2))),
    )
    planned = cuda_dense.plan(bits, gpu(), 4096, "bits")
    assert 0 < planned.n_tiles * -(-planned.query_block // planned.tile.queries) < 1 << 31
    monkeypatch.setattr(cuda_dense, "MOST_BLOCKS", 3)
    queries, docs = rows(6, 130, 40), rows(7, 300, 40)
    found, wanted = (pe.topk(queries, docs, 3, backend=name) for name in ("cuda", "numpy"))
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_array_equal(found.scores, wanted.scores)
    scanned = [int(line.split()[2]) for line in emulated.log if line.startswith("dense_128 ")]
    assert len(scanned) > 1
    assert max(scanned) <= 3


@pytest.mark.parametrize("n_queries", [1, 3, 4])
def test_what_a_kernel_has_of_its_own_counts_as_shared_memory(n_queries: int, emulated: FakeDriver) -> None:
    queries, docs = rows(8, n_queries, 6144), rows(9, 20, 6144)
    found, wanted = (pe.topk(queries, docs, 3, backend=name) for name in ("cuda", "numpy"))
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_array_equal(found.scores, wanted.scores)
    assert any(line.startswith("dense_few ") and f" shared {2 * n_queries * 6144} " in line for line in emulated.log)


@pytest.mark.parametrize("capability", [(8, 6), (8, 9), (12, 0)])
def test_a_chip_with_less_shared_memory(capability: tuple[int, int], emulated: FakeDriver) -> None:
    emulated.tell(major=capability[0], minor=capability[1], shared=101_376)
    queries, docs = rows(10, 130, 500), rows(11, 300, 500)  # four steps of 128 bytes
    found, wanted = (pe.topk(queries, docs, 3, backend=name) for name in ("cuda", "numpy"))
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_array_equal(found.scores, wanted.scores)
    taken = {int(line.split(" shared ")[1].split()[0]) for line in emulated.log if line.startswith("dense_128 ")}
    assert taken == {1 << 16}  # two stages


def test_what_is_kept_is_there_for_other_streams(emulated: FakeDriver) -> None:
    """Copies from pinned memory are under way until somebody waits."""
    own, corpus = gpu()._replace(stream=7 << 4), Documents(rows(12, 1, 1), cache={})
    block = native.CudaPinned(own.device, 64).array  # type: ignore[union-attr]
    block[:] = 5
    kept = cuda_device.mirrored(corpus, own, "something", lambda: own.array(block))
    np.testing.assert_array_equal(own._replace(stream=9 << 4).host(kept), block)


def test_what_was_copied_may_change(emulated: FakeDriver) -> None:
    """Where the GPU reads the memory of the host as it is, copies of more than 64 KB are under way when they return."""
    emulated.tell(coherent=1)
    values = rows(13, 200, 100)
    copy, wanted = gpu().array(values), values.copy()
    values[:] = 0
    np.testing.assert_array_equal(gpu().host(copy), wanted)


def test_a_device_that_fails_half_way_lets_its_context_go(emulated: FakeDriver) -> None:
    driver, before = native.CudaDriver(emulated.path), emulated.contexts  # type: ignore[union-attr]
    emulated.tell(cuLibraryLoadData=2)
    with pytest.raises(RuntimeError, match=r"^cuLibraryLoadData failed: out of memory"):
        native.CudaDevice(driver, 0)  # type: ignore[union-attr]
    assert emulated.contexts == before


def test_who_was_measured_to_be_faster_comes_first(emulated: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = dense.prepare(rows(2, 1, 8), Documents(rows(3, 50, 8)), 3, metric="dot")
    as_built = registry.names()
    assert registry._order(problem) == as_built
    for faster, order in (("cuda", ["cpu", "cuda", "triton"]), ("triton", ["cpu", "triton", "cuda"])):
        key = ("sm_90", "dense", measured.shape(1, 3))
        monkeypatch.setattr(measured, "table", lambda key=key, faster=faster: {key: faster})
        assert registry._order(problem) == order + as_built[3:]
    emulated.tell(minor=0, major=8)
    assert registry._order(problem) == as_built


def test_the_stream_is_the_callers(emulated: FakeDriver) -> None:
    own = gpu()._replace(stream=7 << 4)
    own.launch("tighten", (1, 1), 512, *(own.array(np.zeros(1, np.int64)) for _ in range(6)), 1, 2)
    assert emulated.log == ["tighten grid 1 1 threads 512 shared 0 stream 112"]
