"""`MultiVectorIndex` against a dict of documents and the MaxSim specification: its codecs, its life."""

from __future__ import annotations

import pickle
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pyengine as pe
from pyengine import MultiVectorIndex, Ragged, conformance
from pyengine.indexes import stores
from pyengine.indexes.codecs import RESIDUALS
from pyengine.refining import exact
from pyengine.specification import reference_maxsim as spec
from pyengine.types import F32, I64
from tests.engines import SLOW
from tests.multi_vector_cases import DOCS, LENGTHS, QUERIES, D, holds, made

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("poison"),
    pytest.mark.skipif(exact.native() is None, reason="the extension is not built"),
]


CODECS: list[tuple[str, str | None]] = [(name, "ram") for name in stores.PLAIN]
CODECS += [(name, where) for name in ("int8", "binary", *RESIDUALS) for where in stores.ORIGINALS]
KINDS = [("float32", "ram"), ("int8", "ram"), ("int8", "disk")]
codecs = pytest.mark.parametrize(("codec", "originals"), CODECS)


@codecs
@pytest.mark.parametrize("normalize", [False, True])
def test_every_codec_is_exact_over_what_it_keeps(codec: str, originals: str | None, normalize: bool) -> None:
    index = made(codec, originals, normalize)
    kept = index.tokens(index.ids)
    assert kept.lengths.tolist() == LENGTHS
    if codec in stores.PLAIN or originals is not None:  # small integers are exact in every float
        assert all(np.array_equal(*each) for each in zip(kept, DOCS))
    for reduce in spec.MAXIMA:
        holds(index, range(40), reduce=reduce)
    holds(index, range(40), k=100, bias=np.linspace(-1, 1, 40), query_weights=np.array([1, -2, 0.5, 0], np.float32))


@pytest.mark.parametrize("kind", ["ragged", "list", "padded", "iterator"])
def test_documents_come_in_any_form(kind: str) -> None:
    equal = [np.tile(doc[:1], (3, 1)) if len(doc) else np.zeros((3, D), np.float32) for doc in DOCS]
    forms: dict[str, Any] = {
        "ragged": Ragged.of(equal),
        "list": [doc.tolist() for doc in equal],
        "padded": np.stack(equal).astype(np.float64),
        "iterator": iter([equal[:1], Ragged.of(equal[1:30]), np.stack(equal[30:])]),
    }
    index = MultiVectorIndex(D)
    index.add(forms[kind])
    assert all(np.array_equal(*each) for each in zip(index.tokens(index.ids), equal, strict=True))


def test_a_long_list_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyengine.indexes.chunks.BLOCK_BYTES", 4 * D * 10)
    for docs in (DOCS, Ragged.of(DOCS)):
        index = MultiVectorIndex(D, "float32")
        index.add(docs, ids=np.arange(40)[::-1])
        holds(index, range(39, -1, -1))


