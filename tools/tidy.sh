#!/usr/bin/env bash
# Runs clang-tidy over src/ and apps/; needs a configured build/.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

git ls-files -z -- 'src/*.cc' 'apps/*.cc' |
  xargs -0 -r -n 1 -P "$(nproc)" clang-tidy -p build --quiet --warnings-as-errors='*' 2>/dev/null
