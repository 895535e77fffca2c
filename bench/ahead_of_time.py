"""`python -m bench.ahead_of_time [--all]`: what the compiler makes of every Triton kernel, without a GPU.

Every form that a plan may ask for (`shipped` of each module of `kernels/`) is compiled for every chip, and the table
bench/results/ahead-of-time.csv, with its page, written again: registers, spills, shared memory. A form that spills, or
takes more than the chip has, makes the exit status 1. Only what has changed since the table was written is compiled,
with ``--all`` everything; a run that was stopped goes on where it was. The tests demand that the table is that of the
sources, and compile some of it again.
"""

from __future__ import annotations

import argparse
import ast
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from subprocess import PIPE
from threading import Lock

from pyengine.kernels.chips import CHIPS

ROOT = Path(__file__).parent.parent
KERNELS = ROOT / "kernels"
TABLE = ROOT / "bench" / "results" / "ahead-of-time.csv"
PACKAGE = "pyengine.kernels"
TENSOR_MEMORY = 512  # columns of a multiprocessor's, from sm_100 on
COLUMNS = (
    "module", "chip", "kernel", "form", "num_warps", "num_stages", "registers", "stack", "spill_stores", "spill_loads",
    "shared", "tensor_memory", "error", "triton", "sources", "key",
)  # fmt: skip
USED = COLUMNS[6:13]  # what a compiler says
PAGE_COLUMNS = ("chip", "kernel", "form", "num_warps", "num_stages", "registers", "shared", "tensor_memory")

KEPT_EVERY = 30.0  # seconds

Row = dict[str, str]
Unit = tuple[str, str]  # a module and a chip


def modules(folder: Path = KERNELS) -> list[str]:
    """The names of those that ship compiled forms."""
    return sorted(path.stem for path in folder.glob("*.py") if _defines_shipped(path))


def _defines_shipped(path: Path) -> bool:
    found = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "shipped" for node in found)


def sources(module: str, folder: Path = KERNELS) -> str:
    """A hash of the module and of all modules beside it that it needs."""
    found, waiting = {}, [module]
    while waiting:
        name = waiting.pop()
        path = folder / f"{name}.py"
        if name not in found and path.exists():
            found[name] = path.read_bytes()
            waiting += _imported(found[name])
    parts = (name.encode() + b"\0" + found[name] for name in sorted(found))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _imported(source: bytes) -> Iterable[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module.split(".")[-1], *(alias.name for alias in node.names))


def read(path: Path = TABLE) -> list[Row]:
    """The rows of the table as it is; none where there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def current(
    old: Sequence[Row], package: str = PACKAGE, folder: Path = KERNELS, keep: Callable[[list[Row]], object] = len
) -> list[Row]:
    """The rows as they should be: those of ``old`` where nothing has changed, the others compiled. ``keep`` now and
    then gets what there is, from which another call can go on."""
    compiler = version("triton")
    units = {(module, chip): sources(module, folder) for module in modules(folder) for chip in CHIPS}
    parts = {
        unit: [row for row in old if (row["module"], row["chip"], row["triton"]) == (*unit, compiler)] for unit in units
    }
    last, writing = [time.monotonic()], Lock()

    def refresh(unit: Unit) -> None:
        before, about = parts[unit], {"module": unit[0], "chip": unit[1], "triton": compiler}
        if before and all(row["sources"] == units[unit] for row in before):
            return
        known, fresh = {row["key"]: row for row in before if row["key"] and not row["error"]}, []
        for facts in compile_module(f"{package}.{unit[0]}", unit[1], list(known)):
            was = {name: known.get(facts.get("key", ""), {}).get(name, "") for name in USED}
            fresh.append({**dict.fromkeys(COLUMNS, ""), **was, **facts, **about})
            there = {row["key"] for row in fresh}
            parts[unit] = fresh + [row | {"sources": ""} for row in before if row["key"] not in there]
            with writing:
                if time.monotonic() - last[0] > KEPT_EVERY:
                    keep(list(chain(*parts.values())))
                    last[0] = time.monotonic()
        parts[unit] = [row | {"sources": units[unit]} for row in fresh]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(refresh, units))
    return list(chain(*parts.values()))


def compile_module(module: str, chip: str, known: Sequence[str] = ()) -> Iterator[Row]:
    """What `bench.compiled` says of each form, and last an error if it ended early."""
    command = [sys.executable, "-m", "bench.compiled", module, chip]
    with tempfile.TemporaryDirectory(prefix="pyengine-compiled-") as cache, tempfile.TemporaryFile("w+") as complaints:
        environment = {**os.environ, "TRITON_CACHE_DIR": cache, "TRITON_DUMP_PTXAS_LOG": "1", "TRITON_INTERPRET": "0"}
        with subprocess.Popen(
            command, stdin=PIPE, stdout=PIPE, stderr=complaints, text=True, cwd=ROOT, env=environment
        ) as process:
            assert process.stdin
            assert process.stdout
            with process.stdin:
                json.dump(known, process.stdin)
            for line in process.stdout:
                yield {name: str(value) for name, value in json.loads(line).items()}
        if process.returncode:
            complaints.seek(0)
            last = (complaints.read().strip().splitlines() or [""])[-1]
            yield {"error": f"the compiler's process ended with {process.returncode}: {last}"}


def faults(rows: Iterable[Row]) -> list[str]:
    """Why the forms that must not be shipped must not, a sentence each."""
    found = []
    for row in rows:
        name = f"{row['kernel'] or row['module']} ({row['form']}) on {row['chip']}"
        if row["error"]:
            found.append(f"{name} does not compile: {row['error']}")
            continue
        spilled, shared, most = (
            int(row["spill_stores"]) + int(row["spill_loads"]),
            int(row["shared"]),
            CHIPS[row["chip"]],
        )
        if spilled:
            found.append(f"{name} spills {spilled} bytes of registers")
        if shared > most.shared:
            found.append(f"{name} takes {shared} bytes of shared memory, and the chip has {most.shared}")
        if int(row["tensor_memory"]) > TENSOR_MEMORY:
            found.append(f"{name} takes {row['tensor_memory']} columns of tensor memory, and there are {TENSOR_MEMORY}")
    return found


def page(rows: Sequence[Row]) -> str:
    """The table to be read."""
    compilers = ", ".join(sorted({row["triton"] for row in rows})) or "none"
    lines = [
        "# Triton kernels, compiled ahead of time",
        "",
        f"Written by `make ahead-of-time` with Triton {compilers}, without a GPU. Registers of a thread, shared memory",
        "in bytes a block. Nothing spills, and nothing takes more than its chip has, or the command fails.",
        "",
        "| " + " | ".join(name.replace("_", " ") for name in PAGE_COLUMNS) + " |",
        "|---" * len(PAGE_COLUMNS) + "|",
    ]
    lines += ["| " + " | ".join(row[name] for name in PAGE_COLUMNS) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"- FAULT: {fault}" for fault in faults(rows)), ""]).rstrip("\n") + "\n"


def write(rows: Sequence[Row], path: Path = TABLE) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    path.with_suffix(".md").write_text(page(rows), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ahead_of_time", description="Compile every Triton kernel.")
    parser.add_argument("--all", action="store_true", help="also what has not changed")
    options = parser.parse_args(arguments)
    rows = current([] if options.all else read(), keep=write)
    write(rows)
    for fault in faults(rows):
        print(fault)
    print(f"wrote {TABLE}: {len(rows)} compiled forms")
    return 1 if faults(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
