#!/usr/bin/env bash
# bench.gpu on a bare machine: builds the extension in place, with its CUDA kernels if it can, then measures. Arguments
# go to bench.gpu: --sanitize looks for errors with compute-sanitizer first.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${PYTHON:-python3}")
build() {
    cmake -S . -B "build/gpu-$1" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPYENGINE_CUDA="$1" \
        -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$PWD/pyengine" -DPython_EXECUTABLE="$python" \
        -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" &&
        cmake --build "build/gpu-$1" --parallel
}
{
    build ON || { echo "the CUDA kernels do not build here: only Triton's are measured" && build OFF; } ||
        echo "the extension does not build here: the specification judges, more slowly"
} >&2
exec "$python" -m bench.gpu "$@"
