"""What all faces of other libraries have in common: their names in `pyengine`, and their rows in the matrix."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import pyengine as pe
from tests.integrations import matrix


@pytest.mark.parametrize("name", [name for name in pe._LATER if name != "torch"])
def test_a_name_is_found_when_it_is_used(name: str) -> None:
    assert name in dir(pe)
    assert callable(getattr(pe, name))


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(AttributeError, match="module 'pyengine' has no attribute 'patch_nothing'"):
        pe.patch_nothing  # type: ignore[attr-defined]  # noqa: B018


def test_importing_pyengine_imports_no_face() -> None:
    program = "import sys, pyengine; dir(pyengine); print([name for name in sys.modules if 'integrations' in name])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True, cwd=matrix.ROOT).strip() == "[]"


@pytest.mark.parametrize("face", matrix.modules())
def test_the_matrix_has_every_face(face: str) -> None:
    assert f"`{face}`" in matrix.TARGET.read_text(encoding="utf-8"), "run make test-integrations, and commit its table"


@pytest.mark.parametrize("module", matrix.shared())
def test_what_is_no_face_is_shared_by_faces(module: str) -> None:
    sources = [path.read_text(encoding="utf-8") for path in matrix.FACES.glob("*.py") if path.stem != module]
    assert any(re.search(rf"\bimport\b.*\b{module}\b|integrations\.{module}\b", source) for source in sources)


def test_a_test_file_belongs_to_a_face() -> None:
    assert matrix.face_of("tests/test_integration_faiss.py") == "faiss"
    assert matrix.face_of("tests/integrations/test_sentence_transformers_of_a_kind.py") == "sentence_transformers"
    assert {path.name for path in matrix.files()} >= {"test_integration_faiss.py", "test_integration_pages.py"}
