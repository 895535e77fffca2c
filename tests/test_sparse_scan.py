"""The C++ side of sparse rows: what a scan leaves out stays below the bound that it states, and postings are small."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyengine as pe
from pyengine import conformance
from pyengine.inputs.sparse_rows import SparseRows
from pyengine.problems.problem_sparse import SparseDocuments, TermRows
from pyengine.refining import exact_sparse
from pyengine.specification import reference
from pyengine.specification import reference_sparse as spec
from pyengine.types import Bool, Candidates
from tests.conftest import ISAS, using_isa

NATIVE: Any = exact_sparse.native()
pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.skipif(NATIVE is None, reason="not built")]
WINDOW = 1 << 14
RARE, LIST, COLUMN = range(3)
WEIGHTS = ["impacts", "normal", "binary", "negative", "crests", "huge", "tiny", "magnitudes"]


def weights(kind: str, rng: np.random.Generator, count: int) -> Any:
    impacts = rng.gamma(2.0, 0.5, count) + 0.01
    most = float(np.finfo(np.float32).max)
    return {
        "normal": rng.standard_normal(count),
        "binary": np.ones(count),
        "negative": -impacts,
        "crests": np.where(rng.random(count) < 0.003, np.minimum(10.0 ** rng.uniform(1, 38.6, count), most), impacts),
        "huge": rng.choice([-1, 1], count) * rng.uniform(1e37, 3.4e38, count),
        "tiny": 1.4e-45 * rng.integers(1, 3000, count),
        "magnitudes": rng.standard_normal(count) * 10.0 ** rng.uniform(-44, 37, count),
    }.get(kind, impacts)


def drawn(rng: np.random.Generator, n: int, shares: list[float], kind: str, n_terms: int) -> SparseRows:
    """n rows, of which so large a share has each of the first terms; each of these terms has one row at least."""
    has = rng.random((n, len(shares))) < np.array(shares)
    has[rng.integers(0, n, len(shares)), np.arange(len(shares))] = True
    rows, terms = np.nonzero(has)
    names = np.linspace(0, n_terms - 1, len(shares)).astype(np.int64)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))])
    values = np.asarray(weights(kind, rng, len(terms)), np.float32)
    return SparseRows(indptr, names[terms], np.where(values == 0, np.float32(1e-45), values), n_terms)


# Per term: in nearly all rows, in half, in a tenth, in some, in a few.
SHARES = [0.95, 0.5, 0.34, 0.1, 0.1, 0.02, 0.02, 0.003, 0.003, 0.0, 0.0]


@pytest.mark.parametrize("size", [1e-42, 1e-40, 1e-36, 1.0, 1e30, 3.4e38])
@pytest.mark.parametrize("sign", [1, -1])
def test_levels_are_the_nearest(size: float, sign: int) -> None:
    values = np.float32(size) * np.linspace(0.01, 1, 3000, dtype=np.float32)
    rows = SparseRows(np.arange(3001), np.zeros(3000, np.int64), sign * values, 1)
    own = exact_sparse.build(TermRows.of(rows), 0, 3000).arrays
    assert (own["residual"] <= 0.51 * own["scale"] + np.float32(3e-45)).all()
    assert (own["scale"] <= size / 127 + np.float32(3e-45)).all()


def test_all_kinds_of_postings_occur() -> None:
    rng = np.random.default_rng(3)
    postings = exact_sparse.build(TermRows.of(drawn(rng, WINDOW + 1, SHARES, "crests", 40)), 0, WINDOW + 1)
    own = postings.arrays
    assert set(own["kinds"].tolist()) == {RARE, LIST, COLUMN}
    twice = own["terms"][1:][np.diff(own["terms"]) == 0]
    assert len(twice)  # crests
    assert exact_sparse.build(TermRows.of(drawn(rng, 300, SHARES, "impacts", 40)), 0, 300).arrays["columns"].size == 0


def proposed(queries: SparseRows, docs: SparseDocuments, k: int, width: int = 4096, **options: Any) -> Candidates:
    asked = exact_sparse.native_rows(TermRows.of(queries))
    arguments = {"num_threads": 1} | options
    found = NATIVE.sparse_propose(
        asked, exact_sparse.native_rows(docs.rows), exact_sparse.native_postings(docs), k, width, **arguments
    )
    return Candidates(*found)


def check(queries: SparseRows, docs: SparseDocuments, k: int, may: Bool, **options: Any) -> None:
    """What is left out scores ``dropped`` at most, both rounded; unless that was only presumed, k listed ones (or all
    that may score above 0) come before it; and no row is listed twice, or though it may not be."""
    found = proposed(queries, docs, k, **options)
    scores = spec.scores(queries, docs.rows.decoded(), options.get("bias"))
    dropped = reference.round_score(found.dropped)
    for q in range(len(queries)):
        rows = found.rows[slice(*found.offsets[q : q + 2])]
        assert len(np.unique(rows)) == len(rows)
        left = may.copy()
        assert left[rows].all()
        left[rows] = False
        if left.any():
            assert scores[q][left].max() <= dropped[q]
        if options.get("sure", True) and dropped[q] > 0 and "floor" not in options:
            assert np.sort(scores[q][rows])[::-1][k - 1] >= dropped[q]


@given(
    st.integers(0, 2**32), st.sampled_from(WEIGHTS), st.sampled_from(WEIGHTS),
    st.sampled_from([3, 300, 4000, WINDOW - 1, WINDOW, WINDOW + 1]), st.sampled_from([1, 10, 500]),
    st.sampled_from([40, 70_000, 2**31 - 1]), st.sampled_from(ISAS),
)  # fmt: skip
def test_what_is_left_out_stays_below_its_bound(
    seed: int, kind: str, query_kind: str, n: int, k: int, n_terms: int, isa: str
) -> None:
    rng = np.random.default_rng(seed)
    rows = drawn(rng, n, SHARES, kind, n_terms)
    names = np.unique(rows.indices)
    lengths = rng.integers(0, len(names) + 1, 4)
    terms = np.concatenate([np.sort(rng.choice(names, length, replace=False)) for length in lengths])
    values = np.asarray(weights(query_kind, rng, len(terms)), np.float32)
    queries = SparseRows(np.cumsum([0, *lengths]), terms, values, n_terms)
    whole = TermRows.of(rows)
    cuts = np.unique([0, *rng.integers(0, n, 2), n - n // 9])  # and the last ones in no postings
    postings = tuple(exact_sparse.build(whole, a, b) for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist()))
    docs, may = SparseDocuments(whole, postings, cache={}), np.ones(n, bool)
    options: dict[str, Any] = {"num_threads": int(rng.integers(1, 4)), "sure": bool(rng.random() < 0.7)}
    if rng.random() < 0.3:
        may = rng.random(n) < rng.choice([1 / n, 0.1, 0.7])
        options["mask"] = np.packbits(may, bitorder="little")[None]
    if rng.random() < 0.3:
        options["bias"] = rng.standard_normal(n) * 10.0 ** rng.integers(-40, 40)
    elif rng.random() < 0.2:
        options["floor"] = np.abs(spec.unrounded_scores(queries, rows)).max(axis=1, initial=0) / 2
    with using_isa(isa):
        check(queries, docs, k, may, **options)


def bordering(n: int) -> SparseRows:
    """Rows of a few terms: one in all rows, one in every 40th, and one in the rows where windows begin and end."""
    rows = np.arange(n)
    starts = np.arange(0, n, WINDOW)
    ends = np.unique([*starts, *(starts[1:] - 1), n - 1])
    owner = np.concatenate([rows, rows[::40], ends])
    terms = np.repeat([0, 1, 2], [n, len(rows[::40]), len(ends)])
    values = 1 + owner % 61 / 64  # many ties
    order = np.argsort(owner, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(owner))])
    return SparseRows(indptr, terms[order], values[order], 3)


@pytest.mark.parametrize("n", [65_535, 65_536, 65_537])
@pytest.mark.usefixtures("isa")
def test_where_numbers_of_sixteen_bits_end(n: int) -> None:
    rows = bordering(n)
    queries = SparseRows([0, 3, 4, 5, 6, 8], [0, 1, 2, 2, 1, 0, 1, 2], [1, 1, 1, 1, 1, -1, -1, 2], 3)
    index = pe.SparseIndex(3)
    index.add(rows)
    (postings,) = index._contents.store.postings
    assert (postings.count, postings.arrays["kinds"].tolist()) == (n, [COLUMN, LIST, RARE])
    held, without_ties = SparseDocuments(TermRows.of(rows), (postings,), cache={}), queries.part(slice(4))
    check(without_ties, held, 10, np.ones(n, bool))  # of the last one more tie, at 0, than a scan keeps
    for k in (1, 10, 1000):
        want = spec.topk(queries, rows, k)
        conformance.same(index.search(queries, k), want, "an index")
        conformance.same(pe.sparse_topk(queries, rows, k, backend="cpu"), want, "sparse_topk")


def spanning(n: int, n_terms: int) -> tuple[SparseRows, SparseRows]:
    """A query of all terms, and n documents: 40 of them have all terms, too, the last of which is the best."""
    rng, best = np.random.default_rng(4), np.arange(n - 40, n)
    lengths = np.full(n, 3)
    lengths[best] = n_terms
    terms = np.concatenate([np.sort(rng.choice(n_terms, length, replace=False)) for length in lengths.tolist()])
    values = np.repeat(np.linspace(0.5, 1.0, n), lengths)
    docs = SparseRows(np.concatenate([[0], np.cumsum(lengths)]), terms, values, n_terms)
    return SparseRows([0, n_terms], np.arange(n_terms), np.ones(n_terms), n_terms), docs


@pytest.mark.parametrize("n_terms", [8_000, 8_400, 40_000])
def test_sums_of_many_terms_do_not_overflow(n_terms: int) -> None:
    queries, docs = spanning(400, n_terms)
    inverted = exact_sparse.build(TermRows.of(docs), 0, 400)
    held = SparseDocuments(TermRows.of(docs), (inverted,), cache={})
    check(queries, held, 3, np.ones(400, bool))
    index = pe.SparseIndex(n_terms)
    index.add(docs)
    conformance.same(index.search(queries, 3), spec.topk(queries, docs, 3), "an index")


WIDE = """
import resource, numpy as np, pyengine as pe
terms = np.arange(6000) * 350_000
rows = pe.SparseRows(np.arange(6001), terms, np.ones(6000), 2**31 - 1)
query = pe.SparseRows([0, 6000], terms, np.arange(6000.0), 2**31 - 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
index = pe.SparseIndex(2**31 - 1)
index.add(rows)
assert index.search(query, 3).ids.tolist() == [[5999, 5998, 5997]]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource usage")
def test_memory_does_not_grow_with_how_far_terms_are_apart() -> None:
    done = subprocess.run([sys.executable, "-c", WIDE], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200 * 1024  # kB, on Linux


def test_rows_that_share_all_terms_take_no_more_than_lists_of_them() -> None:
    rows = SparseRows(np.arange(4) * 2000, np.tile(np.arange(2000), 3), np.ones(6000), 2000)
    arrays = exact_sparse.build(TermRows.of(rows), 0, 3).arrays
    assert sum(each.nbytes for each in arrays.values()) < 40 * rows.nnz
