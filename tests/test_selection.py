"""How a backend is chosen, how one joins, and that nothing optional is imported before it is used."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pyengine
from pyengine import DenseIndex, conformance, topk, use_backend
from pyengine.backends import registry
from pyengine.backends.base import Backend
from pyengine.backends.numpy_backend import NumpyBackend
from pyengine.problems.problem import DenseProblem, Documents
from pyengine.searches import dense
from pyengine.specification import reference

ROOT = Path(pyengine.__file__).parents[1]
QUERIES = np.eye(2, 3, dtype=np.float32)
DOCS = np.eye(4, 3, dtype=np.float32)


class Loud(NumpyBackend):
    """NumPy, counting its searches."""

    name = "loud"
    searches = 0

    def first_width(self, problem: DenseProblem) -> int:
        type(self).searches += 1
        return super().first_width(problem)


class Unable(NumpyBackend):
    name = "unable"

    def missing(self) -> str:
        return "it is never here: wait"


class Picky(NumpyBackend):
    name = "picky"

    def refusals(self, problem: DenseProblem) -> list[str]:
        return ["it wants ten documents", "and a full moon"]


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three backends more: `loud` works, `unable` is missing, `picky` refuses everything."""
    instances = {backend.name: backend for backend in (Loud(), Unable(), Picky())}
    real = registry.get
    monkeypatch.setattr(registry, "names", lambda: [*registry.BUILTIN, *instances])
    monkeypatch.setattr(registry, "get", lambda name: instances.get(name) or real(name))
    Loud.searches = 0


def problem() -> DenseProblem:
    return dense.prepare(QUERIES, Documents(DOCS), 2, metric="cosine")


def test_every_backend_is_listed_with_a_reason_where_it_cannot_run() -> None:
    statuses = {status.name: status for status in pyengine.backends()}
    assert list(statuses)[:6] == ["cpu", "triton", "cuda", "torch", "faiss", "numpy"]
    assert statuses["numpy"] == ("numpy", True, None)
    assert statuses["unable"] == ("unable", False, "it is never here: wait")
    sparse = [status.name for status in pyengine.backends("sparse")]
    assert sparse == ["cpu", "triton", "cuda", "torch", "scipy", "numpy"]
    for name, available, reason in statuses.values():
        assert available == (reason is None), name
        assert reason is None or reason.strip(), name


def test_auto_takes_the_first_that_can() -> None:
    first = next(status.name for status in pyengine.backends() if status.available)
    assert registry.choose("auto", problem()).name == first


def test_an_explicit_choice_runs() -> None:
    conformance.same(topk(QUERIES, DOCS, 2, backend="loud"), reference.topk(QUERIES, DOCS, 2), "loud")
    assert Loud.searches == 1


def test_an_explicit_choice_that_is_missing_raises_with_the_reason_and_who_can() -> None:
    with pytest.raises(RuntimeError) as caught:
        topk(QUERIES, DOCS, 2, backend="unable")
    first, reason, able = str(caught.value).splitlines()
    assert first.startswith("backend 'unable' cannot run dense top-2, cosine, queries float32 [2, 3], documents")
    assert "[4, 3]" in first
    assert "device cpu" in first
    assert reason == "  unable: it is never here: wait"
    assert able.startswith("backends that can: ")
    assert able.endswith("numpy, loud")


def test_an_explicit_choice_that_refuses_raises_with_every_reason() -> None:
    index = DenseIndex(3, store="float32", backend="picky")
    index.add(DOCS)
    searches: list[Callable[[], object]] = [
        lambda: topk(QUERIES, DOCS, 2, backend="picky"),
        lambda: index.search(QUERIES, 2),
    ]
    for search in searches:
        with pytest.raises(RuntimeError, match="picky: it wants ten documents; and a full moon\n"):
            search()


def test_when_none_can_every_backend_gives_its_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backend, "refusals", lambda self, problem: [f"{self.name} is on strike"])
    monkeypatch.setattr(Loud, "missing", lambda self: "it went home")
    dense_ones = [name for name in registry.names() if name != "scipy"]
    for name, backend in ((name, type(registry.get(name))) for name in dense_ones):
        if "refusals" in vars(backend) and name != "picky":
            monkeypatch.setattr(backend, "refusals", Backend.refusals)
    with pytest.raises(RuntimeError) as caught:
        topk(QUERIES, DOCS, 2, dims=DOCS.shape[1])  # so that it is no plain search
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("backend 'auto' cannot run dense top-2")
    assert [line.split(":")[0].strip() for line in lines[1:]] == registry.names()
    assert "  numpy: numpy is on strike" in lines
    assert "  scipy: it has nothing for dense" in lines
    assert "  loud: it went home" in lines


def test_use_backend_nests_and_ends() -> None:
    auto = registry.choose("auto", problem()).name
    with use_backend("loud"):
        assert registry.choose("auto", problem()).name == "loud"
        with use_backend("numpy"):
            assert registry.choose("auto", problem()).name == "numpy"
            with use_backend("auto"):
                assert registry.choose("auto", problem()).name == auto
        assert registry.choose("auto", problem()).name == "loud"
    assert registry.choose("auto", problem()).name == auto


def test_use_backend_ends_when_the_block_fails() -> None:
    auto = registry.choose("auto", problem()).name
    with pytest.raises(KeyError), use_backend("loud"):
        raise KeyError
    assert registry.choose("auto", problem()).name == auto


def test_use_backend_reaches_searches_but_not_explicit_choices() -> None:
    index = DenseIndex(3, store="float32")
    index.add(DOCS)
    with use_backend("loud"):
        topk(QUERIES, DOCS)
        index.search(QUERIES)
        assert Loud.searches == 2
        topk(QUERIES, DOCS, backend="numpy")
        index.search(QUERIES, backend="numpy")
    topk(QUERIES, DOCS)
    assert Loud.searches == 2


