"""Collections of the ablation: folders with everything, encoders, SciFact, and laws fitted to data."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.datasets import clustered, made_up, opening, scifact, texts, zipf
from bench.datasets.clustered import Clustered
from bench.datasets.collection import Collection, Rows, numbered
from bench.datasets.opening import Source
from bench.workloads import sparse_data
from pyengine.inputs.sparse_rows import SparseRows

RNG = np.random.default_rng(5)
VECTORS = RNG.standard_normal((6, 4)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Everything that a folder may hold."""
    for kind, names in (("docs", ["b", "a", "c"]), ("queries", ["q", "r"])):
        count = len(names)
        np.save(tmp_path / f"{kind}.npy", VECTORS[:count])
        np.save(tmp_path / f"{kind}.tokens.npy", VECTORS[: 2 * count])
        np.save(tmp_path / f"{kind}.offsets.npy", np.arange(count + 1) * 2)
        lines = [json.dumps({"_id": name, "text": f"the {name} cat"}) for name in names]
        (tmp_path / f"{'corpus' if kind == 'docs' else kind}.jsonl").write_text("\n".join(lines))
        weights = [json.dumps({"_id": name, "vector": {name: 2.0, "x": 1.0}}) for name in reversed(names)]
        (tmp_path / f"{kind}.sparse.jsonl").write_text("\n".join(weights))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tb\t1\nelse\ta\t1\n")
    (tmp_path / "run.trec").write_text("q Q0 c 1 3 x\nq Q0 b 2 2 x\nr Q0 a 1 1 x\n")
    return tmp_path


def test_a_folder_of_everything(folder: Path) -> None:
    found = opening.opened(Source(str(folder), metric="dot"))
    assert (found.doc_ids, found.query_ids, found.metric) == (["b", "a", "c"], ["q", "r"], "dot")
    assert found.qrels == {"q": {"b": 1}}
    assert found.docs.tokens is not None
    assert np.array_equal(found.docs.tokens[1], VECTORS[2:4])
    assert found.docs.sparse is not None
    assert sorted(found.docs.sparse[0][1]) == [1, 2]  # in the order of the texts, not of its file
    assert not np.array_equal(found.docs.sparse[0][0], found.docs.sparse[2][0])
    assert found.queries.run is not None
    assert found.queries.run.tolist() == [[2, 0], [1, -1]]


def test_texts_alone_are_searched_by_words_and_encoders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in [*folder.glob("*.npy"), *folder.glob("*.sparse.jsonl")]:
        path.unlink()
    (folder / "broken_ablate_encoder.py").write_text("def encode(texts)\n")
    (folder / "mine_ablate_encoder.py").write_text(
        "import numpy as np\ndef encode(texts):\n    return np.array([[len(t), t.count('a')] for t in texts], 'f4')\n"
        "def short(texts):\n    return np.zeros((1, 2), 'f4')\nnumber = 3\n"
        "def stops(texts):\n    return [[1 / (t != BAD)] for t in texts]\n"
        "def together(texts):\n    return [[1 / (len(texts) < 2)]]\n"
        "def holes(texts):\n    return np.array([[np.nan if t == BAD else 1] for t in texts])\n"
        "BAD = 'the a cat'\n"
    )
    monkeypatch.chdir(folder)
    plain = opening.opened(Source(str(folder)))
    assert plain.docs.dense is None
    assert plain.docs.sparse is not None
    made = opening.opened(Source(str(folder), encoder="mine_ablate_encoder:encode"))
    assert made.docs.dense is not None
    assert made.docs.dense.tolist() == [[9, 1], [9, 2], [9, 1]]
    assert plain.digest() != made.digest()
    for name, said in (
        ("mine_ablate_encoder:short", "a row for each of 3 documents; got 1"),
        (
            "mine_ablate_encoder:stops",
            "^--encoder mine_ablate_encoder:stops fails at text 1 of the documents, counted from 0: "
            "ZeroDivisionError: division by zero$",
        ),
        ("mine_ablate_encoder:together", "fails at the texts 1 to 2 of the documents together: ZeroDivisionError"),
        ("mine_ablate_encoder:holes", "that --encoder mine_ablate_encoder:holes makes of documents must be finite"),
        ("mine_ablate_encoder:holes", "row 1 holds NaN"),
        ("broken_ablate_encoder:encode", r"cannot be imported \(SyntaxError: expected"),
        ("mine_ablate_encoder:none", "has no none"),
        ("mine_ablate_encoder:number", "must be a function"),
        ("nowhere_at_all:encode", "cannot be imported"),
        ("encode", "must be module:function"),
    ):
        with pytest.raises(ValueError, match=said):
            opening.opened(Source(str(folder), encoder=name))


