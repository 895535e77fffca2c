"""The compatibility matrix, `pyengine/integrations/README.md`: what every face was tested with. It is written at the
end of a run of `make test-integrations` in which every file ran and nothing failed."""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]
FACES = ROOT / "pyengine" / "integrations"
TARGET = FACES / "README.md"
INTRODUCTION = """# Faces of other libraries

Their arguments in, one call of the engine, their results out. A face is imported when it is used, and its library with
it; `pages/` has an example of each. This page is written by `make test-integrations`, which runs our tests of each face
beside the library itself and, where it publishes some for what the face stands in for, the library's own tests against
the face.

| library | release | face | tests | the library's own | differences |
|---|---|---|---|---|---|
"""


def modules() -> list[str]:
    """The names of all faces: of modules that name a `LIBRARY`, and of those in front of several, by topic, that do.
    The others hold what several faces share."""
    named = {path.stem for path in FACES.glob("*.py") if "LIBRARY" in _names(path)}
    return sorted(path.stem for path in FACES.glob("*.py") if named & {path.stem} or _topics(path.stem, named))


def _topics(name: str, among: Iterable[str]) -> list[str]:
    return sorted(each for each in among if each.startswith(f"{name}_"))


def shared() -> list[str]:
    return sorted({path.stem for path in FACES.glob("*.py")} - {*modules(), "__init__"})


def _names(path: Path) -> set[str]:
    """What a module's top level assigns; a look that needs no library."""
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    targets = [target for each in statements if isinstance(each, ast.Assign) for target in each.targets]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def files() -> list[Path]:
    """The test files of all faces, those of the default run among them."""
    tests = ROOT / "tests"
    return sorted([*(tests / "integrations").glob("test_*.py"), *tests.glob("test_integration_*.py")])


def write(passed: Counter[str], own: Counter[str]) -> None:
    """The page, of how many tests passed by the names of faces, and how many of them are a library's own."""
    TARGET.write_text(INTRODUCTION + "".join(_rows(passed, own)), encoding="utf-8")


def face_of(path: str) -> str:
    """The face that a test file is about: "faiss" of tests/test_integration_faiss.py; of two that fit, the longer."""
    about = Path(path).stem.removeprefix("test_").removeprefix("integration_")
    return max((name for name in modules() if f"{about}_".startswith(f"{name}_")), key=len, default=about)


def _rows(passed: Counter[str], own: Counter[str]) -> Iterator[str]:
    faces = {name: importlib.import_module(f"pyengine.integrations.{name}") for name in modules()}
    libraries: dict[str, list[str]] = {}
    for name, face in faces.items():
        stated_by = face if hasattr(face, "LIBRARY") else faces[_topics(name, faces)[0]]
        libraries.setdefault(stated_by.LIBRARY, []).append(name)
    for library, names in sorted(libraries.items()):
        stated = dict.fromkeys(each for name in names for each in getattr(faces[name], "DIFFERENCES", ()))
        cells = [
            library,
            _release(library),
            ", ".join(f"`{name}`" for name in names),
            str(sum(passed[name] for name in names) or "not run"),
            str(sum(own[name] for name in names)),
            "; ".join(stated).replace("|", "\\|") or "none",
        ]
        yield f"| {' | '.join(cells)} |\n"


def _release(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
