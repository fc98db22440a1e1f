#include "checkpoint/linear.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "formats/e4m3.h"
#include "formats/float16.h"
#include "formats/ue8m0.h"

namespace nibble {
namespace {

std::string file_of(const StoredTensor& tensor) { return tensor.file->path().string(); }

class LinearReader {
 public:
  LinearReader(const WeightSource& source, std::string_view module, std::optional<int64_t> expert)
      : files_(source.files),
        module_(module),
        stored_(find_weight(source, module)),
        expert_(expert) {}

  WeightTensor read(std::shared_ptr<const void> owner) {
    const StoredTensor& weight = *stored_.weight;
    if (expert_) {
      NIBBLE_CHECK(*expert_ >= 0 && *expert_ < stored_.experts(), ErrorCode::kInvalidArgument,
                   "{}: expert {} of {}, which has shape {}", file_of(weight), *expert_,
                   weight.name, shape_string(weight.shape));
    } else {
      NIBBLE_CHECK(stored_.experts() == 0, ErrorCode::kInvalidArgument,
                   "{}: tensor {} has shape {}, a stack of experts; expected a matrix",
                   file_of(weight), weight.name, shape_string(weight.shape));
    }
    WeightTensor result;
    result.name = module_;
    result.format = stored_.format;
    result.n = stored_.n();
    result.k = stored_.k();
    NIBBLE_CHECK(result.n > 0 && result.k > 0, ErrorCode::kCheckpoint,
                 "{}: tensor {} has shape {}: no elements", file_of(weight), weight.name,
                 shape_string(weight.shape));
    result.codes = slice(weight);
    result.owner = std::move(owner);
    refuse_extra_steps();
    if (is_fp4(result.format)) read_block_scales(result);
    if (result.format == WeightFormat::kNvfp4) read_global_scales(result);
    if (result.format == WeightFormat::kF8) read_row_scales(result);
    return result;
  }

 private:
  const StoredTensor* find(std::string_view suffix) const {
    return files_.find(fmt::format("{}.{}", module_, suffix));
  }

  const StoredTensor& get(std::string_view suffix) const {
    const StoredTensor* tensor = find(suffix);
    NIBBLE_CHECK(tensor, ErrorCode::kCheckpoint, "{}: tensor {}.{} is missing, expected by {} ({})",
                 file_of(*stored_.weight), module_, suffix, stored_.weight->name,
                 stored_.scheme->name);
    return *tensor;
  }

  const uint8_t* slice(const StoredTensor& tensor) const {
    const size_t bytes = tensor.data.size();
    if (!expert_) return tensor.data.data();
    const size_t each = bytes / static_cast<size_t>(stored_.experts());
    return tensor.data.data() + each * static_cast<size_t>(*expert_);
  }

  // Steps that a WeightTensor has no place for; leaving them out would give wrong results.
  void refuse_extra_steps() const {
    for (const char* suffix : {"pre_quant_scale", "svdquant_lora_a", "svdquant_lora_b"}) {
      const StoredTensor* tensor = find(suffix);
      NIBBLE_CHECK(!tensor, ErrorCode::kUnsupported,
                   "{}: tensor {}: {} weights with a {} are not supported", file_of(*tensor),
                   tensor->name, stored_.scheme ? stored_.scheme->name : "plain", suffix);
    }
  }

