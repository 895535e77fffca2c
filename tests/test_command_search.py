"""``pyengine search``: of vectors, of texts by words, by vectors, by both; and what is refused."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import pyengine as pe

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("Stemmer")

from pyengine.command_line import cli
from pyengine.lexical import text_search
from pyengine.types import F32

DOCS = {"a": ("Cats", "They purr in boxes."), "b": ("Dogs", "A dog ran after the box."), "c": ("", "Nothing here")}
VECTORS = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
ASKED = np.array([[0, 1]], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of texts, the same documents as JSONL, vectors of them, and questions."""
    texts = tmp_path / "texts"
    (texts / "more").mkdir(parents=True)
    (texts / "cats.txt").write_text("Cats purr in boxes.", encoding="utf-8")
    (texts / "more" / "dogs.md").write_text("Dogs ran after the box.\n" * 9, encoding="utf-8")
    (texts / "ignored.bin").write_bytes(b"\xff boxes")
    records = [json.dumps({"_id": name, "title": title, "text": text}) for name, (title, text) in DOCS.items()]
    (tmp_path / "docs.jsonl").write_text("\n".join(records), encoding="utf-8")
    (tmp_path / "beir").mkdir()
    (tmp_path / "beir" / "corpus.jsonl.gz").write_bytes(gzip.compress("\n".join(records).encode()))
    (tmp_path / "asked.jsonl").write_text('{"_id": "q", "text": "Running dogs?"}\n', encoding="utf-8")
    (tmp_path / "asked.txt").write_text("a dog\n\nboxes of cats\n", encoding="utf-8")
    np.save(tmp_path / "docs.npy", VECTORS)
    np.save(tmp_path / "asked.npy", ASKED)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit code of ``pyengine search`` with these."""
    monkeypatch.setattr(sys, "argv", ["pyengine", "search", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def ids_of(path: Path) -> list[list[int]]:
    with np.load(path) as file:
        found: list[list[int]] = file["ids"].tolist()
    return found


@pytest.mark.parametrize("docs", ["texts", "docs.jsonl", "beir"])
def test_texts_by_words(
    docs: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, folder / docs, "the running DOGS") == 0
    shown = capsys.readouterr().out
    assert "query 1 the running DOGS" in shown
    assert "BM25" in shown
    names = ("more/dogs.md", "cats.txt") if docs == "texts" else ("b", "a")
    assert f"│ {names[0]} " in shown
    assert f"│ {names[1]} " not in shown  # it shares no word
    assert run(monkeypatch, folder / docs, folder / "asked.txt", "--sparse", "--output", folder / "found.npz") == 0
    assert [row[0] for row in ids_of(folder / "found.npz")] == [1, 0]


def test_texts_by_vectors_and_by_both(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = ["--vectors", folder / "docs.npy", folder / "asked.npy"]
    asked = [folder / "docs.jsonl", folder / "asked.jsonl", *vectors]
    assert run(monkeypatch, *asked, "--dense", "--output", folder / "dense.npz", "--k", 3) == 0
    assert ids_of(folder / "dense.npz") == [[1, 2, 0]]
    assert run(monkeypatch, *asked, "--hybrid", "--output", folder / "hybrid.run", "--k", 2) == 0
    lines = (folder / "hybrid.run").read_text(encoding="utf-8").splitlines()
    dense = pe.TopK(np.zeros((1, 3)), np.array([[1, 2, 0]]), None)
    words = pe.TopK(np.zeros((1, 1)), np.array([[1]]), None)
    score = pe.fuse([dense, words]).scores[0]
    assert lines == [f"q Q0 {name} {n} {s:.9g} pyengine" for n, (name, s) in enumerate(zip("bc", score), 1)]
    assert run(monkeypatch, *asked, "--hybrid") == 0
    assert "RRF" in capsys.readouterr().out


def test_a_model_makes_the_vectors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[list[str]] = []

    class Model:
        def __init__(self, path: str, local_files_only: bool) -> None:
            assert (path, local_files_only) == (str(folder), True)

        def encode(self, texts: list[str], **options: bool) -> F32:
            encoded.append(texts)
            return VECTORS if len(texts) == 3 else ASKED

    module = type(sys)("sentence_transformers")
    module.SentenceTransformer = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    found = folder / "found.npz"
    assert run(monkeypatch, folder / "docs.jsonl", "a dog", "--dense", "--model", folder, "--output", found) == 0
    assert ids_of(found)[0][:3] == [1, 2, 0]
    assert encoded == [["Cats They purr in boxes.", "Dogs A dog ran after the box.", "Nothing here"], ["a dog"]]


def test_vectors_are_searched_as_ever(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, folder / "docs.npy", folder / "asked.npy", "--k", 2) == 0
    shown = capsys.readouterr().out
    assert "query 0" in shown
    assert "cosine" in shown
    assert "text" not in shown


WRONG: list[tuple[list[str], str]] = [
    (["docs.jsonl", "x", "--sparse", "--dense"], "--sparse and --dense cannot be had together"),
    (["docs.jsonl", "x", "--dense"], "--dense and --hybrid need the vectors of the texts: either --vectors or --model"),
    (["docs.jsonl", "x", "--vectors", "docs.npy", "asked.npy"], "--vectors and --model must come with --dense or"),
    (["docs.jsonl", "x", "--hybrid", "--vectors", "asked.npy", "asked.npy"], "must have a row for each of the 3"),
    (["docs.jsonl", "x", "--ids", "docs.npy"], "--ids must come with vectors, not with texts, which have names; got"),
    (["docs.jsonl", " "], "queries must be a text, or a file of queries, a line each; ' ' has none"),
    (["docs.jsonl", "gone.jsonl"], "gone.jsonl is missing"),
    (["docs.jsonl", "gone.txt"], "gone.txt"),
    (["docs.jsonl", "x", "--language", "klingon"], "language must be None or one of arabic"),
    (["docs.jsonl", "x", "--backend", "faiss"], "backend 'faiss' cannot run"),
    (["docs.npy", "asked.npy", "--sparse"], "--sparse must come with texts, in a folder or a .jsonl file; got"),
    (["docs.npy", "asked.npy", "--vectors", "docs.npy", "asked.npy"], "--vectors must come with texts, in a folder"),
    (["docs.npy", "a dog"], "a dog is missing: vectors of documents need a .npy file of vectors of queries"),
    (["more", "x"], "more must hold documents: a line of JSON each, or files .txt, .md, .rst; it has none"),
    (["odd", "x"], "odd.txt must be text in UTF-8"),
    (["twice.jsonl", "x"], "twice.jsonl, line 2: the _id 'a' was there before"),
    (["numbers.jsonl", "x"], "numbers.jsonl, line 1: expected a JSON object with the strings '_id' and 'text'"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), WRONG, ids=lambda value: None)
def test_what_cannot_be_is_one_sentence(
    words: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    Path("more").mkdir()
    Path("odd").mkdir()
    Path("odd/odd.txt").write_bytes(b"\xff")
    Path("twice.jsonl").write_text('{"_id": "a", "text": ""}\n' * 2, encoding="utf-8")
    Path("numbers.jsonl").write_text('{"_id": 7, "text": ""}\n', encoding="utf-8")
    assert run(monkeypatch, *words) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert not printed.out


def test_a_stemmer_or_a_model_that_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert run(monkeypatch, folder / "docs.jsonl", "a dog", "--dense", "--model", folder) == 2
    assert "--model needs the package sentence-transformers" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    assert run(monkeypatch, folder / "docs.jsonl", "a dog") == 2
    assert "pip install 'pyengine-search[text]'" in capsys.readouterr().err
    assert run(monkeypatch, folder / "docs.jsonl", "a dog", "--language", "none") == 0


def test_a_question_is_a_text_or_a_file(folder: Path) -> None:
    assert text_search.read_questions("why?") == {"1": "why?"}
    assert text_search.read_questions(str(folder / "asked.txt")) == {"1": "a dog", "3": "boxes of cats"}
    assert text_search.read_questions(str(folder / "asked.jsonl")) == {"q": "Running dogs?"}