def test_a_model_is_asked_of_sentence_transformers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Encoder:
        def __init__(self, path: str, local_files_only: bool) -> None:
            assert (path, local_files_only) == (str(folder), True)

        def encode(self, rows: list[str], convert_to_numpy: bool, show_progress_bar: bool) -> np.ndarray:
            return np.ones((len(rows), 3), np.float32)

    monkeypatch.setitem(sys.modules, "sentence_transformers", type("module", (), {"SentenceTransformer": Encoder}))
    found = opening.opened(Source(str(folder), model=folder))
    assert found.docs.dense is not None
    assert found.docs.dense.shape == (3, 3)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match="pip install sentence-transformers"):
        opening.opened(Source(str(folder), model=folder))


@pytest.mark.parametrize(
    ("remove", "write", "said"),
    [
        ("docs.offsets.npy", None, "docs.offsets.npy is missing"),
        ("queries.sparse.jsonl", None, "queries.sparse.jsonl is missing"),
        ("queries.jsonl", None, "queries.jsonl is missing"),
        ("docs.npy", VECTORS[:2], "must have as many vectors as docs, 3; got 2"),
        ("docs.sparse.jsonl", '{"_id": "b", "vector": {}}', "'a' has none"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nz\tb\t1\n", "none of the 2 queries is judged"),
        ("ids.json", "[]", "must be a JSON object"),
        ("ids.json", '{"doc_ids": ["b", "b", "c"], "query_ids": ["q", "r"]}', "'b' is there twice"),
        ("queries.npy", VECTORS[:2, :3], "vectors of queries must have 4 dimensions, as those of documents; got 3"),
        ("queries.tokens.npy", VECTORS[:4, :3], "tokens of queries must have 4 dimensions"),
    ],
)
def test_a_folder_with_a_flaw(folder: Path, remove: str, write: Any, said: str) -> None:
    path = folder / remove
    path.unlink(missing_ok=True)
    if isinstance(write, str):
        path.write_text(write)
    elif write is not None:
        np.save(path, write)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        opening.opened(Source(str(folder)))


def test_an_empty_folder_and_a_stray_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no docs"):
        opening.opened(Source(str(tmp_path)))
    path = tmp_path / "docs.txt"
    path.write_text("")
    with pytest.raises(ValueError, match=r"ends in \.npy"):
        opening.opened(Source(str(path)))
    np.save(tmp_path / "docs.npy", VECTORS)
    np.save(tmp_path / "other.npy", VECTORS[:, :3])
    with pytest.raises(ValueError, match="--queries must name a file"):
        opening.opened(Source(str(tmp_path / "docs.npy")))
    with pytest.raises(ValueError, match="must have 4 dimensions"):
        opening.opened(Source(str(tmp_path / "docs.npy"), tmp_path / "other.npy"))
    with pytest.raises(ValueError, match=r"must end in \.npy"):
        opening.opened(Source(str(tmp_path / "docs.npy"), path))
    for stray in ({"queries": path}, {"metric": "l2"}, {"split": "dev"}, {"encoder": "a:b"}):
        with pytest.raises(ValueError, match=f"--{next(iter(stray))} says nothing about --data scifact"):
            opening.opened(Source("scifact", **stray))
    for size in ("", "x", "99"):
        with pytest.raises(ValueError, match="100 or more"):
            opening.opened(Source(f"like-scifact:{size}"))


def test_a_hash_sees_every_part() -> None:
    rows = SparseRows([0, 1, 2], [0, 1], [1.0, 2.0], 3)
    plain = Collection("c", Rows(VECTORS[:2], sparse=rows), Rows(VECTORS[2:4]), numbered(2), numbered(2))
    changed = [
        replace(plain, docs=Rows(VECTORS[:2] + 1, sparse=rows)),
        replace(plain, docs=Rows(VECTORS[:2], sparse=replace_weights(rows))),
        replace(plain, queries=Rows(VECTORS[3:5])),
        replace(plain, qrels={"0": {"1": 1}}),
        replace(plain, metric="dot"),
        replace(plain, part=plain),
    ]
    assert len({each.digest() for each in (plain, *changed)}) == 7
    assert replace(plain, name="d").digest() == plain.digest()


def replace_weights(rows: SparseRows) -> SparseRows:
    return SparseRows(rows.indptr, rows.indices, rows.values + 1, rows.n_terms)


def test_scifact_is_whole() -> None:
    found = scifact.scifact()
    assert (len(found.docs), len(found.queries), found.part is None) == (5183, 300, False)
    part = found.holding("tokens", "dense", "sparse")
    assert (len(part.docs), len(part.queries)) == (165, 80)
    assert part.qrels is not None
    assert all(set(grades) <= set(part.doc_ids) for grades in part.qrels.values())
    row = found.doc_ids.index(part.doc_ids[7])
    assert np.array_equal(part.docs.dense[7], found.docs.dense[row])  # type: ignore[index]


def test_made_up_vectors_have_the_statistics_that_were_fitted() -> None:
    law = Clustered(48, 0.5, 0.4, 1.0, 0.7, 1.0, 0.3)
    docs = clustered.documents(law, 1500)
    queries = clustered.questions(law, docs, 200)
    found = clustered.fit(docs, queries)
    again = clustered.documents(found, 1500)
    real, made = (
        clustered.statistics(docs, queries),
        clustered.statistics(again, clustered.questions(found, again, 200)),
    )
    for name, value in real._asdict().items():
        assert getattr(made, name) == pytest.approx(value, rel=0.12), name
    assert (found.length, found.sigma) == (real.length, real.sigma)
    other = clustered.statistics(clustered.documents(law._replace(spread=0.3), 1500), queries)
    assert other.neighbour > 1.2 * real.neighbour  # the statistic that the spread is fitted to can tell


def test_a_fit_refuses_what_has_no_directions() -> None:
    with pytest.raises(ValueError, match="at least 64 rows"):
        clustered.fit(VECTORS, VECTORS)
    zeros = np.ones((80, 4), np.float32)
    zeros[7] = 0
    with pytest.raises(ValueError, match="no rows of zeros"):
        clustered.fit(zeros, VECTORS)


def test_made_up_terms_have_the_statistics_that_were_fitted() -> None:
    law = sparse_data.Law(3000, 40.0, 15.0, -1.4, 0.4, 0.5, 0.7)
    docs, _ = sparse_data.documents(3000, law)
    queries = sparse_data.queries(400, law, 6, 0.8)
    fitted, asking = zipf.fit(docs, queries)
    made, asked = zipf.made(fitted, asking, 3000, 400)
    assert made.nnz == pytest.approx(docs.nnz, rel=0.03)
    assert fitted.spread == pytest.approx(0.4, abs=0.06)
    assert [fitted.median, fitted.sigma] == pytest.approx([0.5, 0.7], rel=0.02)
    assert fitted.exponent == pytest.approx(-1.4, abs=0.25)
    real, like = (np.sort(np.bincount(each.indices, minlength=3000))[::-1] for each in (docs, made))
    for rank in (0, 10, 100, 1000):
        assert like[rank] == pytest.approx(real[rank], rel=0.25, abs=5), rank
    assert asking.n_terms == 6
    assert zipf.fit(made, asked)[1].touched == pytest.approx(asking.touched, rel=0.1)


def test_a_fit_of_terms_refuses_negative_weights() -> None:
    rows = SparseRows(np.arange(21), np.arange(20), -np.ones(20), 20)
    with pytest.raises(ValueError, match="positive weights"):
        zipf.fit(rows, rows)
    with pytest.raises(ValueError, match="at least 10 terms"):
        zipf.fit(rows.take(np.arange(3)), rows)


def test_a_made_up_collection_has_what_the_real_one_has() -> None:
    docs = clustered.documents(Clustered(16, 0.2, 0.3, 1.0, 0.7, 0.0, 0.0), 200)
    real = Collection("r", Rows(docs), Rows(docs[:20]), numbered(200), numbered(20), metric="dot")
    found = made_up.like(real, 300)
    assert (found.name, len(found.docs), found.metric) == ("like-r:300", 300, "dot")
    assert found.docs.sparse is None
    assert len(found.queries) == made_up.QUERIES == len(found.query_ids)


def test_words_without_a_stemmer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    from pyengine.evaluate import Document

    docs, queries = texts.by_words([Document("", "cats purr"), Document("", "dogs")], ["cats"])
    assert [len(docs), queries.nnz] == [2, 1]
