"""The planner: from a problem to the tiles its kernel runs, in pure Python, with a reason for each tile rejected."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil, inf, sqrt

DEPTH_STEP = 64  # bytes: code rows are padded to it
TILES = (96, 192, 288, 480, 960)  # documents: multiples of every kernel's register block (12, 32, 3)
TILE_BYTES = 256 << 10  # a tile's codes stay in the L2 cache (1 MiB and more) beside the panels of the queries
QUERY_BLOCK = 1024
POOL_BYTES = 48 << 20  # candidate pools of a block of queries, as they usually are
CANDIDATE_BYTES = 20
ROW_QUERIES = 4  # up to so many queries each row is read once and multiplied in place; more fill a panel of 16
PANEL = 16
SAMPLE = 1024  # documents at least: more for more queries, which all gain by a better threshold
SAMPLE_SHARE = 24  # and one in so many at most
DEVIATIONS = 2.3  # for normal vectors about 4 / sqrt(D) of the bound
THREAD_OPERATIONS = 1 << 25  # int8 operations that make a thread worth starting: some 30 microseconds
LAUNCH = ("tile", "sample", "sample_rank", "width", "query_block", "row_queries", "deviations", "num_threads")


@dataclass(frozen=True)
class DensePlan:
    """How the CPU kernel scans: the arguments of `_native.propose`, and what they are expected to cost."""

    tile: int  # documents whose codes are in cache together
    sample: int  # documents sampled for a first threshold
    sample_rank: int  # the place in the sample whose score it is
    width: int  # most candidates kept per query
    query_block: int  # queries per pass over the corpus
    row_queries: int
    deviations: float  # of rounding errors, that a threshold allows for; inf: it is one that k documents surely reach
    num_threads: int
    bytes_read: int
    operations: int
    rejected: dict[str, str] = field(default_factory=dict)

    def query_form(self, n_queries: int) -> str:
        """How the queries are laid out."""
        return "single queries" if n_queries <= self.row_queries else f"panels of {PANEL} queries"

    def launch(self) -> dict[str, float]:
        """The keyword arguments of the kernel."""
        return {name: getattr(self, name) for name in LAUNCH}


@lru_cache(maxsize=256)  # a tenth of a search among a thousand documents
def plan_dense(
    n_queries: int, n_docs: int, dims: int, k: int, width: int, row_bytes: int, num_threads: int, sure: bool = False
) -> DensePlan:
    """Plan the scan of [N, D] documents, kept in ``row_bytes`` each, for [Q, D] queries, by up to ``num_threads``. With
    ``sure`` nothing is left to the certificate: for a second attempt."""
    depth = -(-dims // DEPTH_STEP) * DEPTH_STEP
    tile, rejected = _tile(depth, n_docs)
    sample = max(SAMPLE, 4 * k if sure else k * n_queries)
    if n_docs < SAMPLE_SHARE * SAMPLE and (sure or k * n_queries < SAMPLE):
        rejected[f"sample {sample}"] = f"{n_docs} documents are too few for a sample to save work"
        sample = 0
    sample = min(sample, n_docs // SAMPLE_SHARE)
    pool = CANDIDATE_BYTES * (2 * k + 512)
    query_block = max(PANEL, min(QUERY_BLOCK, POOL_BYTES // pool // PANEL * PANEL))
    blocks = -(-n_queries // query_block)
    lanes = n_queries if n_queries <= ROW_QUERIES else -(-n_queries // PANEL) * PANEL
    operations = 2 * n_docs * depth * lanes
    return DensePlan(
        tile=tile,
        sample=sample,
        sample_rank=min(k, sample) if sure else _sample_rank(k, sample, n_docs),
        width=max(width, 4 * k),
        query_block=query_block,
        row_queries=ROW_QUERIES,
        deviations=inf if sure else DEVIATIONS,
        num_threads=max(1, min(num_threads, operations // THREAD_OPERATIONS)),
        bytes_read=blocks * n_docs * row_bytes,
        operations=operations,
        rejected=rejected,
    )


def _sample_rank(k: int, sample: int, n_docs: int) -> int:
    """A place in the sample that the k-th best is unlikely to fall below. About k sample / N of the k best are in
    the sample, by a Poisson law: more than five deviations above that happen once in a million queries, which the
    certificate notices."""
    expected = k * sample / max(1, n_docs)
    return min(k, ceil(expected + 4 * sqrt(expected) + 4))


def _tile(depth: int, n_docs: int) -> tuple[int, dict[str, str]]:
    """The largest tile that fits, and why the others do not."""
    rejected = {}
    chosen = TILES[0]
    for tile in TILES:
        if tile > TILES[0] and tile * depth > TILE_BYTES:
            rejected[f"tile {tile}"] = f"{tile * depth >> 10} KiB of codes exceed the {TILE_BYTES >> 10} KiB kept in L2"
        elif tile > TILES[0] and tile > n_docs:
            rejected[f"tile {tile}"] = f"there are only {n_docs} documents"
        else:
            chosen = tile
    rejected |= {f"tile {tile}": f"tile {chosen} fits as well and is larger" for tile in TILES if tile < chosen}
    return chosen, rejected


TOKEN_TILE = 2048  # document tokens at most: more than one tile only where one document is longer
TOKEN_SHARE = 4096  # document tokens that a thread takes at a time, about
QUERY_PANEL_BYTES = 512 << 10  # of query tokens scanned together: they stay in the L2 cache
TOKEN_SAMPLE = 256  # documents sampled
TOKEN_LAUNCH = ("tile", "share", "sample", "sample_rank", "width", "query_tokens", "deviations", "num_threads")


@dataclass(frozen=True)
class MaxSimPlan:
    """How the CPU kernel scans sets of tokens: the arguments of `_native.maxsim_propose`, and their cost."""

    tile: int  # document tokens whose products are taken together
    share: int  # documents that a thread takes at a time
    sample: int
    sample_rank: int
    width: int
    query_tokens: int  # tokens of the queries of a pass over the corpus, at most
    deviations: float
    num_threads: int
    bytes_read: int
    operations: int
    rejected: dict[str, str] = field(default_factory=dict)

    def launch(self) -> dict[str, float]:
        """The keyword arguments of the kernel."""
        return {name: getattr(self, name) for name in TOKEN_LAUNCH}


def plan_maxsim(
    query_tokens: int,
    n_docs: int,
    doc_tokens: int,
    dim: int,
    k: int,
    width: int,
    row_bytes: int,
    num_threads: int,
    sure: bool = False,
) -> MaxSimPlan:
    """Plan the scan of N documents of ``doc_tokens`` tokens in all, kept in ``row_bytes`` each, for queries of
    ``query_tokens`` in all."""
    depth = -(-dim // DEPTH_STEP) * DEPTH_STEP
    rejected = {}
    sample = TOKEN_SAMPLE + 2 * k
    if n_docs < SAMPLE_SHARE * sample:
        rejected[f"sample {sample}"] = f"{n_docs} documents are too few for a sample to save work"
        sample = 0
    together = max(PANEL, QUERY_PANEL_BYTES // depth // PANEL * PANEL)
    blocks = max(1, -(-query_tokens // together))
    operations = 2 * doc_tokens * depth * -(-query_tokens // PANEL) * PANEL
    return MaxSimPlan(
        tile=TOKEN_TILE if query_tokens <= 4 * PANEL else max(64, min(TOKEN_TILE, TILE_BYTES // 8 // depth)),
        share=max(1, min(n_docs, TOKEN_SHARE * n_docs // max(1, doc_tokens))),
        sample=sample,
        sample_rank=max(1, min(k, sample) if sure else _sample_rank(k, sample, n_docs)),
        width=max(width, 4 * k),
        query_tokens=together,
        deviations=inf if sure else DEVIATIONS,
        num_threads=max(1, min(num_threads, operations // THREAD_OPERATIONS)),
        bytes_read=blocks * doc_tokens * row_bytes,
        operations=operations,
        rejected=rejected,
    )
