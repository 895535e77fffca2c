"""Where a measurement was made, and an environment that is fair to everybody in it."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pyengine
from pyengine.refining import exact

PACKAGES = (
    *("numpy", "torch", "faiss-cpu", "usearch", "sentence-transformers", "scalable-vs", "scann"),
    *("colbert-ai", "maxsim-cpu", "pylate", "late-interaction-kernels", "fast-plaid"),
    *("scipy", "pyvsag", "splade-index", "numba", "bm25s", "pyseismic-lsr", "sparse_dot_topn", "tantivy"),
    *("ir_measures", "PyStemmer", "triton"),
)
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS")
HANDICAPS = (  # settings that can keep a library from the best code it has for this machine
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "NPY_DISABLE_CPU_FEATURES",
    "FAISS_OPT_LEVEL",
    "PYENGINE_CPU_ISA",
)
OPENBLAS_CORES = {  # the best core type that every OpenBLAS of recent years has, and what it needs
    "SkylakeX": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "Haswell": {"avx2", "fma"},
}
CHANGED = "PYENGINE_BENCH_CHANGED"  # set by `rerun_fairly` for the process that it starts: what it changed


@dataclass(frozen=True)
class Machine:
    """The provenance of a measurement; every field is a column of the results."""

    date: str
    cpu: str
    cores: int
    memory_gib: int
    isa: str
    versions: str
    commit: str
    changed_settings: str

    def describe(self) -> str:
        return f"{self.cpu}, {self.cores} cores, {self.memory_gib} GiB, isa {self.isa}\n{self.versions}"

    @property
    def where(self) -> str:
        """In a line."""
        return f"{self.date}, {self.cpu}, {self.cores} cores, {self.isa}; {self.versions}; {self.commit}"

    @property
    def slug(self) -> str:
        """For file names: "amd-epyc-2c"."""
        words = re.findall(r"[a-z0-9]+", re.sub(r"\((r|tm)\)|cpu|processor|@.*", " ", self.cpu.lower()))
        return "-".join([*words[:4], f"{self.cores}c"])


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def here() -> Machine:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    kernels = exact.native()
    return Machine(
        date=datetime.date.today().isoformat(),
        cpu=_cpu_name(),
        cores=cores(),
        memory_gib=memory,
        isa="extension not built" if kernels is None else str(kernels.isa()),
        versions=_versions(),
        commit=_commit(),
        changed_settings=os.environ.get(CHANGED, ""),
    )


def fair_environment(threads: int) -> dict[str, str]:
    """This environment with every library at its best and limited to that many threads.

    OpenBLAS is told the core: left alone, an older one takes a processor that it does not know for one without AVX.
    faiss-cpu 1.15.1 (OpenBLAS 0.3.15) runs Zen 5 as Barcelona, at a quarter of the speed of SkylakeX.
    """
    kept = {name: value for name, value in os.environ.items() if name not in HANDICAPS}
    core = next((core for core, needs in OPENBLAS_CORES.items() if needs <= cpu_flags()), None)
    return {**kept, **({"OPENBLAS_CORETYPE": core} if core else {}), **dict.fromkeys(THREAD_LIMITS, str(threads))}


def rerun_fairly(threads: int) -> None:
    """Start this command again, in this process, if its environment is not the fair one (libraries read theirs when
    they are loaded). Returns if it is."""
    fair = fair_environment(threads)
    if fair == dict(os.environ):
        return
    changes = [f"{name}={fair[name]}" if name in fair else f"no {name}" for name in HANDICAPS if _differs(name, fair)]
    if changes:
        print(f"bench: running with {', '.join(changes)}, so that every library is at its best", file=sys.stderr)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**fair, CHANGED: ", ".join(changes)})


def _differs(name: str, environment: dict[str, str]) -> bool:
    return os.environ.get(name) != environment.get(name)


def cpu_flags() -> set[str]:
    """The x86 features of the first core, as Linux names them; none elsewhere."""
    try:
        found = re.search(r"^flags\s*:(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return set()
    return set(found.group(1).split()) if found else set()


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _versions() -> str:
    found = [f"pyengine {pyengine.__version__}", f"python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _commit() -> str:
    """The commit of this checkout, "-dirty" if it was changed since; "" outside one."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty"]
    try:
        root = Path(__file__).parent
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
