#!/usr/bin/env bash
# Measures, writes bench/results/*.json and fills the tables of the pages from them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

tools/setup.sh test
"$PYTHON" tools/measure_demo.py
"$PYTHON" tools/update_tables.py
