"""Who computes on a GPU: our backends "triton" and "cuda", and the others, each as its library or its users would do
it. Documents and queries are on the device before the clock starts, in float16 where nothing else is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import pyengine
from bench.gpus.gpu_arena import DEVICE, on_host
from bench.operations.training import TRAINERS, Score, Trainer
from bench.ours import contestants, sparse_contestants
from bench.ours.contestants import BITS, Contestant, Search, module, require
from bench.ours.cuda_forms import in_form, of_signs
from bench.peers._sparse import matrix
from bench.peers.sentence_transformers import from_hits
from bench.workloads.sparse_shapes import LISTED
from bench.workloads.sparse_text import Documents
from pyengine.backends import registry
from pyengine.inputs.ragged import Ragged
from pyengine.types import F32

BACKENDS = ("triton", "cuda")  # ours
STORES = {"int8": 1, "float16": 2}  # bytes of a value that is scanned
FLOAT32 = 4
FLOAT16 = "products of float16"


def backends_of(family: str) -> list[str]:
    """Ours that have something for a family."""
    return [name for name in BACKENDS if name in registry.FAMILIES[family]]


def ours(backend: str, store: str) -> Contestant:
    """`DenseIndex` with that store; what the device needs of it is copied there by the first search."""
    built = contestants.index(store, backend)
    value_bytes = STORES.get(store, FLOAT32)
    return replace(built, name=f"{backend}-{store}", arithmetic=store, value_bytes=value_bytes, read=on_host)


def ours_as_graph(store: str) -> Contestant:
    """The same by Triton as a CUDA graph, for queries on the device. Where its certificate fails, as it is."""
    backend = BACKENDS[0]

    def prepare(docs: F32, metric: str, threads: int) -> Search:
        require(backend)
        index = pyengine.DenseIndex(docs.shape[1], metric=metric, store=store, backend=backend)
        index.add(docs)
        kept: dict[tuple[int, int], Search] = {}

        def search(queries: Any, k: int) -> Any:
            shape = len(queries), k
            if shape not in kept:
                kept.clear()
                graph = pyengine.torch.captured(index, *shape)
                kept[shape] = graph if graph(queries).certified.all() else lambda given: index.search(given, k)
            return kept[shape](queries)

        return search

    return replace(ours(backend, store), name=f"{backend}-{store}-graph", prepare=prepare)


def ours_maxsim(backend: str, codec: str) -> Contestant:
    """`MultiVectorIndex` with that codec."""

    def prepare(docs: Ragged, reduce: str, threads: int) -> Search:
        require(backend, "maxsim")
        index = pyengine.MultiVectorIndex(docs.dim, codec=codec, backend=backend)
        index.add(docs)
        return lambda queries, k: index.search(queries, k, reduce=reduce)

    return Contestant(f"{backend}-{codec}", prepare, True, codec, STORES[codec], exactness=BITS, backend=backend)


def ours_sparse(backend: str) -> Contestant:
    """`SparseIndex` with float32 weights."""
    return replace(sparse_contestants.index(backend), name=f"{backend}-float32", arithmetic="none")


def _graphed(score: Callable[[Any, int], Any]) -> Search:
    from bench.gpus.gpu_timing import graphed

    return graphed(score)


def _rows(docs: F32, name: str = "float16") -> Any:
    """Documents on the device."""
    torch = module("torch")
    return torch.from_numpy(docs).to(DEVICE).to(getattr(torch, name))


def matmul(name: str, compiled: bool = False) -> Contestant:
    """A matrix product, then torch.topk; compiled together by torch.compile, if asked for. As a CUDA graph."""

    def prepare(docs: F32, metric: str, threads: int) -> Search:
        torch, rows = module("torch"), _rows(docs, name)

        def score(queries: Any, k: int) -> Any:
            return torch.topk(queries.to(rows.dtype) @ rows.T, k, dim=1)

        return _graphed(torch.compile(score, dynamic=False) if compiled else score)

    label = f"torch-{name}" + "-compiled" * compiled
    return Contestant(label, prepare, False, name, 4 if name == "float32" else 2, read=on_host, package="torch")


def semantic_search(docs: F32, metric: str, threads: int) -> Search:
    """sentence_transformers.util.semantic_search: it copies its lists to the host."""
    util, rows = module("sentence_transformers.util", "sentence-transformers"), _rows(docs)
    return lambda queries, k: util.semantic_search(queries.to(rows.dtype), rows, top_k=k, score_function=util.dot_score)


def faiss_flat(docs: F32, metric: str, threads: int) -> Search:
    """faiss.GpuIndexFlatIP in float16, queries and results on the host."""
    faiss = module("faiss", "faiss-gpu")
    if not hasattr(faiss, "StandardGpuResources"):
        raise contestants.Unavailable("the faiss that is installed has no GPU: pip install faiss-gpu")
    resources, how = faiss.StandardGpuResources(), faiss.GpuIndexFlatConfig()
    how.useFloat16 = True
    index = faiss.GpuIndexFlatIP(resources, docs.shape[1], how)
    index.add(docs)

    def search(queries: Any, k: int) -> Any:
        assert resources  # the index does not keep them
        return index.search(queries.cpu().numpy(), k)

    return search


def cuvs_brute_force(docs: F32, metric: str, threads: int) -> Search:
    """cuvs.neighbors.brute_force."""
    brute, torch = module("cuvs.neighbors.brute_force", "cuvs-cu13"), module("torch")
    index = brute.build(_rows(docs), metric="inner_product")

    def search(queries: Any, k: int) -> Any:
        return [torch.as_tensor(each, device=DEVICE) for each in brute.search(index, queries.half(), k)]

    return search


DENSE = (
    *(ours(backend, store) for backend in backends_of("dense") for store in STORES),
    *map(ours_as_graph, STORES),
    *(in_form(ours("cuda", store), "sm_90") for store in STORES),
    in_form(ours("cuda", "float32"), "float32"),
    replace(of_signs(), read=on_host),
    matmul("float16"),
    matmul("float16", compiled=True),
    matmul("float32"),
    Contestant("sentence-transformers", semantic_search, False, "float16", 2, read=from_hits),
    Contestant("faiss-gpu", faiss_flat, False, "float16", 2, package="faiss-gpu"),
    Contestant("cuvs", cuvs_brute_force, False, "float16", 2, read=on_host, package="cuvs-cu13"),
)


def maxsim(name: str, package: str, score: Callable[[], Callable[[Any, Any], Any]], graph: bool = True) -> Contestant:
    """``score()`` makes a function of queries [Q, Lq, D] and documents [N, Ld, D], all of the same lengths, that gives
    scores [Q, N]; torch.topk follows."""

    def prepare(docs: Ragged, reduce: str, threads: int) -> Search:
        torch, of, rows = module("torch"), score(), _rows(np.stack(list(docs)))
        kept: dict[int, Any] = {}

        def run(asked: Any, k: int) -> Any:
            return torch.topk(of(asked, rows).float(), k, dim=1)

        best = _graphed(run) if graph else run

        def search(queries: Ragged, k: int) -> Any:
            if len(queries) not in kept:
                kept[len(queries)] = _rows(np.stack(list(queries)))
            return best(kept[len(queries)], k)

        return search

    return Contestant(name, prepare, False, "float16", 2, read=on_host, package=package, exactness=FLOAT16)


def _einsum() -> Callable[[Any, Any], Any]:
    torch = module("torch")
    return lambda queries, docs: torch.einsum("qid,njd->qnij", queries, docs).amax(dim=3).sum(dim=2)


def _compiled_einsum() -> Callable[[Any, Any], Any]:
    compiled: Callable[[Any, Any], Any] = module("torch").compile(_einsum(), dynamic=False)
    return compiled


def _pylate() -> Callable[[Any, Any], Any]:
    found: Callable[[Any, Any], Any] = module("pylate.scores", "pylate").colbert_scores
    return found


def _late_interaction_kernels() -> Callable[[Any, Any], Any]:
    found: Callable[[Any, Any], Any] = module("late_interaction_kernels", "late-interaction-kernels").maxsim
    return found


def _flash_maxsim() -> Callable[[Any, Any], Any]:
    found: Callable[[Any, Any], Any] = module("flash_maxsim", "flash-maxsim").flash_maxsim_batched
    return found


MAXSIM = (
    *(ours_maxsim(backend, codec) for backend in backends_of("maxsim") for codec in STORES),
    *(in_form(ours_maxsim("cuda", codec), "sm_90") for codec in STORES),
    maxsim("torch-einsum", "torch", _einsum),
    maxsim("torch-einsum-compiled", "torch", _compiled_einsum),
    maxsim("pylate", "pylate", _pylate),
    maxsim("late-interaction-kernels", "late-interaction-kernels", _late_interaction_kernels, graph=False),
    maxsim("flash-maxsim", "flash-maxsim", _flash_maxsim, graph=False),
)


def _kernels_step() -> Score:
    score = _late_interaction_kernels()
    return lambda queries, docs, mask: score(queries, docs, d_mask=mask)  # type: ignore[call-arg]


TRAINING = (
    replace(TRAINERS[0], backend="triton"),
    *TRAINERS[1:3],
    Trainer("late-interaction-kernels", _kernels_step, package="late-interaction-kernels"),
)


def torch_sparse(docs: Documents, metric: str, threads: int) -> Search:
    """A torch.sparse CSR matrix [N, V] times dense queries, in float32."""
    torch, rows = module("torch"), matrix(docs.rows)
    parts = [torch.from_numpy(each).to(DEVICE) for each in (rows.indptr, rows.indices, rows.data)]
    device: Any = torch.sparse_csr_tensor(*parts, size=rows.shape)

    def search(queries: Any, k: int) -> Any:
        asked = torch.from_numpy(matrix(queries).T.toarray()).to(DEVICE)  # [V, Q]
        return torch.topk((device @ asked).T, k, dim=1)

    return search


def cupy_sparse(docs: Documents, metric: str, threads: int) -> Search:
    """The same by cuSPARSE through CuPy."""
    sparse, cupy, torch = module("cupyx.scipy.sparse", "cupy"), module("cupy"), module("torch")
    device = sparse.csr_matrix(matrix(docs.rows))

    def search(queries: Any, k: int) -> Any:
        scores = device @ cupy.asarray(matrix(queries).T.toarray())  # [N, Q]
        return torch.topk(torch.as_tensor(scores, device=DEVICE).T, k, dim=1)

    return search


SPARSE = (
    *map(ours_sparse, backends_of("sparse")),
    Contestant("torch-sparse", torch_sparse, False, "none", LISTED, read=on_host, package="torch"),
    Contestant("cupy", cupy_sparse, False, "none", LISTED, read=on_host, package="cupy-cuda13x"),
)
