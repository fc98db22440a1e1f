#!/usr/bin/env bash
# Installs what is missing for a level, and nothing else:
#   tools/setup.sh demo     compiler, libraries, the Python that converts the demo model
#   tools/setup.sh test     demo, plus googletest, clang, the Python oracles and, where CUDA is
#                           compiled, the CUTLASS headers
#   tools/setup.sh bench    demo, plus google-benchmark
# A run that finds everything in place takes well under 0.2 s and asks no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly DEMO_PACKAGES=(ca-certificates ccache cmake g++ libcli11-dev libfmt-dev libpcre2-dev
  libspdlog-dev libutf8proc-dev ninja-build nlohmann-json3-dev pkgconf python3 python3-venv)
readonly TEST_PACKAGES=(clang clang-format clang-tidy libclang-rt-dev libgmock-dev libgtest-dev)
readonly BENCH_PACKAGES=(libbenchmark-dev)
readonly VENV=build/venv
readonly CUTLASS=build/third_party/cutlass

fail() {
  echo "setup: $*" >&2
  exit 1
}

# Prints the names among its arguments that dpkg does not list as installed.
missing_packages() {
  local installed package
  # dpkg-query fails when it does not know one of the names; the others are still listed.
  installed=" $({ dpkg-query -W -f '${Package}:${db:Status-Status}\n' "$@" 2>/dev/null || true; } |
    sed -n 's/:installed$//p' | tr '\n' ' ')"
  for package in "$@"; do
    [[ $installed == *" $package "* ]] || echo "$package"
  done
}

install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    echo "setup: not a Debian system, so nothing is installed; the build needs what Debian calls: $*" >&2
    return
  fi
  local missing
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]})) || return 0

  local as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null ||
      fail "these packages are missing, and only root can install them:
  apt-get install --no-install-recommends ${missing[*]}"
    as_root=(sudo)
  fi
  echo "setup: installing ${missing[*]}"
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
  "${apt[@]}" update
  "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# One stamp per requirement file, holding the file's hash: an unchanged file costs nothing.
install_requirements() {
  local name=$1
  local file=tools/requirements/$name.txt stamp=$VENV/.$name.sha256
  local hash
  hash=$(sha256sum <"$file")
  [[ -x $VENV/bin/python && -f $stamp && $(<"$stamp") == "$hash" ]] && return

  if [[ ! -x $VENV/bin/python ]]; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
      fail "python3 is $(python3 --version), expected 3.11 or newer"
    echo "setup: making $VENV"
    rm -rf "$VENV"
    python3 -m venv "$VENV"
  fi
  echo "setup: installing $file"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
    --only-binary :all: -r "$file"
  echo "$hash" >"$stamp"
}

# Unpacks build/third_party/cutlass/include. Without it CUDA builds, and leaves one backend out.
fetch_cutlass() {
  local file=tools/requirements/cutlass.txt stamp=$CUTLASS/.sha256
  local hash
  hash=$(sha256sum <"$file")
  [[ -f $stamp && $(<"$stamp") == "$hash" ]] && return

  echo "setup: fetching the CUTLASS headers (62 MB, once)"
  rm -rf "$CUTLASS"
  mkdir -p "$CUTLASS"
  if ! "$VENV/bin/python" -m pip download --quiet --disable-pip-version-check --retries 1 --no-deps \
    --require-hashes --only-binary :all: --dest "$CUTLASS" -r "$file"; then
    echo "setup: no CUTLASS headers, so Nibble is built without cutlass_fp4_gemm" >&2
    return
  fi
  "$VENV/bin/python" - "$CUTLASS"/*.whl "$CUTLASS" <<'END'
import sys, zipfile
from pathlib import Path

FOLDER = "flashinfer/data/cutlass/"
with zipfile.ZipFile(sys.argv[1]) as wheel:
    for name in wheel.namelist():
        if name.startswith(FOLDER + "include/"):
            path = Path(sys.argv[2], name.removeprefix(FOLDER))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(wheel.read(name))
END
  rm "$CUTLASS"/*.whl
  echo "$hash" >"$stamp"
}

case ${1:-} in
  demo)
    install_packages "${DEMO_PACKAGES[@]}"
    install_requirements demo
    ;;
  test)
    install_packages "${DEMO_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
    install_requirements demo
    install_requirements test
    if command -v nvcc >/dev/null && [[ -z ${NIBBLE_CUTLASS_DIR:-} ]]; then
      fetch_cutlass
    fi
    ;;
  bench)
    install_packages "${DEMO_PACKAGES[@]}" "${BENCH_PACKAGES[@]}"
    install_requirements demo
    ;;
  *)
    fail "usage: tools/setup.sh demo|test|bench"
    ;;
esac