  void read_block_scales(WeightTensor& result) const {
    const bool nvfp4 = result.format == WeightFormat::kNvfp4;
    const int64_t block = block_size(result.format);
    NIBBLE_CHECK(result.k % block == 0, ErrorCode::kCheckpoint,
                 "{}: tensor {} has k = {}, expected a multiple of {} for {}",
                 file_of(*stored_.weight), stored_.weight->name, result.k, block,
                 to_string(result.format));
    const StoredTensor& scales = get("weight_scale");
    const DType dtype = nvfp4 ? DType::kF8E4M3 : DType::kU8;
    NIBBLE_CHECK(scales.dtype == dtype, ErrorCode::kCheckpoint,
                 "{}: tensor {} has dtype {}, expected {} for {}", file_of(scales), scales.name,
                 to_string(scales.dtype), to_string(dtype), stored_.scheme->name);
    std::vector<int64_t> shape = stored_.weight->shape;
    shape.back() = result.k / block;
    NIBBLE_CHECK(scales.shape == shape, ErrorCode::kCheckpoint,
                 "{}: tensor {} has shape {}, expected {}", file_of(scales), scales.name,
                 shape_string(scales.shape), shape_string(shape));
    result.scales = slice(scales);
    // e4m3: 0x7F is NaN, all above have the sign. ue8m0: 0xFF is NaN, there is no sign.
    const uint8_t first_bad = nvfp4 ? kE4m3Nan : kUe8m0Nan;
    const int64_t count = result.n * shape.back();
    uint8_t largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, result.scales[i]);
    if (largest < first_bad) return;
    const int64_t at = std::find_if(result.scales, result.scales + count,
                                    [&](uint8_t b) { return b >= first_bad; }) -
                       result.scales;
    const uint8_t bad = result.scales[at];
    const bool nan = !nvfp4 || (bad & 0x7F) == kE4m3Nan;
    fail(ErrorCode::kCheckpoint, "{}: tensor {} has a {} scale (0x{:02X}) at row {}, block {}",
         file_of(scales), scales.name, nan ? "NaN" : "negative", bad, at / shape.back(),
         at % shape.back());
  }

  void read_global_scales(WeightTensor& result) const {
    const bool divisors = stored_.compressed_names;
    const auto decode = [&](const char* suffix) {
      const float stored = scalar(suffix);
      const float value = divisors ? 1.0f / stored : stored;
      NIBBLE_CHECK(std::isfinite(value) && value > 0, ErrorCode::kCheckpoint,
                   "{}: tensor {} is {}, expected a positive number", file_of(get(suffix)),
                   get(suffix).name, stored);
      return value;
    };
    result.segments = {{0, decode(divisors ? "weight_global_scale" : "weight_scale_2")}};
    if (stored_.scheme->static_input) {
      result.input_decode_scale = decode(divisors ? "input_global_scale" : "input_scale");
    }
  }

  // [], [1], or one number per expert.
  float scalar(const char* suffix) const {
    const StoredTensor& tensor = get(suffix);
    const int64_t count = tensor.numel();
    NIBBLE_CHECK(count == 1 || (expert_ && count == stored_.experts()), ErrorCode::kCheckpoint,
                 "{}: tensor {} has shape {}, expected one number", file_of(tensor), tensor.name,
                 shape_string(tensor.shape));
    const auto values = widen(tensor);
    return count == 1 ? values[0] : values[static_cast<size_t>(*expert_)];
  }

  // One number per tensor or one per row.
  void read_row_scales(WeightTensor& result) const {
    const StoredTensor& scales = get("weight_scale");
    const auto values = widen(scales);
    const auto n = static_cast<size_t>(result.n);
    const auto experts = static_cast<size_t>(std::max<int64_t>(stored_.experts(), 1));
    const bool per_row = values.size() == n * experts;
    NIBBLE_CHECK(per_row || values.size() == 1 || values.size() == experts, ErrorCode::kCheckpoint,
                 "{}: tensor {} has shape {}, expected one scale or one for each of the {} rows of "
                 "{}",
                 file_of(scales), scales.name, shape_string(scales.shape), n, stored_.weight->name);
    struct Kept {
      std::shared_ptr<const void> mapping;
      std::vector<float> row_scales;
    };
    auto kept = std::make_shared<Kept>();
    const auto expert = static_cast<size_t>(expert_.value_or(0));
    kept->mapping = std::move(result.owner);
    kept->row_scales.resize(n);
    for (size_t row = 0; row < n; ++row) {
      const size_t at = per_row ? expert * n + row : values.size() == 1 ? 0 : expert;
      NIBBLE_CHECK(std::isfinite(values[at]) && values[at] >= 0, ErrorCode::kCheckpoint,
                   "{}: tensor {} has the scale {} at {}, expected a positive number",
                   file_of(scales), scales.name, values[at], at);
      kept->row_scales[row] = values[at];
    }
    result.row_scales = kept->row_scales.data();
    result.owner = std::move(kept);
  }

