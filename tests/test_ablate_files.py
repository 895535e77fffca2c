"""Formats of the ablation's data, each written and read back; damaged files."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.datasets import ciff, opening, sparse_files, trec, vectors
from bench.datasets.opening import Source

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
        ('{"id": "a", "vector": {"x": 1}}\n\n\n{"id"', 4),
        ('{"id": "a", "vector": {"x": NaN}}', 1),
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
