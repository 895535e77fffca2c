"""The one list of what is measured: operations, who can do each, and the tables that show them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from bench import peers
from bench.gpus import gpu_contestants
from bench.gpus.gpu_arena import GpuArena, GpuSparseArena, GpuTokenArena
from bench.operations import compress, lexicon, life, searches, sparse_life, training
from bench.operations.arena import Arena
from bench.operations.sparse_arena import SparseArena
from bench.operations.token_arena import TokenArena
from bench.ours import contestants, filters, sparse_contestants, token_contestants
from bench.racing.race import Entry
from bench.workloads import token_shapes
from bench.workloads.shapes import BASE, LARGE, STORED, Heat, Workload
from bench.workloads.sparse_shapes import BUILT, LIGHT, TEXT, together


class Op(NamedTuple):
    """An operation: ``entries(heat, arena, contestants)`` makes those of the contestants who are to be raced, ``arena``
    holds their data, ``base`` is what a shape that is given by name starts from, and ``filters`` whether it may keep a
    share of the documents."""

    contestants: tuple[Any, ...]
    entries: Callable[[Heat, Any, Sequence[Any]], list[Entry]]
    base: Workload
    arena: type[Arena] = Arena
    filters: bool = False


class Table(NamedTuple):
    """What is shown together: heats of one operation."""

    op: str
    title: str


class Choice(NamedTuple):
    """Who takes part: by ``names``, or where there are none, ours on those ``backends`` and those ``peers``. None means
    all of them; yardsticks always take part."""

    names: frozenset[str] = frozenset()
    backends: frozenset[str] | None = frozenset({"cpu"})
    peers: frozenset[str] | None = None

    def takes(self, who: Any) -> bool:
        if self.names:
            return who.name in self.names
        if getattr(who, "role", "") == "yardstick":
            return True
        if getattr(who, "only_named", False):
            return self.peers is not None and who.name in self.peers
        if who.ours:
            return self.backends is None or (getattr(who, "backend", "") or "cpu") in self.backends
        return self.peers is None or who.name in self.peers


OPS = {
    "dense_topk": Op((*contestants.OURS, *contestants.FORCED, *peers.of("dense_topk")), searches.entries, BASE),
    "dense_filter": Op((*filters.FILTERING, *peers.of("dense_filter")), searches.entries, BASE, filters=True),
    "dense_binary": Op((*compress.BINARY, *peers.of("dense_binary")), compress.binary_entries, LARGE),
    "dense_residual": Op((*compress.RESIDUAL, *peers.of("dense_residual")), compress.residual_entries, BASE),
    "dense_build": Op(life.BUILDING, life.entries, STORED),
    "dense_save": Op(life.SAVING, life.entries, STORED),
    "dense_load": Op(life.LOADING, life.entries, STORED),
    "maxsim": Op((*token_contestants.OURS, *peers.of("maxsim")), searches.entries, token_shapes.A, TokenArena),
    "maxsim_training": Op(training.TRAINERS, training.entries, token_shapes.D, TokenArena),
    "maxsim_codecs": Op(token_contestants.CODECS, compress.residual_entries, token_shapes.G, TokenArena),
    "sparse_topk": Op((*sparse_contestants.OURS, *peers.of("sparse_topk")), searches.entries, LIGHT, SparseArena),
    "bm25": Op(
        (*sparse_contestants.OURS, *peers.of("bm25"), *peers.of("sparse_topk")), searches.entries, TEXT, SparseArena
    ),
    "sparse_postings": Op(
        (*sparse_contestants.KEPT, *sparse_contestants.RESIDENT),
        compress.residual_entries,
        together(LIGHT, 32),
        SparseArena,
    ),
    "sparse_build": Op(sparse_life.BUILDING, life.entries, BUILT, SparseArena),
    "lexicon": Op(lexicon.SIDES, lexicon.entries, LIGHT, SparseArena),
    "gpu_dense_topk": Op(gpu_contestants.DENSE, searches.entries, LARGE, GpuArena),
    "gpu_maxsim": Op(gpu_contestants.MAXSIM, searches.entries, token_shapes.A, GpuTokenArena),
    "gpu_training": Op(gpu_contestants.TRAINING, training.entries, token_shapes.D, GpuTokenArena),
    "gpu_sparse_topk": Op(gpu_contestants.SPARSE, searches.entries, LIGHT, GpuSparseArena),
}
TABLES = {
    "search": Table("dense_topk", "Search"),
    "memory": Table("dense_topk", "Memory beyond the inputs"),
    "binary": Table("dense_binary", "1 bit a dimension"),
    "residual": Table("dense_residual", "A few bits a dimension, without originals; recall of the float32 truth"),
    "build": Table("dense_build", "Building an index"),
    "save": Table("dense_save", "Saving it"),
    "load": Table("dense_load", "Loading it, mapped"),
    "batches": Table("dense_topk", "Batches: ratio of the time per query to that of the batch before"),
    "k": Table("dense_topk", "k: ratio to the first"),
    "filters": Table("dense_filter", "Filters: ratio to none"),
    "threads": Table("dense_topk", "Threads: ratio to two"),
    "maxsim": Table("maxsim", "MaxSim: the best documents by late interaction"),
    "training": Table("maxsim_training", "MaxSim: a contrastive step, forward and backward"),
    "codecs": Table(
        "maxsim_codecs", "MaxSim over compressed documents, without originals; recall of the float32 truth"
    ),
    "sparse": Table("sparse_topk", "Sparse search: the largest inner products over a vocabulary"),
    "bm25": Table("bm25", "Sparse search of text: BM25 impacts"),
    "postings": Table(
        "sparse_postings",
        "What a sparse index keeps in memory, in bytes per posting; recall of the float32 truth",
    ),
    "sparse-build": Table("sparse_build", "Building a sparse index"),
    "lexicon": Table("lexicon", "A lexicon or a dense flat scan of as many documents: latency, and bytes a document"),
    "gpu-dense": Table("gpu_dense_topk", "On the GPU: exact dense search"),
    "gpu-maxsim": Table("gpu_maxsim", "On the GPU: the best documents by late interaction"),
    "gpu-training": Table("gpu_training", "On the GPU: a contrastive step, forward and backward"),
    "gpu-sparse": Table("gpu_sparse_topk", "On the GPU: the largest inner products over a vocabulary"),
}


def op_of(heat: Heat) -> Op:
    return OPS[TABLES[heat.table].op]


def table_of(op: str) -> str:
    """The first table that shows that operation."""
    return next(name for name, table in TABLES.items() if table.op == op)


def names(tables: Iterable[str]) -> list[str]:
    """Of all contestants in those tables."""
    return list(dict.fromkeys(who.name for table in tables for who in OPS[TABLES[table].op].contestants))


def racing(heat: Heat, choice: Choice = Choice()) -> list[Any]:  # noqa: B008 (it cannot be changed)
    """Who takes part in that heat; where the heat names some, nobody else but those who are asked for by name."""
    chosen = [who for who in op_of(heat).contestants if choice.takes(who)]
    narrowed = heat.racing and not choice.names
    return [who for who in chosen if not narrowed or who.name.partition("@")[0] in heat.racing]