  const TensorFiles& files_;
  std::string module_;
  StoredWeight stored_;
  std::optional<int64_t> expert_;
};

}  // namespace

StoredWeight find_weight(const WeightSource& source, std::string_view module) {
  const StoredTensor* plain = source.files.find(fmt::format("{}.weight", module));
  const StoredTensor* packed = source.files.find(fmt::format("{}.weight_packed", module));
  NIBBLE_CHECK(plain || packed, ErrorCode::kCheckpoint, "tensor {}.weight is missing", module);
  const StoredTensor& weight = packed ? *packed : *plain;
  NIBBLE_CHECK(!plain || !packed, ErrorCode::kCheckpoint,
               "{}: both {}.weight and {}.weight_packed are there", file_of(weight), module,
               module);
  NIBBLE_CHECK(weight.shape.size() == 2 || weight.shape.size() == 3, ErrorCode::kCheckpoint,
               "{}: tensor {} has shape {}, expected a matrix", file_of(weight), weight.name,
               shape_string(weight.shape));

  StoredWeight stored{&weight, WeightFormat::kF32, source.config.find(module), packed != nullptr};
  const bool is_float =
      weight.dtype == DType::kF32 || weight.dtype == DType::kF16 || weight.dtype == DType::kBF16;
  if (is_float && plain) {
    stored.format = weight.dtype == DType::kF32   ? WeightFormat::kF32
                    : weight.dtype == DType::kF16 ? WeightFormat::kF16
                                                  : WeightFormat::kBF16;
    NIBBLE_CHECK(!stored.scheme || source.config.may_be_plain(module), ErrorCode::kCheckpoint,
                 "{}: tensor {} is {}, but the config says {} and does not ignore it",
                 file_of(weight), weight.name, to_string(weight.dtype), stored.scheme->name);
    stored.scheme = nullptr;
    return stored;
  }
  NIBBLE_CHECK(stored.scheme, ErrorCode::kCheckpoint,
               "{}: tensor {} is {}, but the config says that this module is not quantized",
               file_of(weight), weight.name, to_string(weight.dtype));
  stored.format = stored.scheme->format;
  const DType expected = is_fp4(stored.format) ? DType::kU8 : DType::kF8E4M3;
  NIBBLE_CHECK(weight.dtype == expected, ErrorCode::kCheckpoint,
               "{}: tensor {} has dtype {}, expected {} for {}", file_of(weight), weight.name,
               to_string(weight.dtype), to_string(expected), stored.scheme->name);
  NIBBLE_CHECK(weight.shape.back() <= INT64_MAX / 2, ErrorCode::kCheckpoint,
               "{}: tensor {} has shape {}", file_of(weight), weight.name,
               shape_string(weight.shape));
  return stored;
}

WeightTensor read_linear(const WeightSource& source, std::string_view module,
                         std::optional<int64_t> expert, std::shared_ptr<const void> owner) {
  return LinearReader(source, module, expert).read(std::move(owner));
}

std::vector<float> widen(const StoredTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.numel()));
  if (values.empty()) return values;
  const uint8_t* from = tensor.data.data();  // at any alignment
  if (tensor.dtype == DType::kF32) {
    std::memcpy(values.data(), from, tensor.data.size());
    return values;
  }
  NIBBLE_CHECK(tensor.dtype == DType::kBF16 || tensor.dtype == DType::kF16, ErrorCode::kCheckpoint,
               "{}: tensor {} has dtype {}, expected F32, BF16 or F16", file_of(tensor),
               tensor.name, to_string(tensor.dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, from + 2 * i, 2);
    values[i] = tensor.dtype == DType::kBF16 ? bf16_to_float(bits) : fp16_to_float(bits);
  }
  return values;
}

}  // namespace nibble
