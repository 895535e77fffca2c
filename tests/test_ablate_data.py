"""Collections of the ablation: every format written and read back, damaged files, fitted laws."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import sparse_data
from bench.datasets import ciff, clustered, made_up, opening, scifact, sparse_files, texts, trec, vectors, zipf
from bench.datasets.clustered import Clustered
from bench.datasets.collection import Collection, Rows, numbered
from bench.datasets.opening import Source
from pyengine.sparse_rows import SparseRows

RNG = np.random.default_rng(5)
VECTORS = RNG.standard_normal((6, 4)).astype(np.float32)


def vecs(rows: np.ndarray) -> bytes:
    return b"".join(struct.pack("<i", rows.shape[1]) + row.tobytes() for row in rows)


@pytest.mark.parametrize(("suffix", "dtype"), [(".fvecs", "<f4"), (".bvecs", "u1"), (".ivecs", "<i4")])
def test_vecs_files_are_read_back(tmp_path: Path, suffix: str, dtype: str) -> None:
    rows = RNG.integers(0, 200, (5, 7)).astype(dtype)
    path = tmp_path / f"docs{suffix}"
    path.write_bytes(vecs(rows))
    assert np.array_equal(vectors.read_vecs(path), rows)
    assert vectors.read(path).dtype == np.float32


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.fvecs", b"", "must begin with a dimension"),
        ("a.fvecs", vecs(VECTORS)[:-1], "whole rows"),
        ("a.fvecs", b"\x00\x00\x00\x00", "whole rows"),
        ("a.fvecs", vecs(VECTORS[:1]) + vecs(VECTORS[:1, :3]) + b"\0\0\0\0", "row 1 has another dimension than 4"),
        ("a.fvecs", vecs(np.array([[1.0, np.nan]], "<f4")), "row 0 has NaN or inf"),
        ("a.npy", b"\x93NUMPY\x01\x00", "must be a .npy file"),
        ("a.npy", b"", "must be a .npy file"),
        ("a.npy", b"PK\x05\x06" + 18 * b"\0", "must be a .npy file"),
    ],
)
def test_damaged_vectors_are_a_sentence(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        vectors.read(path)
    assert str(path) in str(error.value)


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"must be a \.npy file"):
        vectors.read(path)


def test_hdf5_of_ann_benchmarks(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "toy.hdf5"
    with h5py.File(path, "w") as file:
        file["train"], file["test"] = VECTORS, VECTORS[:2]
        file.attrs["distance"] = "euclidean"
    found = opening.opened(Source(str(path)))
    assert found.metric == "l2"
    assert np.array_equal(found.docs.dense, VECTORS)  # type: ignore[arg-type]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read as HDF5"):
        opening.opened(Source(str(path)))


def test_hdf5_without_h5py_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "toy.hdf5"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match="pip install h5py"):
        opening.opened(Source(str(path)))


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def ciff_file(postings: dict[str, list[tuple[int, int]]], names: list[str]) -> bytes:
    """As the format's description has it: gaps between documents, each message after its length."""
    header = field(1, 1) + field(2, len(postings)) + field(3, len(names)) + varint(7 << 3 | 1) + struct.pack("<d", 2.5)
    messages = [header + field(8, b"about")]
    for term, pairs in postings.items():
        gaps = np.diff([0, *(number for number, _ in pairs)])
        parts = [field(1, int(gap)) + field(2, weight) for gap, (_, weight) in zip(gaps, pairs)]
        messages.append(field(1, term.encode()) + field(2, len(pairs)) + b"".join(field(4, part) for part in parts))
    messages += [field(1, number) + field(2, name.encode()) + field(3, 9) for number, name in enumerate(names)]
    return b"".join(varint(len(message)) + message for message in messages)


POSTINGS = {"cat": [(0, 3), (2, 300)], "dög": [(1, 1), (2, 7)]}
NAMES = ["first", "second", "third"]


def test_ciff_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "docs.ciff"
    path.write_bytes(ciff_file(POSTINGS, NAMES))
    ids, weights = ciff.read(path)
    assert ids == NAMES
    assert weights == [{"cat": 3}, {"dög": 1}, {"cat": 300, "dög": 7}]


def test_ciff_cut_off_anywhere_is_a_sentence(tmp_path: Path) -> None:
    whole, path = ciff_file(POSTINGS, NAMES), tmp_path / "docs.ciff"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="must be a whole CIFF file"):
            ciff.read(path)


def test_ciff_with_any_byte_changed_is_read_or_refused(tmp_path: Path) -> None:
    whole, path = ciff_file(POSTINGS, NAMES), tmp_path / "docs.ciff"
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x9B]) + whole[at + 1 :])
        try:
            ciff.read(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017


SPLADE = [{"id": "b", "vector": {"cat": 1.5, "dog": 2}}, {"id": "a", "vector": {"owl": 0.25}}]


@pytest.mark.parametrize("name", ["docs.sparse.jsonl", "docs.sparse.jsonl.gz"])
def test_splade_files_are_read(tmp_path: Path, name: str) -> None:
    path, text = tmp_path / name, "".join(json.dumps(each) + "\n" for each in SPLADE).encode()
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    docs = sparse_files.read(path)
    assert docs.ids == ["b", "a"]
    rows, asked = sparse_files.joined(docs, sparse_files.Named(["q"], [{"owl": 3.0, "unknown": 1.0}]))
    assert rows.n_terms == asked.n_terms == 3
    assert [list(rows[0][1]), list(rows[1][1]), list(asked[0][0])] == [[1.5, 2], [0.25], [2]]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"id": "a", "vector": {"x": 1}}\n{"id"', 2),
        ('{"id": "a"}', 1),
        ("[1]", 1),
        ('{"id": "a", "vector": {"x": "1"}}', 1),
        ('{"vector": {"x": 1}}', 1),
    ],
)
def test_damaged_splade_files_name_the_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "docs.sparse.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"line {line}: expected"):
        sparse_files.read(path)


def test_damaged_gzip_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "docs.sparse.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "a", "vector": {}}\n' * 50)[:-9])
    with pytest.raises(ValueError, match="must be a whole gzip file"):
        sparse_files.read(path)


def test_runs_and_judgements(tmp_path: Path) -> None:
    run, qrels = tmp_path / "run.trec", tmp_path / "qrels.txt"
    run.write_text("q1 Q0 b 1 0.5 x\nq1 Q0 a 2 0.9 x\nq2 Q0 c 1 1 x\nother Q0 a 1 1 x\n\n")
    assert trec.read_run(run, ["a", "b", "c"], ["q2", "q1"]).tolist() == [[2, -1], [0, 1]]
    qrels.write_text("q1 0 a 2\nq1 0 b 0\n")
    assert trec.read_qrels(qrels) == {"q1": {"a": 2, "b": 0}}
    run.write_text("q1 Q0 z 1 0.5 x")
    with pytest.raises(ValueError, match="the document 'z' is not in the collection"):
        trec.read_run(run, ["a"], ["q1"])
    for path, read in ((run, lambda: trec.read_run(run, ["a"], ["q1"])), (qrels, lambda: trec.read_qrels(qrels))):
        path.write_text("\nq1 Q0 a one two three four")
        with pytest.raises(ValueError, match="line 2: expected query"):
            read()


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
    (folder / "mine_ablate_encoder.py").write_text(
        "import numpy as np\ndef encode(texts):\n    return np.array([[len(t), t.count('a')] for t in texts], 'f4')\n"
        "def short(texts):\n    return np.zeros((1, 2), 'f4')\nnumber = 3\n"
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
        ("mine_ablate_encoder:short", "a row for each of 3 texts; got 1"),
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
