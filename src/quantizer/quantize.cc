#include "nibble/quantize.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <future>
#include <limits>
#include <utility>

#include "base/check.h"
#include "checkpoint/convention.h"
#include "quantizer/destination.h"
#include "quantizer/plan.h"
#include "quantizer/weight_quantizer.h"

namespace nibble {
namespace {

// Writes one weight while the next is quantized: never more than one, so that two buffers are
// enough.
class BackgroundWriter {
 public:
  template <class Fn>
  void start(Fn fn) {
    wait();
    pending_ = std::async(std::launch::async, std::move(fn));
  }
  void wait() {
    if (pending_.valid()) pending_.get();
  }

 private:
  std::future<void> pending_;
};

double relative(const SquaredErrors& e) { return e.norm > 0 ? std::sqrt(e.error / e.norm) : 0.0; }

double decibels(double relative_error) {
  return relative_error > 0 ? -20.0 * std::log10(relative_error)
                            : std::numeric_limits<double>::infinity();
}

class Job {
 public:
  Job(const Checkpoint& source, const QuantizePlan& plan, const QuantizeOptions& options,
      const Device& device, CheckpointWriter& writer, const QuantizeProgressFn& progress)
      : source_(source),
        plan_(plan),
        options_(options),
        writer_(writer),
        progress_(progress),
        quantizer_(options, device) {}

  QuantizeReport run() {
    // Copying only waits for memory and disk, so it goes along beside the arithmetic.
    auto copies = std::async(std::launch::async, [&] { copy_tensors(); });
    try {
      for (const auto& group : plan_.groups) quantize_group(group);
      background_.wait();
    } catch (...) {
      stop_ = true;
      throw;
    }
    copies.get();
    report_progress(plan_.copied.empty() ? "" : plan_.copied.back());
    auto& tensors = report_.tensors;
    std::sort(tensors.begin(), tensors.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    report_.relative_error = relative(total_);
    report_.snr_db = decibels(report_.relative_error);
    return std::move(report_);
  }

 private:
  SourceWeight view(const QuantizePlan::Weight& w) const {
    return {source_.bytes(w.tensor), w.dtype, w.n, w.k};
  }

  void copy_tensors() {
    for (const std::string& name : plan_.copied) {
      if (stop_) return;
      const auto bytes = source_.bytes(name);
      writer_.write(name, bytes);
      source_.release(name);
      done_bytes_ += static_cast<int64_t>(bytes.size());
    }
  }

  void quantize_group(const QuantizePlan::Group& group) {
    float amax = 0.0f;
    const WeightFormat format = group.weights.front().format;
    if (format == WeightFormat::kNvfp4) {
      for (const auto& w : group.weights) {
        const float own = quantizer_.amax(view(w));
        NIBBLE_CHECK(std::isfinite(own), ErrorCode::kCheckpoint, "{}: tensor {} holds NaN or Inf",
                     source_.dir().string(), w.tensor);
        amax = std::max(amax, own);
        // Read again below, from the page cache; mapped together, a group could be too large.
        if (group.weights.size() > 1) source_.release(w.tensor);
      }
    }
    const float scale = quantizer_.global_decode_scale(format, amax);
    for (const auto& w : group.weights) {
      quantize_weight(w, scale);
      report_progress(w.tensor);
    }
  }

  void quantize_weight(const QuantizePlan::Weight& w, float scale) {
    std::vector<uint8_t>& buffer = buffers_[next_buffer_++ % 2];
    const bool fp4 = is_fp4(w.format);
    const int64_t scale_bytes = w.n * (fp4 ? w.k / block_size(w.format) : int64_t{sizeof(float)});
    buffer.resize(static_cast<size_t>(scale_bytes + w.n * row_bytes(w.format, w.k)));
    // Scales first, where they are aligned.
    uint8_t* const codes = buffer.data() + scale_bytes;
    uint8_t* const scales = fp4 ? buffer.data() : nullptr;
    float* const row_scales = fp4 ? nullptr : reinterpret_cast<float*>(buffer.data());
    const auto errors = quantizer_.quantize(view(w), {w.format, scale, codes, scales, row_scales});
    NIBBLE_CHECK(std::isfinite(errors.error), ErrorCode::kCheckpoint,
                 "{}: tensor {} holds NaN or Inf", source_.dir().string(), w.tensor);
    if (!w.copied) done_bytes_ += static_cast<int64_t>(source_.bytes(w.tensor).size());
    source_.release(w.tensor);
    total_ += errors;
    const double error = relative(errors);
    report_.tensors.push_back({w.module, w.n, w.k, w.format, scale, error, decibels(error)});

    WeightTensor weight;
    weight.name = w.module;
    weight.format = w.format;
    weight.n = w.n;
    weight.k = w.k;
    weight.codes = codes;
    weight.scales = scales;
    weight.row_scales = row_scales;
    if (w.format == WeightFormat::kNvfp4) weight.segments = {{0, scale}};
    background_.start(
        [this, weight] { write_linear(writer_, weight.name, weight, options_.convention); });
  }

  void report_progress(std::string_view tensor) {
    if (progress_) progress_({done_bytes_, plan_.bytes_in, tensor});
  }

  const Checkpoint& source_;
  const QuantizePlan& plan_;
  const QuantizeOptions& options_;
  CheckpointWriter& writer_;
  const QuantizeProgressFn& progress_;
  WeightQuantizer quantizer_;
  QuantizeReport report_;
  SquaredErrors total_;
  std::vector<uint8_t> buffers_[2];
  size_t next_buffer_ = 0;
  std::atomic<int64_t> done_bytes_{0};
  std::atomic<bool> stop_{false};
  BackgroundWriter background_;  // last, so that it ends before the buffers do
};

void check_options(const QuantizeOptions& o) {
  constexpr auto kBad = ErrorCode::kInvalidArgument;
  NIBBLE_CHECK(is_fp4(o.format), kBad, "quantize: format must be nvfp4 or mxfp4, found {}",
               to_string(o.format));
  NIBBLE_CHECK(o.method != QuantizeMethod::kFourOverSix || o.format == WeightFormat::kNvfp4, kBad,
               "quantize: method four-over-six is for nvfp4, found {}", to_string(o.format));
  NIBBLE_CHECK(o.max_shard_bytes > 0, kBad, "quantize: max_shard_bytes must be positive, found {}",
               o.max_shard_bytes);
}

}  // namespace

QuantizeReport quantize_checkpoint(const std::filesystem::path& src,
                                   const std::filesystem::path& dst, const QuantizeOptions& options,
                                   const Device& device, const QuantizeProgressFn& progress) {
  const auto start = std::chrono::steady_clock::now();
  check_options(options);
  const Checkpoint source = Checkpoint::open(src);
  const QuantizePlan plan = plan_quantization(source, options);
  const Destination destination(src, dst, options.overwrite);
  CheckpointWriter writer(destination.target(), plan.outputs, options.max_shard_bytes);
  QuantizeReport report = Job(source, plan, options, device, writer, progress).run();
  ExportConfig config{.convention = options.convention,
                      .format = options.format,
                      .lm_head = plan.lm_head,
                      .ignore = plan.unquantized};
  for (const QuantizedTensor& t : report.tensors) config.quantized.push_back(t.name);
  write_configs(writer, source, config);
  writer.finish();
  destination.commit();
  report.unquantized = plan.unquantized;
  report.bytes_in = plan.bytes_in;
  report.bytes_out = writer.total_bytes();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace nibble
