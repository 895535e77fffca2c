"""Token pooling: which tokens are merged, and what is said of it."""

from __future__ import annotations

from math import ceil
from typing import Any, cast

import numpy as np
import pytest

import pyengine as pe
from pyengine.refining import exact

pytest.importorskip("scipy")
pytestmark = pytest.mark.filterwarnings("error")
RNG = np.random.default_rng(1)
LENGTHS = [0, 1, 2, 3, 7, 40, 0, 13]
DOCS = [RNG.standard_normal((length, 6)).astype(np.float32) for length in LENGTHS]


@pytest.mark.parametrize("factor", [1, 1.5, 2, 3, 100])
def test_every_document_has_its_share_and_every_mean_its_members(factor: float) -> None:
    pooled, said = pe.pool_tokens(DOCS, factor)
    assert pooled.lengths.tolist() == [ceil(length / factor) for length in LENGTHS]
    assert (said.before, said.after) == (sum(LENGTHS), len(pooled.values))
    rows = np.concatenate(DOCS)
    for token, value in enumerate(pooled.values):
        members = rows[said.owner == token].astype(np.float64)
        np.testing.assert_array_equal(value, (members.sum(axis=0) / len(members)).astype(np.float32))
    firsts = [int(np.flatnonzero(said.owner == token)[0]) for token in range(said.after)]
    assert firsts == sorted(firsts)
    document = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    assert np.array_equal(np.searchsorted(pooled.offsets, said.owner, side="right") - 1, document)


def test_a_factor_of_one_changes_nothing() -> None:
    pooled, said = pe.pool_tokens(DOCS, 1)
    np.testing.assert_array_equal(pooled.values, np.concatenate(DOCS))
    assert np.allclose(said.cosine, 1)
    assert str(said).startswith("66 tokens became 66, of which 66 are as they were; cosine")


def test_what_points_the_same_way_is_merged_whatever_its_length() -> None:
    doc = np.array([[1, 0], [0, 3], [5, 0.1], [0, 0.5]], np.float32)
    pooled, said = pe.pool_tokens([doc], 2)
    assert said.owner.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(pooled[0], np.array([[3, 0.05], [0, 1.75]], np.float32))
    assert said.cosine[1] == 1


def test_zeros_are_far_from_everything() -> None:
    pooled, said = pe.pool_tokens([np.array([[0, 0], [1, 1], [2, 2.1], [0, 0]], np.float32)], 4 / 3)
    assert pooled.lengths.tolist() == [3]
    assert said.owner.tolist() == [0, 1, 1, 2]
    assert said.cosine[0] == 0


def test_nothing_is_said_of_nothing() -> None:
    pooled, said = pe.pool_tokens([np.empty((0, 3))], 2)
    assert (len(pooled), pooled.dim, str(said)) == (1, 3, "0 tokens became 0, of which 0 are as they were")


DROP = np.arange(66) % 3 == 0
DROP[1:3] = True  # all of the document of two tokens


def test_what_is_dropped_takes_part_in_nothing() -> None:
    offsets = np.cumsum([0, *LENGTHS])
    left = [doc[~DROP[low:high]] for doc, low, high in zip(DOCS, offsets, offsets[1:])]
    marked = [np.where(DROP[low:high, None], np.nan, doc) for doc, low, high in zip(DOCS, offsets, offsets[1:])]
    for factor in (1, 2, 5):
        want, merged = pe.pool_tokens(left, factor)
        for drop in (DROP, DROP.tolist(), np.split(DROP, offsets[1:-1])):
            pooled, said = pe.pool_tokens(marked, factor, drop)
            np.testing.assert_array_equal(pooled.values, want.values)
            assert pooled.offsets.tolist() == want.offsets.tolist()
            assert (said.before, said.after, said.dropped) == (66, merged.after, DROP.sum())
            assert said.owner[DROP].tolist() == [-1] * said.dropped
            assert not said.cosine[DROP].any()
            np.testing.assert_array_equal(said.owner[~DROP], merged.owner)
            np.testing.assert_array_equal(said.cosine[~DROP], merged.cosine)
    assert str(said).startswith(f"66 tokens became {said.after}, of which ")
    assert f"; {DROP.sum()} were dropped; cosine with" in str(said)
    assert str(pe.pool_tokens(DOCS, 2, np.ones(66, bool))[1]).endswith("as they were; 66 were dropped")


