"""What is measured of a cell: time at two batch sizes beside the cell it is compared with, agreement with the exact
answer, retrieval quality and its significance, bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import pyengine
from bench.ablation.cells import Cell
from bench.ablation.stages import Built, Search
from bench.datasets.collection import Collection, Rows
from bench.racing import timing
from bench.racing.timing import Samples
from pyengine import evaluate
from pyengine.types import F64, I64, TopK

BATCHES = (1, 32)
FEWEST, MOST = 5, 1000  # rounds of a batch size
FLIPS, AT_ONCE = 10_000, 500  # of the randomisation test
QUALITY = {"ndcg_10": 10, "mrr_10": 10, "map_50": 50}  # measures, and how many results each looks at


class Timed(NamedTuple):
    """Calls of a cell, and of the one it is compared with, in the same rounds."""

    own: Samples
    other: Samples | None

    @property
    def cpu_ratio(self) -> float | None:
        """Processor time of this cell by that of the other: the median over rounds, which ask the same queries."""
        if self.other is None:
            return None
        theirs = dict(zip(self.other.rounds, self.other.cpu))
        return float(np.median([cpu / theirs[at] for at, cpu in zip(self.own.rounds, self.own.cpu) if at in theirs]))


def batches(queries: Rows, size: int) -> list[Rows]:
    """All queries in batches; a last one that is smaller is left out, unless it is the only one."""
    count = max(1, len(queries) // size)
    return [queries.take(np.arange(at * size, min((at + 1) * size, len(queries)))) for at in range(count)]


def clock(searches: Mapping[str, tuple[Search, int]], queries: Rows, size: int, seconds: float) -> dict[str, Samples]:
    """Samples by name of searches with their k, all in the same rounds; each round asks the next batch. RuntimeError
    where one fails."""
    parts, trial = batches(queries, size), Samples()
    for search, k in (*searches.values(), *searches.values()):  # the first of each is the warm-up
        trial.call(_asking(search, k, parts[:1]))
    slowest = max(trial.wall[len(searches) :])
    rounds = int(min(MOST, max(FEWEST, seconds // max(slowest, 1e-9))))
    calls = {name: _asking(search, k, parts) for name, (search, k) in searches.items()}
    found = timing.interleave(calls, dict.fromkeys(calls, rounds))
    failed = next((samples.failure for samples in found.values() if samples.failure), None)
    if failed is not None:
        raise RuntimeError(failed)
    return found


def _asking(search: Search, k: int, parts: Sequence[Rows]) -> Callable[[], TopK]:
    """A call that asks the next batch each time."""
    turn = cycle(parts)
    return lambda: search(next(turn), k)


def exact(cell: Cell, collection: Collection) -> TopK:
    """What an exhaustive search of the cell's family finds over everything that there is, in float32."""
    docs, queries, k = collection.docs, collection.queries, cell.k
    if cell.family == "dense":
        return pyengine.topk(queries.dense, docs.dense, k, metric=collection.metric)
    if cell.family == "maxsim":
        return pyengine.maxsim_topk(queries.tokens, docs.tokens, k)
    if cell.family == "sparse":
        return pyengine.sparse_topk(queries.sparse, docs.sparse, k)
    depth = max(k, cell.depth or k)
    both = [
        pyengine.topk(queries.dense, docs.dense, depth, metric=collection.metric),
        pyengine.sparse_topk(queries.sparse, docs.sparse, depth),
    ]
    share, how = cell.weight or 0.0, {} if cell.fusion == "rrf" else {"normalize": cell.normalize}
    weights = None if cell.fusion == "product" else [share, 1 - share]
    return pyengine.fuse(both, k, method=cell.fusion or "rrf", weights=weights, **how)  # type: ignore[arg-type]


def recall(found: TopK, truth: TopK) -> float:
    """The share of the true documents that were found, over all queries; pads are none."""
    hits = [np.isin(true[true >= 0], ids).sum() for ids, true in zip(found.ids, truth.ids)]
    return float(np.sum(hits) / max(1, (truth.ids >= 0).sum()))


def exactness(found: TopK, truth: TopK) -> str:
    """How near the truth it is: "exact" (its ids and score bits, for every query, and proven), "same" (that, but not
    proven), "ids" (its ids, in their order), "certified" (proven of what codes decode to, which is not the truth), or
    "approximate"."""
    proven = bool(np.all(found.certified))
    if np.array_equal(found.ids, truth.ids):
        own, true = (np.ascontiguousarray(each.scores, np.float32).view(np.uint32) for each in (found, truth))
        return ("exact" if proven else "same") if np.array_equal(own, true) else "ids"
    return "certified" if proven else "approximate"


def quality(ids: I64, k: int, collection: Collection) -> dict[str, F64]:
    """For each measure its values float64 [judged queries], in the order of the collection: nDCG@10, MRR@10, mAP@50 as
    far as k reaches, and the recall of relevant documents at k. ImportError without ir_measures."""
    evaluate.require()
    from ir_measures import AP, RR, R, iter_calc, nDCG

    assert collection.qrels is not None
    asked = [name for name in collection.query_ids if name in collection.qrels]
    run = {
        query: {collection.doc_ids[row]: -float(place) for place, row in enumerate(rows) if row >= 0}
        for query, rows in zip(collection.query_ids, ids)
        if query in collection.qrels
    }
    wanted = {"ndcg_10": nDCG @ 10, "mrr_10": RR @ 10, "map_50": AP @ 50, "r_k": R @ k}
    wanted = {name: measure for name, measure in wanted.items() if QUALITY.get(name, 0) <= k}
    qrels = {name: collection.qrels[name] for name in asked}
    values = {str(measure): dict.fromkeys(asked, 0.0) for measure in wanted.values()}
    for each in iter_calc(list(wanted.values()), qrels, run):
        values[str(each.measure)][each.query_id] = each.value
    return {name: np.array([values[str(measure)][query] for query in asked]) for name, measure in wanted.items()}


def significance(own: F64, other: F64, seed: int) -> float:
    """The p-value of a paired randomisation test, two-sided: how often differences [Q] whose signs are drawn have a
    mean as far from 0 (Smucker et al., CIKM 2007)."""
    differences = own - other
    seen = abs(differences.sum())
    random = np.random.default_rng(seed)
    reached = 0
    for _ in range(FLIPS // AT_ONCE):  # [AT_ONCE, Q] signs: of all draws they need gigabytes where queries are many
        flips = random.integers(0, 2, (AT_ONCE, len(differences)), dtype=np.int8) * 2.0 - 1.0
        reached += int((np.abs(flips @ differences) >= seen - 1e-12).sum())
    return (1 + reached) / (1 + FLIPS)


def disk_bytes(built: Built, folder: Path) -> int:
    """Of what it saves."""
    folder.mkdir()
    built.save(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def percentiles(samples: Samples) -> dict[str, Any]:
    """Milliseconds a call: of wall time the 50th, 95th and 99th percentile, of processor time the median."""
    at = {f"p{percent}_ms": 1000 * samples.percentile(percent) for percent in (50, 95, 99)}
    return at | {"cpu_ms": 1000 * samples.cpu_median()}
