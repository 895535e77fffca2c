"""Runs and judgements: from a search to what TREC's tools, ranx and ir_measures read.

    from pyengine.integrations import runs

    run = runs.of(index.search(queries, 100), doc_ids, query_ids)  # {query: {document: score}}
    runs.write(path, run)
    ranx.evaluate(qrels, runs.to_ranx(run), "ndcg@10")  # after: import ranx
    ir_measures.calc_aggregate([nDCG @ 10], qrels, runs.scored_docs(run))

Evaluators put documents of equal scores in orders of their own (trec_eval by name, the largest first). So the scores of
a run fall strictly: one that equals the one before it is made the next float32 below, float32 being what trec_eval
reads. Read against ranx 0.3.21 and ir_measures 0.4.3.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyengine import checks
from pyengine.integrations import parts
from pyengine.specification.reference import rank_score
from pyengine.types import F32, I64, TopK

LIBRARY = "ranx"
DIFFERENCES = ("equal scores are written one float32 apart, so that every evaluator keeps the engine's order",)

Run = dict[str, dict[str, float]]
"""Scores by query id, then by document id, best first; larger is better."""

Qrels = dict[str, dict[str, int]]
"""Judgements by query id, then by document id; above 0 is relevant."""


def of(found: TopK, doc_ids: Sequence[str], query_ids: Sequence[str], metric: str = "dot") -> Run:
    """The run of a search: ``doc_ids`` [N] are the names of the engine's ids 0 .. N-1, ``query_ids`` [Q] of the rows.
    Smaller is better for the metric ``l2`` alone, whose scores are negated. Pads are left out.

    ValueError for names that are not enough, or not distinct, and for scores that rise.
    """
    ids, scores = checks.host_array(found.ids, "found.ids"), checks.host_array(found.scores, "found.scores")
    if len(query_ids) != len(ids) or len({*query_ids}) != len(query_ids):
        raise ValueError(f"query_ids must be {len(ids)} distinct names, one for each row; got {len(query_ids)}")
    if ids.max(initial=-1) >= len(doc_ids):
        raise ValueError(f"doc_ids must name every id up to {ids.max()}; got {len(doc_ids)} names")
    ranks = np.asarray(rank_score(scores, metric), np.float32)
    if (ranks[:, 1:] > ranks[:, :-1]).any():
        raise ValueError(f"found must have its best first by metric={metric!r}; got scores in the other direction")
    run: Run = {}
    for query, row, values in zip(query_ids, ids.tolist(), _falling(ranks).tolist()):
        run[str(query)] = {str(doc_ids[id_]): value for id_, value in zip(row, values) if id_ >= 0}
        if len(run[str(query)]) != sum(id_ >= 0 for id_ in row):
            raise ValueError(f"doc_ids must be distinct; query {query!r} found one name twice")
    return run


def write(path: Path, run: Mapping[str, Mapping[str, float]], tag: str = "pyengine") -> None:
    """A TREC run file: ``query Q0 document rank score tag`` a line, ranks from 1, best first; documents of equal scores
    in the order of the run. Nine digits keep every float32 apart. ValueError for a name that holds white space, or a
    score that is not finite; nothing is written then."""
    lines = []
    for query, found in run.items():
        order = sorted(found, key=lambda each: -found[each])
        with np.errstate(over="ignore"):
            scores = np.array([found[each] for each in order], np.float64).astype(np.float32)
        if not np.isfinite(scores).all():
            raise ValueError(f"run must have scores that are finite in float32; query {query!r} has others")
        for place, (name, score) in enumerate(zip(order, _falling(scores)), 1):
            lines.append(f"{_word(query)} Q0 {_word(name)} {place} {score:.9g} {_word(tag)}\n")
    with path.open("w", encoding="utf-8") as file:
        file.writelines(lines)


def read(path: Path) -> Run:
    """The scores of a TREC run file (``.gz`` too), which its ranks do not matter for: best first, documents of equal
    scores as trec_eval has them, by name, the largest first. ValueError with the line for what is no run."""
    run: Run = {}
    for where, (query, _, name, _, score, _) in _records(path, 6, "query Q0 document rank score tag"):
        _put(run.setdefault(query, {}), name, _parsed(score, float, where), where)
    for query, found in run.items():
        order = sorted(found, reverse=True)
        run[query] = {name: found[name] for name in sorted(order, key=lambda each: -found[each])}
    return run


def read_qrels(path: Path) -> Qrels:
    """The judgements of a TREC file (``.gz`` too), ``query 0 document grade`` a line. ValueError with the line for what
    is none."""
    qrels: Qrels = {}
    for where, (query, _, name, grade) in _records(path, 4, "query 0 document grade"):
        _put(qrels.setdefault(query, {}), name, _parsed(grade, int, where), where)
    return qrels


def to_ranx(run: Run, name: str | None = None) -> Any:
    """A `ranx.Run`. ranx knows no query without results: evaluate with ``make_comparable=True`` where there is one."""
    return parts.library("ranx", LIBRARY).Run.from_dict({query: found for query, found in run.items() if found}, name)


def scored_docs(run: Run) -> Iterator[Any]:
    """`ir_measures.ScoredDoc` of every document, best first."""
    scored = parts.library("ir_measures", "ir_measures").ScoredDoc
    return (scored(query, name, score) for query, found in run.items() for name, score in found.items())


def _falling(scores: F32) -> F32:
    """Scores [.., K], best first, made to fall strictly by as few steps of float32 as that takes."""
    places = np.arange(scores.shape[-1])
    steps = np.minimum.accumulate(_number(scores) + places, axis=-1) - places
    lowest = _number(np.array(np.finfo(np.float32).min)) + places[::-1]  # room for those that follow
    steps = np.maximum(steps, lowest)
    magnitudes = np.abs(steps).astype(np.uint32).view(np.float32)
    falling: F32 = np.where(steps < 0, -magnitudes, magnitudes)
    return falling


def _number(values: Any) -> I64:
    """Consecutive integers for consecutive float32, 0 for 0."""
    bits: I64 = np.abs(values).astype(np.float32).view(np.uint32).astype(np.int64)
    return np.where(np.signbit(values), -bits, bits)


def _word(name: str) -> str:
    if len(name.split()) != 1:
        raise ValueError(f"ids in a TREC run must be words without white space; got {name!r}")
    return name


def _records(path: Path, columns: int, form: str) -> Iterator[tuple[str, list[str]]]:
    """Where each line that is not blank is, and its words."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            words = line.split()
            if words and len(words) != columns:
                raise ValueError(f"{path}, line {number}: expected {form!r}; got {len(words)} words")
            if words:
                yield f"{path}, line {number}", words


def _parsed(word: str, kind: Any, where: str) -> Any:
    try:
        value = kind(word)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ValueError(f"{where}: expected a finite number; got {word!r}")
    return value


def _put(found: dict[str, Any], name: str, value: Any, where: str) -> None:
    if name in found:
        raise ValueError(f"{where}: {name!r} was there before for this query")
    found[name] = value
