"""Imports go one way: see DESIGN.md, "Layers and the direction of imports"."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "pyengine"
WORDS = {
    "types", "reference", "reference_maxsim", "reference_softmax", "checks", "living", "rows", "ragged", "lists",
    "filters", "problem", "problem_maxsim", "exact", "exact_maxsim", "sparse_rows", "sparse_forms", "problem_sparse",
    "reference_sparse", "exact_sparse", "sliced_rows", "problem_sliced", "reference_sliced", "exact_sliced",
}  # fmt: skip
INDEXES = {
    "arrays", "ids", "row_store", "ragged_store", "stores", "kmeans", "codecs", "token_store", "sparse_store",
    "segments", "chunks", "contents", "storage", "life", "index", "multi_vector", "pooling",
    "sparse_index",
}  # fmt: skip
SEARCHES = {
    "search", "request", "dense", "maxsim", "maxsim_request", "maxsim_scores", "sparse", "sliced", "ranges", "ranks",
    "explain",
}  # fmt: skip
LAYERS = [  # lowest first; what is not named is the uppermost layer
    {"kernels", "_native"},
    WORDS,
    {"backends"},
    SEARCHES,
    INDEXES,
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


def test_backends_do_not_import_one_another() -> None:
    for module in (ROOT / "backends").glob("*_backend.py"):
        others = [parts for parts in imports(module) if parts[0] == "backends" and any("_backend" in p for p in parts)]
        assert not others, f"{module.name} imports {others}"
