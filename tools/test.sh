#!/usr/bin/env bash
# Everything a change must pass. The cheap checks come first; CTest's closing lines come last.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

tools/setup.sh test
mkdir -p build
jobs=$(nproc)

step "Format, include table, tables of figures, tools"
tools/format.sh --check
"$PYTHON" tools/check_includes.py
"$PYTHON" tools/update_tables.py --check
"$PYTHON" -B -m unittest discover -s tests/tools -p '*_test.py'

step "Release build"
configure cpu -DNIBBLE_TESTS=ON
ninja -C build/cpu -j "$jobs"
tools/demo_models.sh

step "ASan and UBSan build"
configure asan
ninja -C build/asan -j "$jobs"

step "Tests under ASan and UBSan, fuzz targets for a bounded time"
ctest --preset asan -j "$jobs"

if command -v nvcc >/dev/null; then
  step "CUDA build; its kernels on an emulated GPU (ctest -L gpu is for machines with a device)"
  # For every architecture again, whatever a developer has set there.
  configure cuda -U NIBBLE_CUDA_PORTABLE -DNIBBLE_EMULATOR=ON
  ninja -C build/cuda -j "$jobs" cuda_objects
  ctest --preset cuda -j "$jobs" -R \
    'fp4_instruction_test|sass_test|cutlass_|cublaslt_|sm80_|graph_launch_|candidates_|sm90_fit_|emulat'
fi

step "Tests, Release"
# The text oracles have run under the sanitizers: what takes their 100 s is Python's side.
ctest --preset cpu -j "$jobs" -E '(tokenizer|chat_template)_oracle_test'
