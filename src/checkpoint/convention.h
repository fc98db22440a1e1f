// How a quantized model is written: tensor names, scale directions and configs of the two
// conventions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/writer.h"
#include "nibble/types.h"
#include "nibble/weight.h"

namespace nibble {

// The tensors that a quantized [n, k] weight of `module` is written as. `format` is kNvfp4, kMxfp4
// or kF8 with a scale for each row. With static_input_scale (kNvfp4 only) the activation scale is
// among them.
std::vector<OutputTensor> linear_tensors(std::string_view module, WeightFormat format, int64_t n,
                                         int64_t k, Convention convention,
                                         bool static_input_scale = false);

// Writes those tensors. A kNvfp4 weight has one segment. Its global scale survives exactly in both
// conventions if it is the fp32 reciprocal of an fp32 number, as a quantizer's 1 / (2688 / amax)
// is. `weight` may be a part of the module's rows, from first_row on; the part with row 0 writes
// what there is one of. Thread-safe.
void write_linear(CheckpointWriter& writer, std::string_view module, const WeightTensor& weight,
                  Convention convention, int64_t first_row = 0);

struct ExportConfig {
  Convention convention = Convention::kModelOpt;
  WeightFormat format = WeightFormat::kNvfp4;
  // The lm_head's own format; nothing: it is as `ignore` says. It is then stored apart from a tied
  // embedding, so the config ends the tie.
  std::optional<WeightFormat> lm_head = {};
  std::vector<std::string> quantized = {};  // full names; needed where lm_head differs from format
  std::vector<std::string> ignore = {};     // full names of the linear modules left unquantized
  bool static_input_scale = false;          // false: weight-only or activations scaled at run time
};

// Writes config.json with its quantization_config (and hf_quant_config.json for ModelOpt) and
// copies the source's other small files: tokenizer, chat template, generation config.
void write_configs(CheckpointWriter& writer, const Checkpoint& source, const ExportConfig& config);

}  // namespace nibble
