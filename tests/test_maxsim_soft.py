"""The reductions that are no maxima: against formulas in higher precision, at their limits, and in every function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pyengine as pe
from pyengine import conformance
from pyengine.backends import registry
from pyengine.backends.registry import FAMILIES
from pyengine.inputs.ragged import Ragged
from pyengine.refining import exact
from pyengine.specification import reference_maxsim as spec
from pyengine.specification import reference_softmax
from pyengine.types import F32, F64
from tests.engines import SLOW

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("poison")]
TEMPERATURES = (1e-4, 0.05, 1.0, 1e4)
SIZES = {"unit": 1.0, "huge": 1e38, "tiny": 1e-38, "subnormal": 3e-44}
both_norms = pytest.mark.parametrize("normalize", [False, True])
Long = Any  # arrays of np.longdouble


@pytest.fixture(params=["auto", *(name for name in FAMILIES["maxsim"] if name not in SLOW)])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that has MaxSim, and can run here."""
    name = str(request.param)
    missing = None if name == "auto" else registry.of_family(name, "maxsim").missing()
    if missing:
        pytest.skip(missing)
    return name


def some(seed: int, lengths: list[int], dim: int = 20, size: float = 1.0) -> Ragged:
    values = np.random.default_rng(seed).uniform(-1, 1, (sum(lengths), dim)) * size
    return Ragged(values.astype(np.float32), np.cumsum([0, *lengths]))


def with_ties(docs: Ragged) -> Ragged:
    """Some tokens again, and zeros."""
    values = docs.values.copy()
    values[1::5], values[2::7] = values[0], 0
    return Ragged(values, docs.offsets)


QUERIES, ONE, FIVE = some(0, [4, 0, 1, 40]), some(1, [1, 0, 1]), some(2, [5, 0, 5])
DOCS, FIVES = with_ties(some(3, [3, 20, 0, 1, 7, 150, 8, 33])), some(4, [5, 5, 0, 5])
W: F32 = np.random.default_rng(5).standard_normal(10).astype(np.float32)
SCORINGS: dict[str, tuple[Ragged, Ragged, dict[str, Any]]] = {
    "softmax": (QUERIES, DOCS, {"reduce": "softmax", "temperature": 0.3}),
    "softmax_cosine": (QUERIES, DOCS, {"reduce": "softmax", "temperature": 0.02, "normalize": True}),
    "pooled": (ONE, DOCS, {"reduce": "pooled", "temperature": 0.1}),
    "pooled_cosine": (ONE, DOCS, {"reduce": "pooled", "temperature": 2, "normalize": True}),
    "aligned": (FIVE, FIVES, {"reduce": "aligned"}),
    "weighted": (FIVE, FIVES, {"reduce": "aligned", "query_weights": W, "normalize": True}),
}
scorings = pytest.mark.parametrize("scoring", SCORINGS)


def bits(scores: Any) -> np.ndarray:
    array = np.asarray(scores)
    assert array.dtype == np.float32
    return array.view(np.int32)


def test_exp() -> None:
    x: F64 = np.concatenate([-np.geomspace(1e-300, 199, 20000), [0.0, -0.0], -np.log(2) * np.arange(0, 280, 0.5)])
    x = x[x >= reference_softmax.LEAST]
    want = np.exp(x.astype(np.longdouble))
    assert (np.abs(reference_softmax.exp(x) - want) <= 2.0**-50 * want).all()
    assert reference_softmax.exp(np.array([0.0, -0.0])).tolist() == [1, 1]
    assert reference_softmax.exp(np.array([-201, -1e300, -np.inf])).tolist() == [0, 0, 0]


