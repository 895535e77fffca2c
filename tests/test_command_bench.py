"""``pyengine bench``: it passes its words on to bench.run, where there is one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

from pyengine import __main__
from pyengine.command_line import cli, command_bench

ECHO = "import pathlib, sys\npathlib.Path('told').write_text(' '.join(sys.argv[1:]))\nsys.exit(7)\n"


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pyengine", "bench", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_words_and_exit_codes_are_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the folder of the caller, with the module of the checkout."""
    (tmp_path / "checkout" / "bench").mkdir(parents=True)
    (tmp_path / "checkout" / "bench" / "run.py").write_text(ECHO)
    monkeypatch.setattr(command_bench, "ROOT", tmp_path / "checkout")
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "--preset", "quick", "--help") == 7
    assert (tmp_path / "told").read_text() == "--preset quick --help"


def test_where_there_is_no_bench_it_says_where_to_find_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_bench, "ROOT", tmp_path)
    assert run(monkeypatch) == 2
    told = capsys.readouterr().err
    assert "bench.run is not in the installed package" in told
    assert told.count("\n") == 1


def test_python_m_pyengine_with_words_is_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_bench, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["pyengine", "ablate"])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 2
    assert "bench.ablate is not in the installed package" in capsys.readouterr().err
