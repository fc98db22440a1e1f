#!/usr/bin/env bash
# Formats every C++ and CUDA file of the repository in place; --check only reports.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

case ${1:-} in
  '') mode=(-i) ;;
  --check) mode=(--dry-run --Werror) ;;
  *)
    echo "usage: tools/format.sh [--check]" >&2
    exit 2
    ;;
esac

# Files that git does not know yet count too; files deleted from the work tree do not.
git ls-files -z --cached --others --exclude-standard -- '*.h' '*.cc' '*.cu' '*.cuh' |
  while IFS= read -r -d '' file; do
    if [[ -f $file ]]; then printf '%s\0' "$file"; fi
  done |
  xargs -0 -r -n 16 -P "$(nproc)" clang-format "${mode[@]}"
