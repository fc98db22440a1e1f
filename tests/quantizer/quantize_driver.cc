// Quantizes for requantize_test.py and for measurements:
// quantize_driver SRC DST nvfp4|mxfp4 modelopt|compressed-tensors rtn|mse|four-over-six
//                 default|none|fp8|nvfp4 [overwrite]
#include <sys/resource.h>

#include <cstdio>
#include <string>

#include "nibble/error.h"
#include "nibble/quantize.h"

int main(int argc, char** argv) {
  using namespace nibble;
  if (argc < 7) return 2;
  const std::string format = argv[3], convention = argv[4], method = argv[5], lm_head = argv[6];
  QuantizeOptions options;
  options.format = format == "mxfp4" ? WeightFormat::kMxfp4 : WeightFormat::kNvfp4;
  options.convention =
      convention == "modelopt" ? Convention::kModelOpt : Convention::kCompressedTensors;
  options.method = method == "mse"             ? QuantizeMethod::kMse
                   : method == "four-over-six" ? QuantizeMethod::kFourOverSix
                                               : QuantizeMethod::kRtn;
  options.lm_head = lm_head == "fp8"     ? LmHead::kFp8
                    : lm_head == "nvfp4" ? LmHead::kNvfp4
                    : lm_head == "none"  ? LmHead::kKeep
                                         : LmHead::kDefault;
  options.overwrite = argc > 7;
  try {
    const QuantizeReport report = quantize_checkpoint(argv[1], argv[2], options, Device::cpu());
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    std::printf(
        "{\"tensors\": %zu, \"relative_error\": %.6f, \"snr_db\": %.3f, \"bytes_in\": %lld, "
        "\"bytes_out\": %lld, \"seconds\": %.3f, \"max_rss_kib\": %ld}\n",
        report.tensors.size(), report.relative_error, report.snr_db,
        static_cast<long long>(report.bytes_in), static_cast<long long>(report.bytes_out),
        report.seconds, usage.ru_maxrss);
  } catch (const Error& e) {
    std::fprintf(stderr, "%s: %s\n", to_string(e.code()), e.what());
    return 1;
  }
}
