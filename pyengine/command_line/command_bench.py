"""``pyengine bench``, ``ablate`` and ``report``, the installed faces of ``python -m bench.run``, ``bench.ablate`` and
``bench.report``, which lie beside the package in a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import typer

ROOT = Path(__file__).parent.parent.parent
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def run(module: str, arguments: list[str]) -> int:
    """``python -m bench.<module>`` with those arguments, in this folder; returns its exit code.

    Raises:
        ImportError: this pyengine was not installed from a checkout, or that has no such module.
    """
    if not (ROOT / "bench" / f"{module}.py").is_file():
        raise ImportError(
            f"bench.{module} is not in the installed package: in a checkout of pyengine's sources, "
            f"run python -m bench.{module}, or install it from there with pip install -e ."
        )
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", f"bench.{module}", *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}).returncode


def bench(context: typer.Context) -> None:
    """Check and race searches against their peers and the machine's ceilings (--help: the options of bench.run)."""
    raise typer.Exit(run("run", context.args))


def ablate(context: typer.Context) -> None:
    """Measure a grid of indexes on your data, or published claims (--help: the options of bench.ablate)."""
    raise typer.Exit(run("ablate", context.args))


def report(context: typer.Context) -> None:
    """Make a page, figures and tables of what bench and ablate measured (--help: the options of bench.report)."""
    raise typer.Exit(run("report", context.args))
