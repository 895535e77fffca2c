"""``python -m pyengine``: what runs on this machine, and what is missing. Needs nothing but pyengine itself. With words
after it, the command line of these words."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import numpy as np

import pyengine
from pyengine import checks
from pyengine.command_line import cli
from pyengine.refining import exact

OPTIONAL = {"torch": "torch", "triton": "triton", "faiss": "faiss-cpu"}


def facts() -> dict[str, str]:
    """The versions, and what the CPU offers, by name."""
    return {
        "pyengine": pyengine.__version__,
        "python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "numpy": np.__version__,
        **{name: _version(package) for name, package in OPTIONAL.items()},
        "threads": str(checks.thread_count(None)),
        "instruction sets": _instruction_sets(),
    }


def _instruction_sets() -> str:
    kernels = exact.native()
    return "extension not built" if kernels is None else f"{', '.join(kernels.isas())} (in use: {kernels.isa()})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    if sys.argv[1:]:
        cli.main()
        return
    for name, value in facts().items():
        print(f"{name:17} {value}")
    print("\nbackends")
    for status in pyengine.backends():
        print(f"  {status.name:15} {status.reason or 'available'}")


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:  # PYENGINE_CPU_ISA names what this machine lacks
        sys.exit(f"pyengine: {error}")
