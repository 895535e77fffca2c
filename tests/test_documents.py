"""What the stores of LangChain, LlamaIndex and Haystack share: named documents, by vector, by words and by both."""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine.indexes import storage
from pyengine.integrations import documents_storage
from pyengine.integrations.documents import Documents, Hit
from pyengine.integrations.documents_words import ABOVE_ZERO

D = 24
WORDS = ["cat", "dog", "rain", "box", "sun", "tree", "house", "river", "bird", "stone"]
Record = dict[str, Any]


def made(n_docs: int, seed: int = 0, metric: str = "cosine", vectors: float = 1.0) -> Documents[Record]:
    """Documents of which each has a vector with this probability, and vectors and texts that tie now and then."""
    rng = np.random.default_rng(seed)
    documents: Documents[Record] = Documents("test", lambda record: str(record["text"]), metric, None)
    rows = rng.integers(-2, 3, (n_docs, D)).astype(np.float32)
    texts = [" ".join(rng.choice(WORDS, rng.integers(0, 8))) for _ in range(n_docs)]
    names = [f"{seed}-{row}" for row in range(n_docs)]
    given = [row if rng.random() < vectors else None for row in rows]
    documents.put(names, [{"text": text, "row": row} for row, text in enumerate(texts)], given)
    return documents


def even(record: Record) -> bool:
    return bool(record["row"] % 2 == 0)


def pairs(hits: Sequence[Hit]) -> list[tuple[str, float]]:
    return [(hit.name, hit.score) for hit in hits]


def told(documents: Documents[Record], found: pe.TopK, rows: Sequence[int] | None = None) -> list[tuple[str, float]]:
    """A result over rows of the documents, as names and scores."""
    names = [name for name, _ in documents.all()]
    numbers = range(len(names)) if rows is None else rows
    return [(names[numbers[i]], float(s)) for i, s in zip(found.ids[0], found.scores[0]) if i >= 0]


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("vectors", [1.0, 0.6])
@pytest.mark.parametrize("k", [1, 7, 500])
def test_the_nearest_are_those_of_the_engine(metric: str, vectors: float, k: int) -> None:
    documents = made(200, 1, metric, vectors)
    every: list[Any] = list(documents.vectors([name for name, _ in documents.all()]))
    for keep in (None, even):
        rows = [row for row, each in enumerate(every) if each is not None and (keep is None or row % 2 == 0)]
        matrix = np.stack([every[row] for row in rows])
        for query in np.random.default_rng(2).standard_normal((5, D)):
            want = pe.topk(query[None], matrix, k, metric=metric)
            assert pairs(documents.nearest(query, k, keep)) == told(documents, want, rows)


@pytest.mark.parametrize("keep", [None, even])
def test_words_are_bm25_of_all_texts(keep: Any) -> None:
    documents = made(150, 3)
    analyze = pe.Analyzer(None)
    model = pe.BM25.fit([analyze(record["text"]) for _, record in documents.all()])
    allow = None if keep is None else range(0, 150, 2)
    for text in ("cat", "dog rain rain", "sun tree nothing", "nothing", ""):
        want = pe.sparse_topk(model.queries([analyze(text)]), model.docs, 9, allow=allow, threshold=ABOVE_ZERO)
        assert pairs(documents.matching(text, 9, keep)) == told(documents, want)


