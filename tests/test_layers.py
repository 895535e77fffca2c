"""Imports go one way: see DESIGN.md, "Layers and the direction of imports"."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "pyengine"
LAYERS = [  # lowest first; what is not named is the uppermost layer
    {"kernels", "_native"},
    {"types", "checks", "specification", "inputs", "problems", "refining"},
    {"backends"},
    {"searches"},
    {"indexes"},
]
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py") if "kernels" not in path.parts)


def layer(name: str) -> int:
    return next((height for height, names in enumerate(LAYERS) if name in names), len(LAYERS))


def imports(path: Path) -> set[tuple[str, ...]]:
    """The modules of pyengine that a file imports, as parts: ("backends", "base")."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pyengine":
            parts = tuple(node.module.split(".")[1:])
            found |= {(*parts, alias.name) for alias in node.names}
    return found


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_only_from_below(module: Path) -> None:
    own = layer(module.parts[0].removesuffix(".py"))
    for parts in imports(ROOT / module):
        assert layer(parts[0]) <= own, f"{module} imports pyengine.{'.'.join(parts)}"


BACKENDS = {"cpu", "cuda", "torch", "triton"}
USES = {"triton": {"torch"}, "cuda": {"torch"}}  # whose tensors they work on, or what they hand on to


@pytest.mark.parametrize("folder", sorted(BACKENDS))
def test_backends_do_not_import_one_another(folder: str) -> None:
    others = BACKENDS - {folder} - USES.get(folder, set())
    for module in (ROOT / "backends" / folder).glob("*.py"):
        wrong = [parts for parts in imports(module) if others & set(parts[1:]) and parts[0] == "backends"]
        assert not wrong, f"{module.name} imports {wrong}"


def test_no_backend_imports_the_module_of_another() -> None:
    for module in (ROOT / "backends").rglob("*_backend.py"):
        others = [parts for parts in imports(module) if parts[0] == "backends" and any("_backend" in p for p in parts)]
        assert not others, f"{module.name} imports {others}"


def test_what_backends_share_knows_no_backend() -> None:
    for module in (ROOT / "backends" / "shared").glob("*.py"):
        wrong = [parts for parts in imports(module) if BACKENDS & set(parts[1:])]
        assert not wrong, f"{module.name} imports {wrong}"