def formula(products: F64, query: F32, doc: F32, temperature: float, reduce: str, normalize: bool) -> tuple[Long, Long]:
    """The score in extended precision, of the specification's products, where no power is below e^-200; and the size of
    what may cancel in it."""
    s, t = products.astype(np.longdouble), np.longdouble(temperature)
    x = (s - s.max(axis=1, keepdims=True)) / t
    share = np.where(x < reference_softmax.LEAST, 0, np.exp(x))
    share /= share.sum(axis=1, keepdims=True)
    if reduce == "softmax":
        return (share * s).sum(axis=1).mean(), np.abs(s).max()
    q, d = query[0].astype(np.longdouble), doc.astype(np.longdouble)
    norms = np.sqrt((d * d).sum(axis=1, keepdims=True))
    if normalize:
        d, norms = np.divide(d, norms, out=np.zeros_like(d), where=norms > 0), norms > 0
    pool = share[0] @ d
    length = np.sqrt((pool * pool).sum())
    scale = np.sqrt((q * q).sum()) * length
    return (q @ pool / scale, (share[0] @ norms)[0] / length) if scale > 0 else (np.longdouble(0), np.longdouble(0))


@both_norms
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("reduce", ["softmax", "pooled"])
def test_within_a_millionth_of_the_formula(reduce: str, temperature: float, size: str, normalize: bool) -> None:
    queries = some(6, [1] * 4 if reduce == "pooled" else [1, 3, 17, 2], 33, SIZES[size])
    docs = with_ties(some(7, [1, 2, 9, 100, 5, 64, 65], 33, SIZES[size]))
    found = spec.unrounded_scores(queries, docs, reduce=reduce, temperature=temperature, normalize=normalize)
    for q, query in enumerate(queries):
        for d, doc in enumerate(docs):
            products = spec.similarities(query, doc, normalize)
            want, scale = formula(products, query, doc, temperature, reduce, normalize)
            assert abs(found[q, d] - want) <= 1e-6 * abs(want) + 1e-12 * scale


def test_softmax_lies_between_its_limits() -> None:
    """max as t -> 0 (to the bit), mean as t -> infinity; between, it is never above the maxima, rounding included."""
    options: dict[str, Any] = {"normalize": True}
    top = spec.unrounded_scores(QUERIES, DOCS, reduce="mean", **options)
    found = {
        t: spec.unrounded_scores(QUERIES, DOCS, reduce="softmax", temperature=t, **options)
        for t in (1e-300, 1e-9, 1e-3, 0.01, 0.1, 1, 10, 1e9, 1e300)
    }
    np.testing.assert_array_equal(found[1e-300], top)
    middle = [
        [spec.similarities(q, d, normalize=True).mean() if len(q) and len(d) else None for d in DOCS] for q in QUERIES
    ]
    filled = np.array([[each is not None for each in row] for row in middle])
    np.testing.assert_allclose(found[1e300][filled], np.array(middle, float)[filled], atol=1e-14)
    np.testing.assert_allclose(found[1e9][filled], np.array(middle, float)[filled], atol=1e-8)
    for (_, above), (_, below) in zip(list(found.items()), list(found.items())[1:]):
        assert (below <= top).all()
        assert (below[filled] <= above[filled] + 1e-14).all()


def test_pooled_limits() -> None:
    """The best frame as t -> 0, the mean frame as t -> infinity."""
    docs = some(8, [9, 40])
    for q, query in enumerate(ONE):
        for d, doc in enumerate(docs):
            if not len(query):
                continue
            best = doc[np.argmax(spec.similarities(query, doc)[0])]
            for temperature, pool in ((1e-300, best), (1e300, doc.astype(np.float64).mean(axis=0))):
                found = spec.unrounded_scores(ONE, docs, reduce="pooled", temperature=temperature)[q, d]
                want = query[0].astype(np.float64) @ pool / np.linalg.norm(query[0]) / np.linalg.norm(pool)
                assert abs(found - want) < 1e-6


def test_aligned_is_the_sum_of_the_cosines_of_equal_places() -> None:
    query, doc, weights = FIVE[2], FIVES[1], W[5:]
    cosines = spec.similarities(query, doc, normalize=True).diagonal()
    total = 0.0
    for weight, cosine in zip(weights.astype(np.float64), cosines):
        total += weight * cosine
    assert spec.unrounded_scores(FIVE, FIVES, reduce="aligned", query_weights=W)[2, 1] == total


