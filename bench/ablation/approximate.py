"""Candidates that nobody certifies: faiss's indexes, signs of a rotation, a learned projection; and scores of what they
propose by the vectors themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.ablation.cells import Cell
from bench.ours.contestants import Unavailable, module
from pyengine.types import F32, I64, TopK

SEED = 20261122
TRAINED_ON = 50_000  # vectors that a quantiser or a projection learns from, at most
PQ_BITS = 8


def comparable(rows: F32, metric: str) -> F32:
    """For ``cosine`` the directions, of which the inner product is the cosine; else the rows."""
    if metric != "cosine":
        return rows
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: F32 = rows / np.where(lengths > 0, lengths, np.float32(1))
    return units


def rescored(docs: F32, metric: str, queries: F32, ids: I64, k: int) -> TopK:
    """The k best among candidates int64 [Q, C], -1 where there are no more, by float32 sums over ``docs``, which are
    `comparable`: larger is better, and of ``l2`` the distance is negated."""
    scores = np.empty(ids.shape, np.float32)
    for query, candidates, found in zip(comparable(queries, metric), np.maximum(ids, 0), scores):
        rows = docs[candidates]  # [C, D]: those of one query stay in a cache
        if metric == "l2":
            rows -= query
            np.negative(np.einsum("cd,cd->c", rows, rows), out=found)
        else:
            np.matmul(rows, query, out=found)
    scores[ids < 0] = -np.inf
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    best, places = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
    return TopK(_padded(best, k, -np.inf), _padded(places, k, -1), np.zeros(len(ids), bool))


def _padded(rows: NDArray[Any], k: int, pad: float) -> NDArray[Any]:
    return np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=pad)


def principal(docs: F32, count: int) -> F32:
    """float32 [D, count]: the directions in which documents have most energy. A product of two vectors so projected
    differs least from that of the whole ones, for queries like the documents (LeanVec-ID of Tepper et al., arXiv
    2312.16335; there the projected vectors are quantised and the best re-ranked, too)."""
    sample = docs[:: max(1, len(docs) // TRAINED_ON)].astype(np.float64)
    _, directions = np.linalg.eigh(sample.T @ sample)  # rising
    return np.ascontiguousarray(directions[:, ::-1][:, :count], np.float32)


class Faiss:
    """A faiss index with as many threads as the cell has, whatever others set meanwhile."""

    def __init__(self, cell: Cell, index: Any, metric: str) -> None:
        self.threads, self.index, self.metric = cell.threads, index, metric
        self.faiss = module("faiss", "faiss-cpu")

    def fill(self, docs: F32) -> None:
        self.faiss.omp_set_num_threads(self.threads)
        if not self.index.is_trained:
            self.index.train(docs[:: max(1, len(docs) // TRAINED_ON)])
        self.index.add(docs)

    @property
    def n_bytes(self) -> int:
        """Of the index as it would be written."""
        return len(self.faiss.serialize_index(self.index))

    def search(self, queries: F32, k: int) -> TopK:
        self.faiss.omp_set_num_threads(self.threads)
        scores, ids = self.index.search(comparable(queries, self.metric), k)
        return TopK(scores, np.asarray(ids, np.int64), np.zeros(len(ids), bool))

    def save(self, path: Path) -> None:
        self.faiss.write_index(self.index, str(path))


class Signs(Faiss):
    """The same over the signs of vectors under a random rotation into ``bits`` dimensions, by Hamming distance."""

    def __init__(self, cell: Cell, index: Any, metric: str, rotation: F32) -> None:
        super().__init__(cell, index, metric)
        self.rotation = rotation

    def fill(self, docs: F32) -> None:
        self.faiss.omp_set_num_threads(self.threads)
        self.index.add(self._packed(docs))

    @property
    def n_bytes(self) -> int:
        return len(self.faiss.serialize_index_binary(self.index)) + self.rotation.nbytes

    def search(self, queries: F32, k: int) -> TopK:
        self.faiss.omp_set_num_threads(self.threads)
        distances, ids = self.index.search(self._packed(comparable(queries, self.metric)), k)
        return TopK(-distances.astype(np.float32), np.asarray(ids, np.int64), np.zeros(len(ids), bool))

    def save(self, path: Path) -> None:
        self.faiss.write_index_binary(self.index, str(path))
        np.save(path.with_suffix(".npy"), self.rotation)

    def _packed(self, rows: F32) -> NDArray[np.uint8]:
        return np.packbits(rows @ self.rotation > 0, axis=1)


def _metric(metric: str) -> int:
    faiss = module("faiss", "faiss-cpu")
    found: int = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    return found


def ivf(cell: Cell, docs: F32, metric: str) -> Faiss:
    """Inverted lists of whole vectors."""
    faiss, dim, lists = module("faiss", "faiss-cpu"), docs.shape[1], cell.lists or 1
    if lists > len(docs):
        raise Unavailable(f"lists must be at most the {len(docs)} documents; got {lists}")
    coarse = faiss.IndexFlatL2(dim) if metric == "l2" else faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFFlat(coarse, dim, lists, _metric(metric))
    index.cp.min_points_per_centroid = 1  # no warnings: there are as many documents as there are
    index.nprobe = min(cell.probes or 1, lists)
    return _filled(Faiss(cell, index, metric), docs)


def hnsw(cell: Cell, docs: F32, metric: str) -> Faiss:
    """A graph over whole vectors (Malkov and Yashunin, 2018)."""
    index = module("faiss", "faiss-cpu").IndexHNSWFlat(docs.shape[1], cell.links, _metric(metric))
    index.hnsw.efSearch = cell.ef
    return _filled(Faiss(cell, index, metric), docs)


def pq(cell: Cell, docs: F32, metric: str) -> Faiss:
    """Product quantisation (Jegou et al., 2011), a byte for each part of a vector."""
    parts = cell.code_bytes or 1
    if docs.shape[1] % parts:
        raise Unavailable(f"code_bytes must divide the {docs.shape[1]} dimensions of the vectors; got {parts}")
    if len(docs) < 1 << PQ_BITS:
        raise Unavailable(f"pq needs {1 << PQ_BITS} documents to learn from; there are {len(docs)}")
    index = module("faiss", "faiss-cpu").IndexPQ(docs.shape[1], parts, PQ_BITS, _metric(metric))
    index.pq.cp.min_points_per_centroid = 1
    return _filled(Faiss(cell, index, metric), docs)


def hamming(cell: Cell, docs: F32, metric: str) -> Faiss:
    """Signs of a random rotation (Charikar, 2002); of as many as there are dimensions, or more, rows are orthogonal."""
    if metric == "l2":
        raise Unavailable("signs are for inner products and cosines, and this collection is compared by l2")
    bits = cell.bits or 8
    if bits % 8:
        raise Unavailable(f"bits must be a multiple of 8; got {bits}")
    most, least = max(bits, docs.shape[1]), min(bits, docs.shape[1])
    square = np.random.default_rng(SEED).standard_normal((most, least))
    tall = np.linalg.qr(square)[0].astype(np.float32)  # [most, least]
    rotation = np.ascontiguousarray(tall if tall.shape == (docs.shape[1], bits) else tall.T)
    index = module("faiss", "faiss-cpu").IndexBinaryFlat(bits)
    return _filled(Signs(cell, index, metric, rotation), docs)


def _filled(index: Faiss, docs: F32) -> Faiss:
    index.fill(docs)
    return index


FAISS: dict[str, Callable[[Cell, F32, str], Faiss]] = {"ivf": ivf, "hnsw": hnsw, "pq": pq, "hamming": hamming}
