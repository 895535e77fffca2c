#!/usr/bin/env bash
# bench.gpu on a bare machine: builds the extension in place, with its CUDA kernels if it can, then measures. Where they
# do not build, an extension that is there and has them stays. Arguments go to bench.gpu: --sanitize looks for errors
# with compute-sanitizer first.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${PYTHON:-python3}")
build() {
    cmake -S . -B "build/gpu-$1" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPYENGINE_CUDA="$1" \
        -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$PWD/pyengine" -DPython_EXECUTABLE="$python" \
        -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" &&
        cmake --build "build/gpu-$1" --parallel
}
there() { "$python" -c 'import sys; from pyengine import _native; sys.exit(not _native.cuda_images())' 2>/dev/null; }
{
    build ON || { there && echo "the CUDA kernels do not build here: those of the extension that is there are measured"; } ||
        { echo "the CUDA kernels do not build here: only Triton's are measured" && build OFF; } ||
        echo "the extension does not build here: the specification judges, more slowly"
} >&2
exec "$python" -m bench.gpu "$@"
