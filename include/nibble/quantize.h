// Turning a checkpoint's linear weights into 4 bits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/device.h"
#include "nibble/types.h"

namespace nibble {

// What becomes of the output matrix, the lm_head: the largest one that every token reads whole.
// With tied embeddings it is stored apart once it is quantized, and the embedding stays as it was:
// that is what every engine reads, and a token looks up only one row of the embedding.
enum class LmHead : uint8_t {
  kDefault,  // kFp8 for tied embeddings, else kKeep
  kKeep,     // as the checkpoint has it
  kFp8,      // e4m3 with one scale a row, amax / 448
  kNvfp4,    // with QuantizeOptions::method, four-over-six included
};

struct QuantizeOptions {
  WeightFormat format = WeightFormat::kNvfp4;  // kNvfp4 or kMxfp4
  Convention convention = Convention::kModelOpt;
  QuantizeMethod method = QuantizeMethod::kRtn;
  Mxfp4ScaleRule scale_rule = Mxfp4ScaleRule::kCeil;  // kMxfp4 with kRtn

  LmHead lm_head = LmHead::kDefault;

  // Modules to leave as they are: shell globs on module paths ("model.layers.0.*", * crosses dots)
  // or "re:" and a regular expression that is matched from the path's start.
  std::vector<std::string> ignore = {};

  int64_t max_shard_bytes = 5'000'000'000;
  bool overwrite = false;  // replace DST, at once and as a whole, if it is a model folder
};

struct QuantizeProgress {
  int64_t done_bytes;   // of the source's tensors
  int64_t total_bytes;  // constant
  std::string_view tensor;
};
// Called by the thread that called quantize_checkpoint, after each tensor. What it throws ends the
// work, and nothing is left behind.
using QuantizeProgressFn = std::function<void(const QuantizeProgress&)>;

// How well one weight w [n, k] survived as q.
struct QuantizedTensor {
  std::string name;  // of the module: "model.layers.0.self_attn.q_proj"
  int64_t n = 0;
  int64_t k = 0;
  WeightFormat format = WeightFormat::kNvfp4;
  float global_decode_scale = 1.0f;  // multiplies; 1 for kMxfp4
  double relative_error = 0.0;       // ||w - q|| / ||w||; 0 for a weight of zeros
  double snr_db = 0.0;               // 20 log10 of its reciprocal; infinite where it is 0
};

struct QuantizeReport {
  std::vector<QuantizedTensor> tensors;  // in name order
  std::vector<std::string> unquantized;  // linear modules left as they are, in name order
  double relative_error = 0.0;           // over all quantized weights together
  double snr_db = 0.0;
  int64_t bytes_in = 0;   // of the source's tensors
  int64_t bytes_out = 0;  // of the written tensors
  double seconds = 0.0;
};

// Quantizes every matrix of the decoder layers, except routers, and the lm_head as its option says,
// and copies all other tensors (embeddings, norms, biases) byte for byte, with the tokenizer and
// other small files.
// Projections that are run as one (q|k|v, gate|up) share one global scale, that of their common
// amax.
//
// DST appears when everything is on disk: whatever stops this function or the process leaves no
// DST, or the DST that was there before. Memory, mapped pages of the source included, stays below
// three times the largest tensor plus 256 MiB.
//
// Throws kInvalidArgument if DST is not empty and may not be overwritten, if SRC lies in DST, for a
// combination of options that does not exist, for a pattern that is malformed or matches no module;
// kCheckpoint for a malformed source or weights that are NaN or Inf; kUnsupported, naming the
// module, for one that is quantized already, whose k is not a multiple of the block, or whose
// experts are one 3-D tensor (unless a pattern ignores it; a quantized one never is), and for an
// lm_head option where there is no output matrix; kIo for what the system refuses, a full disk
// among it.
QuantizeReport quantize_checkpoint(const std::filesystem::path& src,
                                   const std::filesystem::path& dst, const QuantizeOptions& options,
                                   const Device& device, const QuantizeProgressFn& progress = {});

}  // namespace nibble