class Life(RuleBasedStateMachine):
    """Anything that can be done to an index, beside a list of the ids that it must hold."""

    @initialize(kind=st.sampled_from([*KINDS, ("residual2", None), ("residual1", "disk")]))
    def begin(self, kind: tuple[str, str | None]) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.index = MultiVectorIndex(D, *kind)
        self.ids: list[int] = []
        self.next = 0

    def teardown(self) -> None:
        shutil.rmtree(getattr(self, "folder", ""), ignore_errors=True)

    @rule(count=st.integers(0, 12))
    def add(self, count: int) -> None:
        new = list(range(self.next, self.next + count))
        self.index.add([DOCS[each % 40] for each in new])
        self.ids, self.next = self.ids + new, self.next + count

    @rule(share=st.floats(0, 1), seed=st.integers(0, 9))
    def remove(self, share: float, seed: int) -> None:
        gone = [each for each in self.ids if np.random.default_rng((seed, each)).random() < share]
        self.index.remove(np.array(gone, np.int64))
        self.ids = [each for each in self.ids if each not in set(gone)]

    @precondition(lambda self: self.ids)
    @rule(seed=st.integers(0, 9))
    def replace(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        some = rng.choice(self.ids, rng.integers(1, len(self.ids) + 1), replace=False)
        docs = [DOCS[rng.integers(40)] for _ in some]
        self.index.replace(docs, some)
        self.ids = [each for each in self.ids if each not in set(some.tolist())] + some.tolist()
        assert all(np.array_equal(*each) for each in zip(self.index.tokens(some), docs)) or self.index.originals is None

    @rule()
    def a_failed_add_changes_nothing(self) -> None:
        with pytest.raises(ValueError, match=r"docs must be finite in float32; token 1 of row 1 holds"):
            self.index.add([DOCS[1], np.full((2, D), [[1], [np.nan]])])

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule(mmap=st.booleans())
    def save_and_load(self, mmap: bool) -> None:
        self.index.save(self.folder / "index")
        self.index = pe.load(self.folder / "index", mmap=mmap)

    @rule()
    def copy(self) -> None:
        self.index = pickle.loads(pickle.dumps(self.index))

    @precondition(lambda self: self.ids)
    @rule(seed=st.integers(0, 9))
    def filter(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        some: I64 = rng.choice(self.ids, 1 + len(self.ids) // 2, replace=False)
        holds(self.index, self.ids, allow=some, deny=some[:1], exclude=[some[:2], [], some])
        holds(self.index, self.ids, mask=rng.random((3, len(self.ids))) < 0.5, groups=rng.integers(0, 4, len(self.ids)))
        page = self.index.search(QUERIES, 2)
        holds(self.index, self.ids, after=(page.scores[:, -1], page.ids[:, -1]), threshold=0.0)

    @invariant()
    def answers(self) -> None:
        if hasattr(self, "index"):
            holds(self.index, self.ids)


TestLife = Life.TestCase


def test_rerank_is_the_search_among_the_candidates() -> None:
    index = made()
    index.remove([4, 6])
    found = index.search(QUERIES, 30)
    lists = [np.unique(row[row >= 0])[::-1] for row in found.ids]
    forms: list[Any] = [found, found.ids, found.ids.tolist(), found.ids.astype(np.int32), lists]
    for candidates in forms:
        again = index.rerank(QUERIES, candidates, 12)
        conformance.same(again, pe.TopK(found.scores[:, :12], found.ids[:, :12], found.certified), "rerank")
    few_ids: list[Any] = [[3, 7, 3], [], [39]]
    few = index.rerank(QUERIES, few_ids, 3)
    want = index.search(QUERIES, 3, mask=np.array([np.isin(index.ids, each) for each in few_ids]))
    conformance.same(few, want, "listed once or twice")
    for unknown in (4, 2**64 - 1):
        one: list[Any] = [np.array([unknown], np.uint64), [], []]
        with pytest.raises(ValueError, match=f"candidates must hold ids of documents; got {unknown}, which is unknown"):
            index.rerank(QUERIES, one)
        assert (index.rerank(QUERIES, one, 1, missing="skip").ids == -1).all()


@pytest.mark.parametrize("normalize", [False, True])
@codecs
def test_scores_are_those_of_the_tokens_that_it_keeps(codec: str, originals: str | None, normalize: bool) -> None:
    index = made(codec, originals, normalize)
    index.remove([0, 4, 6, 39])
    index.add([DOCS[6]], ids=[4])
    docs, rng = index.tokens(index.ids), np.random.default_rng(3)
    bias, weights = rng.standard_normal(37), np.array([1, -2, 0.5, 0], np.float32)
    options: list[dict[str, Any]] = [{"reduce": reduce} for reduce in spec.MAXIMA]
    options += [{"bias": bias, "query_weights": weights}, {"reduce": "softmax", "temperature": 0.5}]
    place = rng.integers(0, [3, 37], (90, 2))
    pairs = np.stack([place[:, 0], index.ids[place[:, 1]]], axis=1)
    for each in options:
        want = spec.scores(QUERIES, docs, normalize=normalize, **each)
        np.testing.assert_array_equal(index.scores(QUERIES, **each), want)
        np.testing.assert_array_equal(index.pairs(QUERIES, pairs, **each), want[place[:, 0], place[:, 1]])
    found = index.scores(QUERIES)
    assert (found.dtype, found.shape) == (np.float32, (3, 37))


@pytest.mark.parametrize(
    "backend", [each.name for each in pe.backends() if each.available and each.name not in {"faiss", *SLOW}]
)
def test_every_backend_gives_the_same_scores(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "EVERYTHING", 50)  # so that pairs are scored in parts
    index = made("int8", None)
    index.remove([3])
    pairs = np.stack([np.tile([2, 0, 1], 39), np.repeat(index.ids, 3)], axis=1)
    want = index.scores(QUERIES)
    np.testing.assert_array_equal(index.scores(QUERIES, backend=backend), want)
    np.testing.assert_array_equal(index.pairs(QUERIES, pairs, backend=backend), want[[2, 0, 1]].T.ravel())


def test_scores_of_nothing() -> None:
    assert MultiVectorIndex(D).scores(QUERIES).shape == (3, 0)
    assert made().scores(QUERIES.part(slice(0))).shape == (0, 40)
    assert made().pairs(QUERIES, []).shape == (0,)


def test_scores_of_tensors_are_tensors() -> None:
    torch = pytest.importorskip("torch")
    queries = [torch.from_numpy(np.array(query)) for query in QUERIES]
    assert torch.equal(made().scores(queries), torch.from_numpy(made().scores(QUERIES)))
    assert torch.is_tensor(made().pairs(queries, torch.tensor([[0, 1]])))


def test_short_names_of_codecs() -> None:
    assert [MultiVectorIndex(D, name).codec for name in ("f32", "bf16")] == ["float32", "bfloat16"]


def test_paging_goes_on_and_on() -> None:
    index = made()
    whole, page, pages = index.search(QUERIES, 40), None, []
    for _ in range(5):
        page = index.search(QUERIES, 8, after=page)
        pages.append(page)
    assert np.array_equal(np.concatenate([each.ids for each in pages], axis=1), whole.ids)


def test_searches_beside_adding_see_whole_calls() -> None:
    index, seen, stop = MultiVectorIndex(D), [], threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.append(int((index.search(QUERIES, 200).ids[2] >= 0).sum()))

    thread = threading.Thread(target=look)
    thread.start()
    one = [doc[:1] for doc in DOCS if len(doc)]
    for _ in range(4):
        index.add(one)
    stop.set()
    thread.join()
    assert {each % len(one) for each in seen} == {0}


def test_an_interrupted_iterator_adds_nothing() -> None:
    def failing() -> Iterator[list[F32]]:
        yield DOCS
        raise KeyboardInterrupt

    index = made()
    with pytest.raises(KeyboardInterrupt):
        index.add(failing())
    holds(index, range(40))
    index.add(DOCS[:2])
    holds(index, range(42))