@pytest.mark.parametrize("share", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("depths", [None, (5, 8)])
def test_both_fuse_the_two_rankings(share: float | None, depths: tuple[int, int] | None) -> None:
    documents = made(150, 4, vectors=0.9)
    numbers = {name: row for row, (name, _) in enumerate(documents.all())}

    def ranked(hits: list[Hit]) -> pe.TopK:
        ids, scores = [numbers[hit.name] for hit in hits], [hit.score for hit in hits]
        return pe.TopK(np.array([scores], np.float32), np.array([ids], np.int64), np.ones(1, bool))

    by_vector, by_words = depths or (100, 100)
    how: Any = {} if share is None else {"method": "convex", "weights": (share, 1 - share)}
    for query in np.random.default_rng(5).standard_normal((5, D)):
        rankings = documents.nearest(query, by_vector, even), documents.matching("cat rain", by_words, even)
        want = told(documents, pe.fuse([ranked(each) for each in rankings], 10, **how))
        assert pairs(documents.both(query, "cat rain", 10, even, share, depths)) == want


@pytest.mark.parametrize("recent", [False, True])
@pytest.mark.parametrize("balance", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("pool", [12, None])
def test_diverse_is_maximal_marginal_relevance(recent: bool, balance: float, pool: int | None) -> None:
    documents = made(60, 6)
    names = [name for name, _ in documents.all()]
    rows = np.stack(documents.vectors(names))  # type: ignore[arg-type]
    similar = pe.topk(rows, rows, len(rows))
    table = np.take_along_axis(similar.scores, np.argsort(similar.ids), axis=1).astype(np.float64)
    for query in np.random.default_rng(7).standard_normal((4, D)):
        hits = documents.nearest(query, 60)[:pool]
        left = {names.index(hit.name): balance * hit.score for hit in hits}  # in the order of the ranking
        chosen: list[tuple[str, float]] = []
        while left and len(chosen) < 6:
            past = [names.index(name) for name, _ in chosen][-1 if recent else None :]
            value = {
                row: score - (1 - balance) * max(table[row, past]) if past else score for row, score in left.items()
            }
            best = max(value, key=lambda row: value[row])
            chosen.append((names[best], value[best]))
            del left[best]
        assert pairs(documents.diverse(query, 6, pool, balance, recent=recent)) == chosen


def test_a_name_that_is_written_again_counts_as_new() -> None:
    documents = made(10)
    rows = np.eye(D, dtype=np.float32)
    documents.put(
        ["0-3", "new", "0-3"], [{"text": "x", "row": 1}, {"text": "y", "row": 2}, {"text": "zebra", "row": 3}], rows
    )
    assert len(documents) == 11
    assert [name for name, _ in documents.all()][-2:] == ["new", "0-3"]
    assert documents.get(["0-3", "nowhere"]) == [("0-3", {"text": "zebra", "row": 3})]
    assert documents.nearest(rows[2], 1)[0][::2] == ("0-3", 1.0)
    assert [hit.name for hit in documents.matching("zebra", 5)] == ["0-3"]
    assert not documents.matching("x", 5)
    documents.put(["0-3"], [{"text": "", "row": 0}], [None])
    assert documents.vectors(["0-3", "new", "nowhere"])[::2] == [None, None]
    assert documents.nearest(rows[2], 1)[0].name != "0-3"


def test_removed_documents_are_not_found() -> None:
    documents = made(20)
    assert documents.drop(["0-1", "nowhere", "0-2", "0-1"]) == 2
    assert len(documents) == 18
    assert "0-1" not in documents
    assert {"0-1", "0-2"}.isdisjoint(hit.name for hit in documents.nearest(np.ones(D), 50))
    assert {"0-1", "0-2"}.isdisjoint(hit.name for hit in documents.matching(" ".join(WORDS), 50))
    documents.clear()
    assert len(documents) == 0
    documents.put(["other"], [{"text": "", "row": 0}], np.ones((1, 3)))  # an empty store takes any dimensions
    assert documents.nearest(np.ones(3), 2)[0][::2] == ("other", 1.0)


@pytest.mark.parametrize("n_docs", [0, 3])
def test_a_store_without_vectors_or_words_finds_nothing(n_docs: int) -> None:
    documents = Documents[Record]("test", lambda record: "", language=None)
    documents.put([str(row) for row in range(n_docs)], [{}] * n_docs, [None] * n_docs)
    query = np.ones(D)
    assert documents.nearest(query, 3) == documents.matching("cat", 3) == documents.both(query, "cat", 3) == []
    assert documents.diverse(query, 3, 20, 0.5) == documents.nearest(query, 0) == documents.both(query, "cat", 0) == []


def test_what_does_not_fit_changes_nothing() -> None:
    documents = made(5)
    before = documents.all()
    bad = np.ones((1, D))
    bad[0, 3] = np.nan
    for vectors, said in ((np.ones((1, 3)), f"vectors must have {D} dimensions"), (bad, "vectors must be finite")):
        with pytest.raises(ValueError, match=said):
            documents.put(["0-1"], [{"text": "new", "row": 9}], vectors)
    with pytest.raises(ValueError, match=f"queries must have {D} dimensions"):
        documents.nearest(np.ones(3), 1)
    with pytest.raises(ZeroDivisionError):
        documents.nearest(np.ones(D), 1, lambda record: 1 / 0)
    assert documents.all() == before
    assert len(documents.nearest(np.ones(D), 9)) == 5


def test_a_copy_answers_alike_and_is_another() -> None:
    documents = made(30, vectors=0.5)
    documents.drop(["0-3"])
    other = copy.deepcopy(documents)
    vector = np.ones(D)
    assert pairs(other.both(vector, "cat", 9)) == pairs(documents.both(vector, "cat", 9))
    assert other.all() == documents.all()
    other.clear()
    assert len(documents) == 29


def test_a_filter_that_is_no_function_is_a_sentence() -> None:
    with pytest.raises(TypeError, match=r"filter must be a function of a document; got {'row': 1}"):
        made(3).nearest(np.ones(D), 1, {"row": 1})  # type: ignore[arg-type]


def test_a_search_sees_one_state() -> None:
    """Documents are replaced, all by one call: a search finds the old ones or the new ones, as many as asked for."""
    rows = np.random.default_rng(8).standard_normal((40, D)).astype(np.float32)
    names = [str(row) for row in range(40)]
    documents: Documents[Record] = Documents("test", lambda record: "cat", language=None)
    documents.put(names, [{"state": 0}] * 40, rows)
    stop = False

    def write() -> int:
        state = 0
        while not stop:
            state += 1
            documents.put(names, [{"state": state}] * 40, rows)
            if state % 5 == 0:
                documents.clear()
            time.sleep(0.001)  # the lock is not fair
        return state

    def read(_: int) -> None:
        for keep in (None, lambda record: True):
            for hits in (documents.nearest(rows[0], 10, keep), documents.both(rows[0], "cat", 10, keep)):
                assert len(hits) in (0, 10)
                assert len({hit.record["state"] for hit in hits}) <= 1

    with ThreadPoolExecutor(4) as pool:
        writing = pool.submit(write)
        try:
            list(pool.map(read, range(60)))
        finally:
            stop = True
        assert writing.result() > 2


def load(path: Path) -> Documents[Record]:
    return documents_storage.load(path, "test", lambda record: str(record["text"]), dict)


@pytest.mark.parametrize("vectors", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n_docs", [0, 50])
def test_what_is_loaded_answers_as_what_was_saved(n_docs: int, vectors: float, tmp_path: Path) -> None:
    documents = made(n_docs, 9, "dot", vectors)
    documents.drop(["9-3", "9-4"])
    documents_storage.save(documents, tmp_path / "store", dict)
    loaded = load(tmp_path / "store")
    assert loaded.all() == documents.all()
    assert (loaded.metric, loaded.language) == ("dot", None)
    for query in np.random.default_rng(0).standard_normal((5, D)):
        for found in (documents, loaded):
            assert found.nearest(query, 5) == documents.nearest(query, 5)
            assert found.both(query, "cat sun", 5) == documents.both(query, "cat sun", 5)
    with pytest.raises(ValueError, match="must describe a DenseIndex"):
        pe.load(tmp_path / "store")
    with pytest.raises(ValueError, match="must describe 'other documents'; got 'test documents'"):
        documents_storage.load(tmp_path / "store", "other", lambda record: "", dict)


def test_a_record_that_is_not_json_is_refused(tmp_path: Path) -> None:
    documents = made(3)
    documents_storage.save(documents, tmp_path, dict)
    documents.put(["odd"], [{"text": "", "row": {1, 2}}], [None])
    with pytest.raises(TypeError, match="documents must be JSON to be saved; 'odd' is not"):
        documents_storage.save(documents, tmp_path, dict)
    assert len(load(tmp_path)) == 3


def test_altered_files_are_refused(tmp_path: Path) -> None:
    documents_storage.save(made(20, vectors=0.5), tmp_path, dict)
    assert {path.name for path in tmp_path.rglob("*.npy")} == {"documents.npy", "rows.npy", "vectors.npy"}
    for path in tmp_path.rglob("*.*"):
        whole = path.read_bytes()
        altered = bytearray(whole)
        altered[-20] ^= 1
        for content in (bytes(altered), whole[:-1], whole[: len(whole) // 2], b""):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=path.name):
                load(tmp_path)
        path.write_bytes(whole)
    load(tmp_path)


def test_a_manifest_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    for name, value in {
        "metric": "l2", "documents": 7, "bytes": "many", "with_vector": -1, "dim": 2, "language": 3,
    }.items():  # fmt: skip
        documents_storage.save(made(5), tmp_path, dict)
        content = json.loads(manifest.read_text())
        content |= {name: value}
        del content["blake2b"]
        manifest.write_text(json.dumps(content | {"blake2b": storage._content_hash(content)}))
        with pytest.raises(ValueError, match="must"):
            load(tmp_path).matching("cat", 1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_kill_9_leaves_the_old_store_or_the_new_one(tmp_path: Path) -> None:
    states = [made(30, 10), made(60, 11)]
    documents_storage.save(states[0], tmp_path, dict)
    rng, seen, longest = np.random.default_rng(12), {30: 0, 60: 0}, 0.01
    for _ in range(30):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    for state in reversed(states):
                        documents_storage.save(state, tmp_path, dict)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        loaded = load(tmp_path)
        assert loaded.all() == states[len(loaded) == 60].all()
        assert loaded.nearest(np.ones(D), 5) == states[len(loaded) == 60].nearest(np.ones(D), 5)
        seen[len(loaded)] += 1
        longest *= 1.1
    assert min(seen.values()) > 0
