"""Grids of the ablation and the claims about them: what is read, what is refused, what a verdict is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")
pytest.importorskip("tqdm")

from bench import ablate
from bench.ablation import claims, grid
from bench.ablation.cells import Cell
from bench.ablation.claims import Claim
from bench.ablation.journal import COLUMNS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cells = [", "must be TOML"),
        ("", "cells must be there"),
        ("sead = 3", "sead is no key of a grid"),
        ("seed = -1\n[[cells]]\nname='a'\nfamily='dense'", "seed must be a whole number, 0 or more; got -1"),
        ("cells = 3", "cells must be tables"),
        ("[[cells]]\nfamily='dense'", "cells[0]: name must be a word"),
        ("[[cells]]\nname='a b'\nfamily='dense'", "name must be a word"),
        ("[[cells]]\nname='a'", "cells[0] 'a': family must be given"),
        ("[[cells]]\nname='a'\nfamily='dens'", "family must be one of 'dense'"),
        ("[[cells]]\nname='a'\nfamily='dense'\nstor='int8'", "stor is no setting"),
        ("[[cells]]\nname='a'\nfamily='dense'\nstore=['int8', 'int9']", "store must be one of"),
        ("[[cells]]\nname='a'\nfamily='sparse'\nstore='int8'", "'uint8' for family 'sparse'; got 'int8'"),
        ("[[cells]]\nname='a'\nfamily='dense'\nk=0", "k must be a whole number, 1 or more; got 0"),
        ("[[cells]]\nname='a'\nfamily='dense'\nk=true", "k must be a whole number"),
        ("[[cells]]\nname='a'\nfamily='dense'\nk=[]", "k must be a value or a list of some"),
        ("[[cells]]\nname='a'\nfamily='dense'\nprobes=3", "probes must come with another family or other candidates"),
        ("[[cells]]\nname='a'\nfamily='maxsim'\ncandidates='ivf'", "candidates must be one of"),
        ("[[cells]]\nname='a'\nfamily='dense'\ncandidates='codes'", "store must be one of codes"),
        ("[[cells]]\nname='a'\nfamily='dense'\noriginals='disk'", "originals must be 'ram' for store 'float32'"),
        ("[[cells]]\nname='a'\nfamily='dense'\nbackend='gpu'", "backend must be one of 'auto'"),
        ("[[cells]]\nname='a'\nfamily='hybrid'\nweight=2", "weight must be a number from 0 to 1; got 2"),
        ("[[cells]]\nname='a'\nfamily='dense'\nagainst='b'", "against must name a cell; got 'b'"),
        ("baseline='b'\n[[cells]]\nname='a'\nfamily='dense'", "baseline must name a cell; got 'b'"),
        ("[[cells]]\nname='a'\nfamily='dense'\n[[cells]]\nname='a'\nfamily='dense'", "two cells are called 'a'"),
        ("[settings]\nkk=3\n[[cells]]\nname='a'\nfamily='dense'", "kk is no setting"),
        ("[[cells]]\nname='a'\nfamily='dense'\n[[claims]]\nname='c'", "claims[0] 'c': says must be given"),
    ],
)
def test_a_bad_grid_is_a_sentence(tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert ablate.main(["--grid", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert str(path) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_settings_of_all_cells_reach_those_that_take_them() -> None:
    found = grid.parse(
        {"settings": {"k": 7, "probes": 3, "store": "int8"},
         "cells": [{"name": "a", "family": "dense", "candidates": ["none", "ivf"]},
                   {"name": "b", "family": "maxsim", "k": [1, 2]}]},
        "here",
    )  # fmt: skip
    named = {cell.name: cell for cell in found.cells}
    assert named["a-candidates=none"].k == named["a-candidates=ivf"].k == 7
    assert (named["a-candidates=none"].probes, named["a-candidates=ivf"].probes) == (None, 3)
    assert named["b-k=2"].k == 2
    assert named["b-k=2"].store == "int8"
    assert named["b-k=2"].pool == 1


def test_the_bundled_grids_are_grids() -> None:
    scifact, claimed = grid.load(Path("scifact")), grid.load(Path("claims"))
    assert len(scifact.cells) >= 40
    assert {cell.family for cell in scifact.cells} == {
        "dense",
        "maxsim",
        "sparse",
        "hybrid",
    }
    assert {cell.candidates for cell in scifact.cells} >= {"none", "ivf", "hnsw", "pq", "projection", "dense", "sparse"}
    assert len(claimed.claims) >= 12
    assert all(claim.source for claim in claimed.claims)


@pytest.mark.parametrize(
    ("figure", "bounds", "cell", "against", "word"),
    [
        ("against / cell", {"at_least": 2.0}, 1.0, 4.0, "holds"),
        ("against / cell", {"at_least": 5.8}, 1.0, 4.0, "weaker"),
        ("against / cell", {"at_least": 5.8}, 4.0, 1.0, "does not hold"),
        ("cell / against", {"at_most": 0.5}, 1.0, 4.0, "holds"),
        ("cell / against", {"at_most": 0.1}, 1.0, 4.0, "weaker"),
        ("1 - cell / against", {"at_least": 0.3}, 2.0, 4.0, "holds"),
        ("cell - against", {"at_least": 0.5}, 4.0, 4.0, "does not hold"),
        ("1 / cell", {"at_least": 3.7}, 0.25, 0.0, "holds"),
        ("cell", {"at_least": 0.9}, 0.8, 0.0, "does not hold"),
        ("cell", {"at_least": 0.9}, 0.9, 0.0, "holds"),
        ("cell / against", {"at_most": 0.5}, 1.0, 0.0, "not measured"),
        ("cell / against", {"at_most": 0.5}, None, 1.0, "not measured"),
    ],
)
def test_verdicts(figure: str, bounds: dict[str, Any], cell: float | None, against: float, word: str) -> None:
    claim = replace(Claim("n", "says", "source", "a", "recall", figure, "b"), **bounds)
    rows: list[dict[str, Any]] = [
        {"cell": "a", "recall": cell, "reason": ""},
        {"cell": "b", "recall": against, "reason": ""},
    ]
    assert claims.judge([claim], rows)[0].word == word


@pytest.mark.parametrize(("figure", "word"), [(0.4, "holds"), (0.7, "weaker"), (1.2, "does not hold")])
def test_a_ratio_of_one_is_nothing_gained(figure: float, word: str) -> None:
    claim = Claim("n", "says", "source", "a", "b1_cpu_ratio", "cell", at_most=0.5)
    assert claims.judge([claim], [{"cell": "a", "b1_cpu_ratio": figure, "reason": ""}])[0].word == word


def test_every_setting_is_a_column() -> None:
    assert set(COLUMNS) >= {"cell", *Cell.__dataclass_fields__} - {"name"}
    assert len(set(COLUMNS)) == len(COLUMNS)
