"""What `MultiVectorIndex` holds in memory, on disk and in maps; and its files."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import pyengine as pe
from pyengine import MultiVectorIndex, Ragged, conformance
from pyengine.problems import problem_maxsim
from pyengine.refining import exact
from pyengine.specification import reference_maxsim as spec
from tests.multi_vector_cases import DOCS, QUERIES, RNG, D, holds, made

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("poison"),
    pytest.mark.skipif(exact.native() is None, reason="the extension is not built"),
]


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
