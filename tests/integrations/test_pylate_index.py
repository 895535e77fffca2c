"""The exact index for PyLate's retriever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyengine as pe

torch = pytest.importorskip("torch")
pytest.importorskip("pylate")

from pylate import retrieve  # noqa: E402
from pylate.indexes.base import Base  # noqa: E402

from pyengine.integrations.pylate_index import MaxSim  # noqa: E402

RNG = np.random.default_rng(2)
DOCS = [RNG.standard_normal((length, 16)).astype(np.float32) for length in RNG.integers(1, 20, 40)]
QUERIES = [RNG.standard_normal((length, 16)).astype(np.float32) for length in (3, 7, 1)]
IDS: list[int | str] = [f"document {i}" if i % 3 else i for i in range(40)]


def best(k: int, among: Any = None) -> list[list[dict[str, Any]]]:
    """What an index of `DOCS` must find."""
    among = list(range(40)) if among is None else among
    scores = pe.maxsim(QUERIES, [DOCS[i] for i in among], backend="numpy")
    order = [sorted(zip(-row, among))[:k] for row in scores]
    return [[{"id": IDS[i], "score": float(-score)} for score, i in row] for row in order]


@pytest.fixture
def index(tmp_path: Path) -> MaxSim:
    made = MaxSim(tmp_path, "exact", embedding_size=16)
    assert made.add_documents(IDS[:25], DOCS[:25]) is made
    return made.add_documents(documents_ids=IDS[25:], documents_embeddings=[torch.from_numpy(doc) for doc in DOCS[25:]])


def test_it_is_one_of_pylates(index: MaxSim) -> None:
    assert isinstance(index, Base)
    assert index.is_end_to_end_index
    retriever = retrieve.ColBERT(index=index)
    assert retriever.retrieve(QUERIES, k=5) == best(5)
    assert retriever.retrieve([torch.from_numpy(each) for each in QUERIES], k=40, device="cpu", batch_size=1) == best(
        40
    )
    assert retriever.retrieve(QUERIES, k=3, subset=["document 1", "no such", 6, "document 8", 9]) == best(
        3, [1, 6, 8, 9]
    )


def test_searches(index: MaxSim) -> None:
    assert index(QUERIES, k=1000) == best(40)
    assert index(QUERIES[0], k=2) == best(2)[:1]
    padded = torch.from_numpy(np.stack([QUERIES[1], QUERIES[1]]))
    assert index(padded, k=2) == [best(2)[1]] * 2
    each = [[IDS[3], IDS[4]], [], ["no such", IDS[39]]]
    assert index(QUERIES, 5, subset=each) == [best(5, [3, 4])[0], [], best(5, [39])[2]]
    assert index(QUERIES, 5, subset=[]) == [[], [], []]
    assert index([], 5) == []
    with pytest.raises(ValueError, match="must be finite"):
        index(QUERIES[0] * np.float32(np.nan))


def test_embeddings_come_back(index: MaxSim) -> None:
    got = index.get_documents_embeddings([[IDS[7], IDS[0]], [], [IDS[39]]])
    for group, want in zip(got, ([7, 0], [], [39]), strict=True):
        assert [doc.tolist() for doc in group] == [DOCS[i].tolist() for i in want]
    with pytest.raises(ValueError, match="documents_ids must be in the index; got 'no such'"):
        index.get_documents_embeddings([["no such"]])


def test_removed_and_added_again(index: MaxSim) -> None:
    assert index.remove_documents(IDS[:39]) is index
    assert index(QUERIES, 5) == best(5, [39])
    index.add_documents(np.arange(39)[:1], DOCS[:1])  # IDS[0] is the number 0
    index.add_documents(IDS[1:39], DOCS[1:39])
    assert len(index) == 40
    assert index(QUERIES, 40) == best(40)
    index.remove_documents(IDS)
    assert index(QUERIES, 5) == index(QUERIES, 5, subset=[IDS[0]]) == [[], [], []]


def test_what_is_refused_changes_nothing(index: MaxSim) -> None:
    for ids, docs, message in (
        (["a"], DOCS[:2], "got 1 for 2"),
        (["a", "a"], DOCS[:2], "documents_ids must be new, each once; got 'a'"),
        (["a", IDS[5]], DOCS[:2], "documents_ids must be new, each once; got 'document 5'"),
        (["a", "b"], [DOCS[0], DOCS[1][:, :15]], "must have 16 dimensions"),
        (["a", "b"], [DOCS[0], DOCS[1] * np.float32(np.inf)], "must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            index.add_documents(ids, docs)
    with pytest.raises(ValueError, match="documents_ids must be in the index; got 'no such'"):
        index.remove_documents([IDS[0], "no such"])
    with pytest.raises(TypeError, match="documents_ids must be an integer"):
        index.add_documents([2.5], DOCS[:1])
    assert index(QUERIES, 40) == best(40)


def test_what_was_saved_is_opened(index: MaxSim, tmp_path: Path) -> None:
    index.remove_documents([IDS[2], IDS[3]])
    index.add_documents("text alone", DOCS[2])
    again = MaxSim(tmp_path, "exact", embedding_size=16)
    assert again(QUERIES, 40) == index(QUERIES, 40)
    assert again.add_documents([IDS[3]], [DOCS[3]])(QUERIES, 41)[0] != index(QUERIES, 41)[0]
    assert len(MaxSim(tmp_path, "exact", embedding_size=16)) == 40
    assert len(MaxSim(tmp_path, "another", embedding_size=16)) == 0
    with pytest.raises(ValueError, match="index_folder must hold an index like"):
        MaxSim(tmp_path, "exact", embedding_size=8)
    MaxSim(tmp_path, "exact", override=True, embedding_size=8)
    assert len(MaxSim(tmp_path, "exact", embedding_size=8)) == 0


@pytest.mark.parametrize("change", ["add", "remove"])
def test_what_a_change_that_was_killed_leaves(
    index: MaxSim, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Any) -> None:
        raise KeyboardInterrupt

    before = index(QUERIES, 40)
    monkeypatch.setattr(index.index, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        index.add_documents(["late"], DOCS[:1]) if change == "add" else index.remove_documents(IDS[:30])
    again = MaxSim(tmp_path, "exact", embedding_size=16)
    assert again(QUERIES, 40) == before
    again.add_documents(["other"], DOCS[:1])
    assert MaxSim(tmp_path, "exact", embedding_size=16)(QUERIES, 41) == again(QUERIES, 41)


def test_codes_alone(tmp_path: Path) -> None:
    index = MaxSim(tmp_path, embedding_size=16, codec="residual2").add_documents(IDS, DOCS)
    kept = [doc for each in index.get_documents_embeddings([IDS]) for doc in each]
    assert not np.array_equal(kept[0], DOCS[0])
    found = index(QUERIES, 40)
    scores = pe.maxsim(QUERIES, kept, backend="numpy")
    for row, want in zip(found, scores):
        assert {each["id"]: each["score"] for each in row} == dict(zip(IDS, want.tolist()))