FORMS = ["ragged", "list", "iterator"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("arguments", [{"pool": 2}, {"drop": DROP}, {"pool": 3.5, "drop": DROP}], ids=str)
@pytest.mark.skipif(exact.native() is None, reason="the extension is not built")
def test_an_index_keeps_what_pooling_leaves(
    form: str, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    want, merged = pe.pool_tokens(DOCS, arguments.get("pool", 1), arguments.get("drop"))
    monkeypatch.setattr("pyengine.indexes.chunks.BLOCK_BYTES", 4 * 6 * 9)  # so that they come in pieces
    docs = {"ragged": pe.Ragged.of(DOCS), "list": DOCS, "iterator": iter([DOCS[:3], DOCS[3:5], DOCS[5:]])}[form]
    if form == "iterator" and "drop" in arguments:
        arguments = arguments | {"drop": iter(np.split(DROP, [3, 13]))}
    index = pe.MultiVectorIndex(6, "float32")
    said = index.add(docs, **arguments)
    kept = index.tokens(index.ids)
    np.testing.assert_array_equal(kept.values, want.values)
    assert kept.offsets.tolist() == want.offsets.tolist()
    assert said is not None
    assert said[:2] == merged[:2]
    np.testing.assert_array_equal(said.owner, merged.owner)
    np.testing.assert_array_equal(said.cosine, merged.cosine)


@pytest.mark.skipif(exact.native() is None, reason="the extension is not built")
def test_replacing_pools_too_and_nothing_is_said_where_nothing_was_asked() -> None:
    index = pe.MultiVectorIndex(6, "float32")
    assert index.add(DOCS) is None
    said = index.replace(DOCS[4:6], [0, 6], pool=2, drop=np.arange(47) < 3)
    assert (said.before, said.after, said.dropped) == (47, 22, 3) if said else False
    assert index.tokens([0, 6]).lengths.tolist() == [2, 20]
    assert index.replace(DOCS[:1], [6]) is None


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"pool": 0}, ValueError, "pool must be a number of 1 or more; got 0"),
    ({"pool": True}, ValueError, "pool must be a number of 1 or more; got True"),
    ({"drop": DROP[1:]}, ValueError, r"drop must have shape \(66,\), one per token; got \(65,\)"),
    ({"drop": DROP.astype(int)}, TypeError, "drop must be bool, one per token; got dtype int64"),
    ({"drop": [DROP]}, ValueError, "drop must have one array for each row, of one value per token; got other lengths"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD, ids=[message[:30] for *_, message in BAD])
@pytest.mark.skipif(exact.native() is None, reason="the extension is not built")
def test_a_refused_argument_of_add_changes_nothing(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    index = pe.MultiVectorIndex(6)
    with pytest.raises(error, match=f"^{message}$"):
        index.add(DOCS, **arguments)
    assert len(index) == 0


@pytest.mark.skipif(exact.native() is None, reason="the extension is not built")
def test_pieces_are_counted_through(monkeypatch: pytest.MonkeyPatch) -> None:
    index = pe.MultiVectorIndex(6)
    with pytest.raises(ValueError, match="drop must have one array for each chunk of docs; got 1"):
        index.add(iter([DOCS, DOCS]), drop=iter([DROP]))
    with pytest.raises(ValueError, match="drop must have one array for each chunk of docs; got more than 1"):
        index.add(iter([DOCS]), drop=iter([DROP, DROP]))
    with pytest.raises(TypeError, match="drop must be an iterator of arrays where docs is an iterator; got a ndarray"):
        index.add(iter([DOCS]), drop=DROP)
    monkeypatch.setattr("pyengine.indexes.chunks.BLOCK_BYTES", 4 * 6 * 9)
    bad = [*DOCS[:7], np.where(np.arange(13)[:, None] == 9, np.nan, DOCS[7])]
    with pytest.raises(ValueError, match="docs must be finite in float32; token 9 of row 7 holds"):
        index.add(bad, pool=2, drop=np.arange(66) == 60)
    assert len(index) == 0


def test_bad_input_is_one_sentence() -> None:
    for factor in (0.5, -1, float("nan"), float("inf"), "2", True):
        with pytest.raises(ValueError, match=f"^factor must be a number of 1 or more; got {factor!r}$"):
            pe.pool_tokens(DOCS, cast(Any, factor))
    with pytest.raises(ValueError, match=r"^docs must be finite in float32; token 1 of row 0 holds"):
        pe.pool_tokens([[[1.0, 2.0], [np.nan, 0.0]]], 2)
    with pytest.raises(ValueError, match=r"^docs must be a pyengine\.Ragged"):
        pe.pool_tokens(np.eye(3), 2)
