"""The arguments that filter: hostile or not, each with its truth (see `values`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyengine.types import I64, TopK
from tests.fuzz.values import Argument, Rng, bad, form, pick

SCORES = (0.0, 0.0, 1.0, -1.0, 0.5, 2.0, 1e-40, 1e30, -1e300, np.inf, -np.inf)


def _some(rng: Rng, known: I64) -> I64:
    return rng.permutation(known)[: int(rng.integers(0, len(known) + 1))]


def some_ids(rng: Rng, known: I64, unknown: bool = False) -> Argument:
    """Ids, with unknown ones among them or not; the truth is int64 [n]."""
    ids = _some(rng, known)
    if unknown and rng.random() < 0.5:
        ids = np.append(ids, [-5, 1 << 62, (1 << 63) - 1])
    return Argument(form(rng, ids), ids)


def no_ids(rng: Rng, known: I64, unknown: bool = False) -> Argument:
    """No list of ids; or one with an id that is ``unknown``."""
    ids = np.append(_some(rng, known), 0)
    wrong: list[Any] = [ids + 0.5, ids[None], "ids", ["1"], ids > 0, [None], object(), [[1], [1, 2]], 3]
    if unknown:
        wrong += [
            np.append(known, -1),
            np.append(known, np.uint64(1 << 63)).astype(np.uint64),
            [1 << 62, (1 << 62) + 1],
        ]
    return bad(pick(rng, wrong))


def exclude(rng: Rng, known: I64, n_queries: int) -> Argument:
    """Ids for each query, ragged or padded; the truth is a list of int64 arrays."""
    each = [some_ids(rng, known[:40], unknown=True) for _ in range(n_queries)]
    if rng.random() < 0.5:
        return Argument([ids.value for ids in each], [ids.truth for ids in each])
    padded = np.full((n_queries, max((len(ids.truth) for ids in each), default=0) + int(rng.integers(3))), -1)
    for row, ids in zip(padded, each):
        row[: len(ids.truth)] = ids.truth
    return Argument(form(rng, padded), [ids.truth for ids in each])


def no_exclude(rng: Rng, known: I64, n_queries: int) -> Argument:
    rows = np.zeros((n_queries + 1, 2), np.int64)
    wrong: list[Any] = [rows, list(rows), rows[:, 0], rows[1:] + 0.5 if n_queries else rows, "exclude", 1, object(),
                        [["1"]] * max(1, n_queries)]  # fmt: skip
    return bad(pick(rng, wrong))


def groups(rng: Rng, n_docs: int) -> Argument:
    labels = rng.integers(0, int(pick(rng, (1, 3, n_docs + 1))), n_docs).astype(pick(rng, ("i8", "u1", ">i4", "u8")))
    return Argument(form(rng, labels), labels.astype(np.int64))


def no_groups(rng: Rng, n_docs: int) -> Argument:
    labels = np.zeros(n_docs + 1, np.int64)
    return bad(
        pick(rng, (labels, labels[:, None], np.append(labels, 0.5), "groups", object(), [None] * (n_docs + 1), 1))
    )


def threshold(rng: Rng, n_queries: int) -> Argument:
    """A score or one for each query; the truth is float64, [] or [Q]."""
    if rng.random() < 0.5:
        value = pick(rng, SCORES)
        return Argument(pick(rng, (float, np.float64, np.array))(value), value)
    values = rng.choice(SCORES, n_queries)
    return Argument(form(rng, values), values)


def no_threshold(rng: Rng, n_queries: int, but: tuple[Any, ...] = ()) -> Argument:
    wrong = (
        np.nan,
        np.zeros(n_queries + 2),
        np.zeros((n_queries, 1, 1)),
        "0",
        [None] * (n_queries + 2),
        1j,
        True,
        None,
    )
    return bad(pick(rng, [value for value in wrong if not any(value is each for each in but)]))


def after(rng: Rng, known: I64, n_queries: int) -> Argument:
    """A score and an id for each query, as a pair or a page; the truth is the pair."""
    scores = np.clip(rng.choice(SCORES, n_queries), -3e38, np.inf).astype(np.float32)
    ids = rng.choice(np.append(known, -1), n_queries)
    if rng.random() < 0.5:
        return Argument((form(rng, scores), form(rng, ids)), (scores, ids))
    page = TopK(scores[:, None].repeat(2, axis=1), ids[:, None].repeat(2, axis=1), np.ones(n_queries, bool))
    return Argument(page, (scores, ids))


def no_after(rng: Rng, n_queries: int) -> Argument:
    zeros, ids = np.zeros(n_queries + 1), np.zeros(n_queries + 1, np.int64)
    flat = TopK(zeros, ids, ids > 0)
    empty = TopK(np.zeros((n_queries, 0), np.float32), np.zeros((n_queries, 0), np.int64), np.ones(n_queries, bool))
    wrong: list[Any] = [(zeros, ids), (zeros[1:],), (zeros[1:], zeros[1:] + 0.5, 3), (zeros + np.nan, ids), 0.5,
                        "after", zeros, (None, None), ("a", "b"), {}, object(), flat, empty,
                        TopK(None, None, None)]  # fmt: skip
    return bad(pick(rng, wrong))


def targets(rng: Rng, known: I64, n_queries: int) -> Argument:
    """Ids of documents, one or several for each query; the truth is int64 [Q] or [Q, T]."""
    if not len(known):
        return bad(np.zeros(n_queries + 1, np.int64))
    chosen = rng.choice(known, pick(rng, ((n_queries,), (n_queries, 1), (n_queries, 3), (n_queries, 0))))
    return Argument(form(rng, chosen) if chosen.size else chosen, chosen)


def no_targets(rng: Rng, known: I64, n_queries: int) -> Argument:
    shape = (n_queries + 1, 1)
    wrong = (np.zeros(shape, np.int64), np.zeros(n_queries + 1, np.int64), np.full(shape, 0.5), "targets", None,
             object(), 1, np.full((n_queries, 1, 1), 0), np.full(shape, "0"))  # fmt: skip
    return bad(pick(rng, wrong))