def test_use_backend_never_falls_back() -> None:
    with use_backend("picky"), pytest.raises(RuntimeError, match="backend 'picky' cannot run"):
        topk(QUERIES, DOCS)


@pytest.mark.parametrize("name", ["no-such", "", None, 3])
def test_use_backend_refuses_an_unknown_name(name: str) -> None:
    with pytest.raises((ValueError, TypeError), match="backend must be "), use_backend(name):
        pytest.fail("the block ran")


def test_use_backend_is_of_its_own_thread() -> None:
    seen: dict[str, str] = {}
    inside, done = threading.Barrier(2), threading.Barrier(2)

    def run(name: str) -> None:
        with use_backend(name):
            inside.wait(10)
            seen[name] = registry.choose("auto", problem()).name
            done.wait(10)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("loud", "numpy")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == {"loud": "loud", "numpy": "numpy"}


def python(code: str, *paths: Path) -> str:
    """What the code prints, run with these directories ahead on the path."""
    path = [str(each) for each in (*paths, ROOT)]
    script = f"import sys\nsys.path[:0] = {path!r}\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def distribution(at: Path, entry_points: str, **modules: str) -> Path:
    """An installed distribution with these entry points in our group, and these modules."""
    info = at / "their_backend-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pyengine.backends]\n{textwrap.dedent(entry_points)}\n")
    for name, code in modules.items():
        (at / f"{name}.py").write_text(textwrap.dedent(code))
    return at


THEIRS = """
    from pyengine.backends.numpy_backend import NumpyBackend

    class Theirs(NumpyBackend):
        name = "theirs"

        def describe(self, problem):
            return {"whose": "theirs"}
"""


def test_a_third_party_joins_by_an_entry_point(tmp_path: Path) -> None:
    at = distribution(tmp_path, "theirs = their_module:Theirs", their_module=THEIRS)
    out = python(
        """
        import numpy as np, pyengine
        from pyengine import conformance
        from pyengine.backends import registry

        print(registry.names(), "their_module" in sys.modules)
        print([status for status in pyengine.backends() if status.name == "theirs"])
        rows = np.eye(3, dtype=np.float32)
        print(pyengine.topk(rows, rows, 1, backend="theirs").ids.ravel())
        with pyengine.use_backend("theirs"):
            print(type(registry.choose("auto", conformance.cases()[0].problem())).__module__)
        print(conformance.run(conformance.cases()[0], "theirs"))
        """,
        at,
    )
    assert out.splitlines() == [
        "['cpu', 'triton', 'cuda', 'torch', 'faiss', 'scipy', 'numpy', 'theirs'] False",
        "[BackendStatus(name='theirs', available=True, reason=None)]",
        "[0 1 2]",
        "their_module",
        "[]",
    ]


@pytest.mark.parametrize(
    ("entry_point", "code", "reason"),
    [
        ("their_module:Theirs", "import a_module_that_nobody_has", "No module named 'a_module_that_nobody_has'"),
        ("their_module:Theirs", "1 / 0", "ZeroDivisionError: division by zero"),
        ("their_module:Theirs", "", "has no attribute 'Theirs'"),
        ("no_such_module:Theirs", "", "No module named 'no_such_module'"),
    ],
)
def test_a_third_party_that_fails_to_load_is_missing(tmp_path: Path, entry_point: str, code: str, reason: str) -> None:
    at = distribution(tmp_path, f"theirs = {entry_point}", their_module=code)
    out = python(
        """
        import numpy as np, pyengine

        (status,) = (status for status in pyengine.backends() if status.name == "theirs")
        print(status.available, status.reason)
        rows = np.eye(3, dtype=np.float32)
        print(pyengine.topk(rows, rows, 1).ids.ravel())
        try:
            pyengine.topk(rows, rows, 1, backend="theirs")
        except RuntimeError as error:
            print(str(error).splitlines()[1])
        """,
        at,
    )
    listed, auto, explicit = out.splitlines()
    assert listed.startswith("False its entry point failed to load: ")
    assert reason in listed
    assert auto == "[0 1 2]"
    assert explicit.startswith("  theirs: its entry point failed to load: ")
    assert reason in explicit


def test_a_third_party_cannot_take_the_name_of_ours(tmp_path: Path) -> None:
    at = distribution(tmp_path, "numpy = their_module:Theirs", their_module=THEIRS)
    out = python("import pyengine; print([s.name for s in pyengine.backends()])", at)
    assert out.strip() == "['cpu', 'triton', 'cuda', 'torch', 'faiss', 'numpy']"


OPTIONAL = ("torch", "faiss", "triton", "typer", "rich", "tqdm", "ir_measures", "hypothesis", "pytest")


@pytest.mark.parametrize("use", ["import pyengine", "import pyengine.conformance"])
def test_importing_pyengine_imports_nothing_optional(use: str) -> None:
    out = python(f"{use}\nprint([name for name in {OPTIONAL!r} if name in sys.modules])")
    assert out.strip() == "[]"


def test_searching_numpy_arrays_imports_nothing_optional() -> None:
    out = python(
        f"""
        import numpy as np, pyengine
        rows = np.eye(3, dtype=np.float32)
        pyengine.topk(rows, rows, 1, backend="numpy")
        index = pyengine.DenseIndex(3, store="float32", backend="numpy")
        index.add(rows)
        index.search(rows)
        print([name for name in {OPTIONAL!r} if name in sys.modules])
        """
    )
    assert out.strip() == "[]"
