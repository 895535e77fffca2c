"""The dense scan's form for Hopper in the emulator: the same answers to the bit, by copies that arrive as late as they
may and products that are taken when they are awaited; and what the emulator says of mistakes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from pyengine import conformance
from pyengine.backends import registry
from pyengine.conformance import Case
from pyengine.indexes import stores
from pyengine.kernels import dense_sm90_plan
from pyengine.problems.problem import Documents
from pyengine.searches import dense
from tests import cuda_driver, dense_cases
from tests.cuda_driver import FakeDriver
from tests.dense_cases import CASES, rows

check = partial(dense_cases.check, name="cuda")
FAULTS = {
    "none": "",
    "no wait": "a product of what is on its way",
    "no expectation": "a product of what is on its way",
    "no fence": "products without wgmma.fence",
    "no release": "more arrivals at a barrier than it waits for",
    "early release": "a copy over what is being multiplied",
    "unawaited": "a copy over what is being multiplied",
    "too many arrivals": "threads wait forever for a barrier",
    "too few arrivals": "threads wait forever for a barrier",
    "misaligned": "a matrix that begins within a swizzled group",
    "unpublished": "a copy that may not know its barrier",
    "unread": "a copy that nobody has read",
    "lone warp": "a copy over what is being multiplied",
}


@pytest.fixture
def hopper(emulated: FakeDriver, poison: None) -> Iterator[FakeDriver]:
    """A driver of a GPU of compute capability 9.0, on which the form for it is asked for."""
    with dense_sm90_plan.forced("sm_90"):
        yield emulated


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("names", CASES, ids="-".join)
def test_conformance(names: tuple[str, str, str, str]) -> None:
    check(Case(*names).problem())


@pytest.mark.parametrize(
    ("n_queries", "dim", "kind"),
    [(1, 24, "float32"), (17, 300, "float32"), (65, 130, "float32"), (65, 40, "float16"), (3, 90, "bfloat16"),
     (20, 70, "float16")],
)  # fmt: skip
@pytest.mark.parametrize("masked", [False, True])
def test_tiles(
    n_queries: int, dim: int, kind: str, masked: bool, hopper: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both warpgroups, over several tiles each, several steps of a row and rounds of a short ring; where few are
    allowed, whole tiles are passed over."""
    monkeypatch.setattr(dense_sm90_plan, "_groups", lambda *given: 1)
    monkeypatch.setattr(dense_sm90_plan, "MOST_STAGES", 2)
    rng, mask, docs = np.random.default_rng(4), None, rows(3, 900, dim)
    if masked:
        mask = rng.random((n_queries, 900)) < 0.7
        mask[:, 300:700] = False
    kept = stores.make(kind, "ram", dim)
    kept.append(docs)
    problem = dense.prepare(rows(5, n_queries, dim), kept.documents(cache={}), 3, metric="dot", mask=mask)
    scores = conformance.rank_scores(problem)
    found = registry.get("cuda").propose(problem, 3)
    conformance.check_candidates(problem, found, scores)
    best = np.where(True if mask is None else mask, scores, -np.inf)
    assert (found.dropped < np.sort(best, axis=1)[:, -3]).mean() > 0.9
    scans = [line.split()[0] for line in hopper.log if line.startswith("dense_")]
    assert scans
    assert all(name.endswith("_sm90") and (kind == "float32" or kind in name) for name in scans)


def test_queries_that_do_not_stay(hopper: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows too long for shared memory, and for the ring: boxes of queries come beside those of documents."""
    monkeypatch.setattr(dense_sm90_plan, "_groups", lambda *given: 1)
    problem = dense.prepare(rows(6, 66, 1300), Documents(rows(7, 300, 1300)), 3, metric="cosine")
    conformance.check_candidates(problem, registry.get("cuda").propose(problem, 3), conformance.rank_scores(problem))
    (line,) = {line.split(" shared ")[1] for line in hopper.log if line.startswith("dense_128_sm90")}
    assert line == f"{2048 + 6 * 32768} stream 0"


def test_a_map_that_cannot_be(hopper: FakeDriver) -> None:
    hopper.tell(cuTensorMapEncodeTiled=1)
    with pytest.raises(RuntimeError, match=r"^cuTensorMapEncodeTiled failed: "):
        registry.get("cuda").propose(dense.prepare(rows(1, 1, 8), Documents(rows(2, 9, 8)), 3, metric="dot"), 3)


def test_what_is_said_of_a_scan(emulated: FakeDriver) -> None:
    kept = stores.make("float16", "ram", 12)
    kept.append(rows(1, 30, 12))
    problem = dense.prepare(rows(2, 20, 12), kept.documents(cache={}), 3, metric="dot")
    backend = registry.get("cuda")
    assert backend.describe(problem)[0]["tile"] == "128 x 64 x 64, 2 parts"
    assert backend.describe(problem)[0]["form"] == "sm_80: not measured"
    with dense_sm90_plan.forced("sm_90"):
        assert backend.describe(problem)[0]["form"] == "sm_90: asked for"
        emulated.tell(major=10)
        assert backend.describe(problem)[0]["form"] == "sm_80: wgmma is of compute capability 9.0 alone"


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if cuda_driver.compiler() is None:
        pytest.skip("no C++ compiler")
    options = [f"-I{folder}" for folder in (cuda_driver.SOURCES, cuda_driver.KERNELS)]
    target = tmp_path_factory.mktemp("hopper") / "faults.so"
    library = ctypes.CDLL(str(cuda_driver.build(cuda_driver.SOURCES / "hopper_faults.cpp", target, *options)))
    library.run.restype = ctypes.c_char_p
    return library


@pytest.mark.parametrize("name", FAULTS)
def test_mistakes_are_noticed(faults: ctypes.CDLL, name: str) -> None:
    values = np.random.default_rng(0).integers(-128, 128, (64, 128), np.int8)
    found = np.zeros((64, 32), np.int32)
    number = ctypes.c_int64(list(FAULTS).index(name))
    said = faults.run(number, ctypes.c_void_p(values.ctypes.data), ctypes.c_void_p(found.ctypes.data))
    assert said.decode() == FAULTS[name]
    if name == "none":
        own = values[:, :32].astype(np.int32)
        assert (found == 2 * own @ own[:32].T).all()