def test_the_same_numbers_as_in_training() -> None:
    torch = pytest.importorskip("torch")
    import pyengine.torch as pt

    queries, docs = (np.stack([some(seed, [length])[0] for seed in range(3)]) for length in (6, 11))
    for temperature in (0.01, 1.0, 100.0):
        for normalize in (False, True):
            options: dict[str, Any] = {"reduce": "softmax", "temperature": temperature, "normalize": normalize}
            trained = pt.maxsim(torch.from_numpy(queries), torch.from_numpy(docs), **options)
            np.testing.assert_allclose(pe.maxsim(queries, docs, **options), trained.numpy(), rtol=1e-5, atol=1e-6)


@scorings
def test_matrix_pairs_and_lists(scoring: str, backend: str) -> None:
    queries, docs, options = SCORINGS[scoring]
    rng = np.random.default_rng(9)
    options = {**options, "bias": rng.standard_normal(len(docs))}
    want = spec.scores(queries, docs, **options)
    options["backend"] = backend
    np.testing.assert_array_equal(bits(pe.maxsim(queries, docs, **options)), bits(want))
    pairs = np.stack([rng.integers(0, len(each), 50) for each in (queries, docs)], axis=1)
    np.testing.assert_array_equal(bits(pe.maxsim_pairs(queries, docs, pairs, **options)), bits(want[tuple(pairs.T)]))
    lists = [rng.integers(0, len(docs), 5) for _ in queries]
    for row, own, scores in zip(want, lists, pe.maxsim_candidates(queries, docs, lists, **options)):
        np.testing.assert_array_equal(bits(scores), bits(row[own]))


@scorings
@pytest.mark.parametrize("k", [1, 3, 20])
def test_topk(scoring: str, backend: str, k: int) -> None:
    queries, docs, options = SCORINGS[scoring]
    mask = np.random.default_rng(10).random((len(queries), len(docs))) < 0.7
    for given in (options, {**options, "mask": mask}):
        want = spec.topk(queries, docs, k, **given)
        conformance.same(pe.maxsim_topk(queries, docs, k, backend=backend, **given), want, scoring)
    lists = [np.flatnonzero(own) for own in mask]
    want = spec.topk(queries, docs, k, mask=mask, **options)
    conformance.same(pe.maxsim_topk(queries, docs, k, candidates=lists, backend=backend, **options), want, "rerank")


@pytest.mark.parametrize("temperature", [1e-4, 0.03, 1.0, 1e4])
@both_norms
def test_softmax_of_many_documents(temperature: float, normalize: bool, backend: str) -> None:
    """The scan of "mean" bounds it: whatever the temperature, the certificate holds."""
    rng = np.random.default_rng(11)
    docs = some(12, rng.integers(0, 9, 700).tolist(), 16)
    queries = some(13, [3, 0, 8], 16)
    options: dict[str, Any] = {"reduce": "softmax", "temperature": temperature, "normalize": normalize}
    want = spec.topk(queries, docs, 7, **options)
    conformance.same(pe.maxsim_topk(queries, docs, 7, backend=backend, **options), want, "exact")
    fast = pe.maxsim_topk(queries, docs, 7, backend=backend, precision="fast", **options)
    assert not fast.certified.any()
    np.testing.assert_array_equal(
        bits(fast.scores), bits(np.take_along_axis(spec.scores(queries, docs, **options), fast.ids, 1))
    )


@pytest.mark.skipif(exact.native() is None, reason="needs the extension")
@pytest.mark.parametrize("dim", [1, 7, 8, 17, 128])
@both_norms
def test_every_instruction_set_has_the_same_bits(isa: str, dim: int, normalize: bool) -> None:
    docs = with_ties(some(14, [1, 2, 0, 7, 8, 9, 63, 64, 65, 150], dim))
    for size in SIZES.values():
        docs = Ragged(docs.values * np.float32(size), docs.offsets)
        for temperature in TEMPERATURES:
            for queries, reduce in (
                (some(15, [1, 3, 16, 17, 0, 40], dim), "softmax"),
                (some(16, [1, 0, 1], dim), "pooled"),
            ):
                options: dict[str, Any] = {"reduce": reduce, "temperature": temperature, "normalize": normalize}
                found = pe.maxsim(queries, docs, backend="cpu", **options)
                np.testing.assert_array_equal(bits(found), bits(spec.scores(queries, docs, **options)))


