"""Packages and the bridge to CMake; everything else is in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
DATA = "pyengine.data.scifact"  # what `pyengine demo` searches
TOKENS = "pyengine.data.scifact_tokens"


class CMakeBuild(build_ext):
    """Build `pyengine._native` with CMake. Further options for CMake go in the variable CMAKE_ARGS."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        options = [
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            *os.environ.get("CMAKE_ARGS", "").split(),
        ]
        ninja = shutil.which("ninja")
        if ninja:
            options += ["-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        subprocess.run(["cmake", "-S", str(ROOT), "-B", str(build), *options], check=True)
        subprocess.run(["cmake", "--build", str(build), "--parallel"], check=True)


setup(
    packages=[
        "pyengine",
        "pyengine.backends",
        "pyengine.backends.cpu",
        "pyengine.backends.cuda",
        "pyengine.backends.shared",
        "pyengine.backends.torch",
        "pyengine.backends.triton",
        "pyengine.command_line",
        "pyengine.conformance",
        "pyengine.demos",
        "pyengine.indexes",
        "pyengine.inputs",
        "pyengine.integrations",
        "pyengine.kernels",
        "pyengine.lexical",
        "pyengine.problems",
        "pyengine.refining",
        "pyengine.searches",
        "pyengine.specification",
        "pyengine.training",
        DATA,
        f"{DATA}.emb",
        f"{DATA}.qrels",
        TOKENS,
    ],
    package_data={
        "pyengine": ["py.typed", "_native.pyi"],
        "pyengine.integrations": ["README.md", "pages/*.md"],
        "pyengine.kernels": ["measured.csv"],
        **{folder: ["*"] for folder in (DATA, f"{DATA}.emb", f"{DATA}.qrels", TOKENS)},
    },
    ext_modules=[Extension("pyengine._native", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
