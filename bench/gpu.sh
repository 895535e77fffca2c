#!/usr/bin/env bash
# bench.gpu on a bare machine: builds the extension in place if it can, then measures. Arguments go to bench.gpu.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${PYTHON:-python3}")
build() {
    cmake -S . -B build/gpu -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$PWD/pyengine" \
        -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" &&
        cmake --build build/gpu --parallel
}
build >&2 || echo "the extension does not build here: the specification judges, more slowly" >&2
exec "$python" -m bench.gpu "$@"