@pytest.mark.parametrize("codec", ["int8", "bfloat16", "residual4"])
def test_index(codec: str) -> None:
    """What was removed takes part in nothing, though it has another number of tokens."""
    index = pe.MultiVectorIndex(20, codec=codec, originals=None if codec == "residual4" else "ram")
    index.add([*FIVES, some(17, [3])[0]], ids=[5, 6, 7, 8, 9])
    with pytest.raises(ValueError, match="row 4 of docs has 3"):
        index.search(FIVE, 2, reduce="aligned")
    index.remove([9])
    docs = index.tokens([5, 6, 7, 8])
    scored: list[tuple[Ragged, dict[str, Any]]] = [
        (QUERIES, {"reduce": "softmax", "temperature": 0.1}),
        (ONE, {"reduce": "pooled", "temperature": 0.1}),
        (FIVE, {"reduce": "aligned", "query_weights": W}),
    ]
    for queries, options in scored:
        want = spec.topk(queries, docs, 3, ids=np.arange(5, 9), **options)
        conformance.same(index.search(queries, 3, **options), want, codec)
        ranked = index.rerank(queries, [[8, 5, 6, 7]] * len(queries), 3, **options)
        conformance.same(ranked, want, codec)
        assert options["reduce"] in str(index.explain(queries, 3, **options))


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"reduce": "softmax"}, TypeError, "temperature must be a number above 0 with reduce='softmax'; got None"),
    ({"reduce": "softmax", "temperature": "1"}, TypeError, "temperature must be a number above 0"),
    ({"reduce": "softmax", "temperature": True}, TypeError, "temperature must be a number above 0"),
    ({"reduce": "softmax", "temperature": 0}, ValueError, "temperature must be finite and above 0; got 0"),
    ({"reduce": "softmax", "temperature": -1.0}, ValueError, "temperature must be finite and above 0; got -1.0"),
    ({"reduce": "softmax", "temperature": np.nan}, ValueError, "temperature must be finite and above 0; got nan"),
    ({"reduce": "softmax", "temperature": np.inf}, ValueError, "temperature must be finite and above 0; got inf"),
    ({"reduce": "softmax", "temperature": 10**400}, ValueError, "temperature must be finite and above 0"),
    ({"temperature": 1.0}, ValueError, "temperature must come with reduce='softmax' or 'pooled'; got reduce='sum'"),
    ({"reduce": "aligned", "temperature": 1.0}, ValueError, "temperature must come with"),
    ({"reduce": "pooled", "temperature": 1.0}, ValueError, "queries must have one token each .*; query 0 has 4"),
    (
        {"reduce": "softmax", "temperature": 1.0, "query_weights": [1.0] * 45},
        ValueError,
        "query_weights must come with",
    ),
    ({"reduce": "pooled", "temperature": 1.0, "doc_weights": W}, ValueError, "doc_weights must come with"),
    ({"reduce": "aligned"}, ValueError, "one number of tokens .*, and the first has 4; row 2 of queries has 1"),
    ({"reduce": "aligned", "queries": FIVE}, ValueError, "and the first has 5; row 0 of docs has 3"),
]


@pytest.mark.parametrize(("given", "error", "message"), WRONG)
def test_bad_input(given: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"queries": QUERIES, "docs": DOCS, **given}
    queries, docs = arguments.pop("queries"), arguments.pop("docs")
    for call in (pe.maxsim, pe.maxsim_topk):
        with pytest.raises(error, match=message):
            call(queries, docs, **arguments)


def test_empty_sets() -> None:
    for queries, docs, options in SCORINGS.values():
        found = pe.maxsim(queries, docs, **options)
        assert (found[queries.lengths == 0] == 0).all()
        assert np.isneginf(found[queries.lengths > 0][:, docs.lengths == 0]).all()
        assert pe.maxsim(queries, [], **{**options}).shape == (len(queries), 0)
