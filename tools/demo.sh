#!/usr/bin/env bash
# From a bare machine to text: build, fetch a small real model, quantize it to NVFP4, generate.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

tools/setup.sh demo

mkdir -p build
if [[ ! -f build/cpu/build.ninja ]]; then
  step "Configure"
  # The demo needs no googletest; `make test` turns the tests on in the same folder later.
  configure cpu -DNIBBLE_TESTS=OFF
fi
step "Build"
ninja -C build/cpu nibble
tools/demo_models.sh

step "Generate from the NVFP4 checkpoint"
"$PROGRAM" run "$MODEL_NVFP4" -p "${PROMPT:-What is the capital of France, and why is it famous?}" \
  -n "${TOKENS:-64}" --temp 0
