"""`MultiVectorIndex` against a dict of documents and the MaxSim specification: its codecs, its life, its files."""

from __future__ import annotations

import pickle
import shutil
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pyengine as pe
from pyengine import MultiVectorIndex, Ragged, conformance
from pyengine.indexes import stores
from pyengine.indexes.codecs import RESIDUALS
from pyengine.problems import problem_maxsim
from pyengine.refining import exact
from pyengine.specification import reference_maxsim as spec
from pyengine.types import F32, I64
from tests.engines import SLOW

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("poison"),
    pytest.mark.skipif(exact.native() is None, reason="the extension is not built"),
]
D = 5
RNG = np.random.default_rng(7)
QUERIES = Ragged.of([RNG.integers(-2, 3, (length, D)) for length in (3, 0, 1)])
LENGTHS = [0, 1, 2, 3, 7, 1, 30, 2, 0, 5] * 4
DOCS: list[F32] = [RNG.integers(-2, 3, (length, D)).astype(np.float32) for length in LENGTHS]
CODECS: list[tuple[str, str | None]] = [(name, "ram") for name in stores.PLAIN]
CODECS += [(name, where) for name in ("int8", "binary", *RESIDUALS) for where in stores.ORIGINALS]
KINDS = [("float32", "ram"), ("int8", "ram"), ("int8", "disk")]
codecs = pytest.mark.parametrize(("codec", "originals"), CODECS)


def holds(index: MultiVectorIndex, ids: Any, k: int = 6, **arguments: Any) -> None:
    """The index answers as the specification does over the tokens that it says it keeps of these ids."""
    assert index.ids.tolist() == list(ids)
    assert len(index) == len(index.ids)
    docs = index.tokens(index.ids)
    want = spec.topk(QUERIES, docs, k, ids=np.asarray(ids, np.int64), normalize=index.normalize, **arguments)
    conformance.same(index.search(QUERIES, k, **arguments), want, f"{index}, {arguments}")


def made(codec: str = "int8", originals: str | None = "ram", normalize: bool = False) -> MultiVectorIndex:
    index = MultiVectorIndex(D, codec, originals, normalize)
    index.add(DOCS)
    return index


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


