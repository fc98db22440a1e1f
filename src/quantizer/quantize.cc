#include "nibble/quantize.h"

#include <chrono>

#include "base/check.h"
#include "checkpoint/convention.h"
#include "quantizer/destination.h"
#include "quantizer/plan.h"
#include "quantizer/run.h"

namespace nibble {
namespace {

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
  QuantizeReport report = run_plan(source, plan, options, device, writer, progress);
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
