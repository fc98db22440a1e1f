// What roundtrip_test.py asks of the library:
//   checkpoint_driver dump DIR OUT               every module's weight as "name n k input\n" +
//   fp32s checkpoint_driver convert DIR DST CONVENTION every quantized module, in that convention
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/convention.h"
#include "checkpoint/writer.h"
#include "formats/e2m1.h"
#include "formats/e4m3.h"
#include "formats/ue8m0.h"
#include "nibble/error.h"

namespace {

using namespace nibble;

float value_at(const WeightTensor& w, int64_t row, int64_t col) {
  const int64_t at = row * w.k + col;
  if (w.format == WeightFormat::kF8) return e4m3_to_float(w.codes[at]) * w.row_scales[row];
  const uint8_t pair = w.codes[at / 2];
  const float code = e2m1_to_float(static_cast<uint8_t>(col % 2 == 0 ? pair & 15 : pair >> 4));
  const uint8_t scale = w.scales[at / block_size(w.format)];
  if (w.format == WeightFormat::kMxfp4) return code * ue8m0_to_float(scale);
  return code * e4m3_to_float(scale) * w.segments[0].global_decode_scale;
}

void dump(const Checkpoint& checkpoint, const std::string& out) {
  std::ofstream file(out, std::ios::binary);
  for (const ModuleSummary& module : checkpoint.modules()) {
    if (module.scheme.empty()) continue;
    const WeightTensor w = checkpoint.linear(module.name);
    char line[256];
    std::snprintf(line, sizeof line, "%s %lld %lld %a\n", w.name.c_str(),
                  static_cast<long long>(w.n), static_cast<long long>(w.k),
                  static_cast<double>(w.input_decode_scale));
    file << line;
    std::vector<float> values;
    for (int64_t row = 0; row < w.n; ++row) {
      for (int64_t col = 0; col < w.k; ++col) values.push_back(value_at(w, row, col));
    }
    file.write(reinterpret_cast<const char*>(values.data()),
               static_cast<std::streamsize>(values.size() * sizeof(float)));
  }
}

void convert(const Checkpoint& checkpoint, const std::string& dst, Convention convention) {
  ExportConfig config{.convention = convention};
  std::vector<OutputTensor> plan;
  std::vector<WeightTensor> weights;
  for (const ModuleSummary& module : checkpoint.modules()) {
    if (module.scheme.empty()) {
      config.ignore.push_back(module.name);
      continue;
    }
    const WeightTensor w = checkpoint.linear(module.name);
    config.format = w.format;
    config.static_input_scale = w.input_decode_scale != 0;
    for (OutputTensor& t :
         linear_tensors(w.name, w.format, w.n, w.k, convention, config.static_input_scale)) {
      plan.push_back(std::move(t));
    }
    weights.push_back(w);
  }
  CheckpointWriter writer(dst, std::move(plan), 1024);  // several shards
  for (const WeightTensor& w : weights) write_linear(writer, w.name, w, convention);
  write_configs(writer, checkpoint, config);
  writer.finish();
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  try {
    const Checkpoint checkpoint = Checkpoint::open(args.at(1));
    if (args.at(0) == "dump") {
      dump(checkpoint, args.at(2));
    } else {
      convert(checkpoint, args.at(2),
              args.at(3) == "modelopt" ? Convention::kModelOpt : Convention::kCompressedTensors);
    }
  } catch (const Error& e) {
    std::cerr << to_string(e.code()) << ": " << e.what() << "\n";
    return 1;
  }
  return 0;
}