BAD: list[tuple[Callable[[MultiVectorIndex], Any], str]] = [
    (lambda _: MultiVectorIndex(0), "dim must be a positive integer below 2^31; got 0"),
    (lambda _: MultiVectorIndex(4, "float64"), "codec must be one of .*; got 'float64'"),
    (lambda _: MultiVectorIndex(4, "float32", None), "originals must be 'ram' for store 'float32'"),
    (lambda _: MultiVectorIndex(4, normalize=cast(Any, 1)), "normalize must be True or False; got 1"),
    (lambda index: index.add(DOCS[1]), r"docs must be a pyengine.Ragged, .*; got shape \(1, 5\)"),
    (
        lambda index: index.add([DOCS[1], np.ones((2, 4))]),
        r"docs\[1\] must have 5 dimensions per row; got shape \(2, 4\)",
    ),
    (lambda index: index.add(Ragged.of([np.ones((2, 4))])), "docs must have 5 dimensions per token; got 4"),
    (lambda index: index.add(DOCS[:2], ids=[1]), "ids must have one entry per document, 2; got 1"),
    (lambda index: index.add(DOCS[:2], ids=[50, 7]), "ids must be new; id 7 is in the index already"),
    (lambda index: index.remove([77]), "ids must be in the index; id 77 is not"),
    (lambda index: index.tokens([77]), "ids must be in the index; id 77 is not"),
    (lambda index: index.search(QUERIES.values), r"queries must be a pyengine.Ragged, .*; got shape \(4, 5\)"),
    (
        lambda index: index.search([np.full((1, D), np.inf)]),
        "queries must be finite in float32; token 0 of row 0 holds",
    ),
    (lambda index: index.search(QUERIES, 0), "k must be a positive integer below 2^31; got 0"),
    (lambda index: index.search(QUERIES, reduce="max"), "reduce must be one of .*; got 'max'"),
    (lambda index: index.search(QUERIES, query_weights=[1.0]), r"query_weights must have shape \(4,\), one per token"),
    (lambda index: index.search(QUERIES, rescore=2), "rescore must come with precision='fast'"),
    (
        lambda index: index.pairs(QUERIES, [[0, 1], [1, 77]]),
        r"pairs\[:, 1\] must hold ids of documents; got 77, which is unknown",
    ),
    (lambda index: index.pairs(QUERIES, [[3, 1]]), r"pairs\[:, 0\] must hold numbers of the 3 queries; got 3"),
    (lambda index: index.pairs(QUERIES, [1, 2]), r"pairs must have shape \[P, 2\]; got shape \(2,\)"),
    (lambda index: index.pairs(QUERIES, [[0.0, 1.0]]), "pairs must hold integers; got dtype float64"),
    (lambda index: index.scores(QUERIES, bias=[1.0]), r"bias must have shape \(40,\)"),
    (lambda index: index.rerank(QUERIES, [[1]]), "candidates must have one list per query, 3; got 1"),
    (lambda index: index.rerank(QUERIES, [[1]] * 3, missing="drop"), "missing must be one of 'error', 'skip'"),
    (lambda index: index.search(QUERIES, reduce="symmetric", query_weights=[1.0] * 4), "an index keeps none"),
    (lambda index: index.replace(DOCS[:1], [77]), "ids must be in the index; id 77 is not"),
    (lambda index: index.replace(DOCS[:1], None), "ids must be given; got None"),
    (
        lambda index: index.replace(iter([DOCS[:1]] * 2), iter([[3], [3]])),
        "ids must be replaced once; id 3 comes again",
    ),
    (lambda index: index.search(iter([DOCS[1]])), r"queries must be a pyengine.Ragged, .*; got a list_iterator"),
    (lambda index: index.add("docs"), r"docs must be a pyengine.Ragged, .*; got a str"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_is_one_sentence_and_changes_nothing(call: Callable[[MultiVectorIndex], Any], message: str) -> None:
    index = made()
    with pytest.raises((ValueError, TypeError), match=message.replace("2^31", r"2\^31")):
        call(index)
    holds(index, range(40))


def test_half_a_token_beyond_float16_is_refused() -> None:
    with pytest.raises(
        ValueError, match="docs must stay finite in float16; token 1 of row 1 holds a value beyond its range"
    ):
        MultiVectorIndex(D, "float16").add([DOCS[1], np.array([[0.0] * D, [1e6] * D])])


def test_empty_documents_are_added_to_a_mapped_index(tmp_path: Path) -> None:
    made().save(tmp_path)
    index = pe.load(tmp_path, mmap=True)
    index.add([np.empty((0, D))])  # an offset, and no tokens: the mapped ones are not written
    holds(index, range(41))


LONG = Ragged(RNG.standard_normal((40_000, 64)), np.concatenate([np.arange(0, 40_000, 50), [40_000]]))  # 10 MB
QUERY = RNG.standard_normal((1, 3, 64)).astype(np.float32)
typed = pytest.mark.parametrize(("codec", "originals"), [("float16", "ram"), ("int8", None), ("residual2", None)])


@typed
def test_torch_decodes_a_block_at_a_time(codec: str, originals: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_maxsim = pytest.importorskip("pyengine.backends.torch.torch_maxsim")
    monkeypatch.setattr(torch_maxsim, "DOC_TOKENS", 512)
    index = MultiVectorIndex(64, codec=codec, originals=originals)
    index.add(LONG)
    tracemalloc.start()
    found = index.search(QUERY, 4, precision="exact", backend="torch")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 5 << 20
    conformance.same(found, spec.topk(Ragged.padded(QUERY), index.tokens(index.ids), 4), codec)


@pytest.mark.parametrize("codec", ["int8", "residual2"])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_originals_on_disk_are_streamed_from_a_map_and_never_held(
    codec: str, in_chunks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "tokens.npy", LONG.values)
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    monkeypatch.setattr("pyengine.indexes.arrays.BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr("pyengine.indexes.chunks.BLOCK_BYTES", 1 << 16)
    index = MultiVectorIndex(64, codec, "disk", directory=tmp_path)
    if codec == "residual2":
        index.train(LONG.part(slice(100)))
    docs = Ragged(mapped, LONG.offsets)
    tracemalloc.start()
    index.add((docs.part(slice(i, i + 90)) for i in range(0, len(docs), 90)) if in_chunks else docs)
    index.save(tmp_path / "index")
    found = index.search(QUERY, 4, precision="fast", rescore=10)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    arrays = index._contents.store.heads(len(index))
    held = sum(array.nbytes for name, array in arrays.items() if name != "rows")
    assert (
        most < 2.5 * held + (1 << 19) < LONG.values.nbytes
    )  # arrays in memory are copied as they grow, the rows are not
    want = MultiVectorIndex(64, "float32")
    want.add(LONG)
    for each in (index, pe.load(tmp_path / "index", mmap=True)):
        conformance.same(each.search(QUERY, 4), want.search(QUERY, 4), codec)
    assert codec != "int8" or np.array_equal(found.ids, want.search(QUERY, 4).ids)


@typed
def test_scores_copy_no_tokens(codec: str, originals: str | None) -> None:
    index = MultiVectorIndex(64, codec=codec, originals=originals)
    index.add(LONG)
    pairs = np.stack([np.zeros(len(index), np.int64), index.ids[::-1]], axis=1)
    tracemalloc.start()
    found = index.scores(QUERY), index.pairs(QUERY, pairs)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 18
    np.testing.assert_array_equal(found[0][0, ::-1], found[1])
    np.testing.assert_array_equal(found[0], pe.maxsim(QUERY, index.tokens(index.ids)))


@typed
def test_tokens_are_decoded_in_blocks(codec: str, originals: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem_maxsim, "MANY_VALUES", 1 << 15)
    index = MultiVectorIndex(64, codec=codec, originals=originals)
    index.add(LONG)
    some = RNG.permutation(index.ids)[:700]
    tracemalloc.start()
    found = index.tokens(some)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < found.values.nbytes + (2 << 20)
    assert found.offsets.tolist() == list(range(0, 35_001, 50))
    for row in (0, 1, 350, 699):
        np.testing.assert_array_equal(found[row], index.tokens(some[row : row + 1])[0])
    assert index.tokens([]).values.shape == (0, 64)


@pytest.mark.parametrize("codec", ["float32", "int8"])
def test_torch_takes_what_is_mapped_without_a_warning(tmp_path: Path, codec: str) -> None:
    pytest.importorskip("torch")
    index = MultiVectorIndex(D, codec=codec)
    index.add(DOCS)
    index.save(tmp_path)
    bias = np.arange(len(DOCS), dtype=np.float64)
    bias.flags.writeable = False
    mapped = pe.load(tmp_path, mmap=True)
    for each in (None, bias):
        want = index.search(QUERIES, 2, bias=each)
        conformance.same(mapped.search(QUERIES, 2, bias=each, backend="torch"), want, codec)


OLD = {  # ids and score bits of the answer
    "int8": (
        [[26, 24, 30], [23, 21, 24]],
        [[1074352502, 1073547927, 1073394819], [1067097860, 1064436857, 1063957551]],
    ),
    "residual2": (
        [[26, 23, 28], [23, 24, 21]],
        [[1074380615, 1073238173, 1073104532], [1066924354, 1063119538, 1062027880]],
    ),
}


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("codec", OLD)
def test_old_files_keep_loading(codec: str, mmap: bool) -> None:
    rng = np.random.default_rng(11)
    for n in (3, 0, 5, 1, 7, 2, 4, 6, 1, 3):  # the documents
        rng.standard_normal((n, 8))
    queries = Ragged.of([rng.standard_normal((n, 8)) for n in (4, 2)])
    index = pe.load(Path(__file__).parent / "fixtures" / f"multi_vector_v1_{codec}", mmap, verify=True)
    assert index.ids.tolist() == [30, 29, 28, 26, 25, 24, 23, 22, 21]
    found = index.search(queries, 3)
    assert (found.ids.tolist(), found.scores.view(np.int32).tolist()) == OLD[codec]
    index.add([np.ones((2, 8))])
    assert index.ids[-1] == 31
