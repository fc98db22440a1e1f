# Sourced by the scripts beside it: where things are, and how they are said.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PYTHON=build/venv/bin/python
readonly PROGRAM=build/bin/nibble
readonly MODEL_BF16=build/demo/smollm2-bf16
readonly MODEL_NVFP4=build/demo/smollm2-nvfp4

# Object files are shared between clones (a CI run starts in a fresh one) and between the build
# folders: ccache then sees paths relative to the repository.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
# Progress lines such as [12/40] stay useful in a log, one line a step does not.
export NINJA_STATUS='[%f/%t %es] '

step() {
  printf '\n== %s\n' "$*"
}

# Configures a preset in its own folder (CMakePresets.json); ninja itself reruns cmake when a
# CMakeLists.txt changes.
configure() {
  local preset=$1 log=build/$1.configure.log
  shift
  cmake --preset "$preset" "$@" --log-level=WARNING >"$log" 2>&1 || {
    cat "$log" >&2
    return 1
  }
}
