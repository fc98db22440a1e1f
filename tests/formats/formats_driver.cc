// Runs one format function over binary data from stdin and writes the results to stdout, for
// quantize_oracle_test.py.
//   cast e2m1|e4m3|bf16|fp16              floats -> one uint16 each
//   global SCALE_MAX                      floats (amax) -> encode scale, decode scale
//   nvfp4 rtn|mse|four-over-six DTYPE     a float (encode scale) and 16 elements per block ->
//                                         scale byte, 8 code bytes, 16 floats: dequantized with
//                                         global scale 0.3
//   mxfp4 ceil|floor|even|mse DTYPE       32 elements per block -> scale byte, 16 code bytes, 32
//                                         floats
// DTYPE is f32, bf16 or f16.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "formats/block_search.h"
#include "formats/float16.h"

namespace {

using namespace nibble;

std::vector<uint8_t> read_all() {
  std::vector<uint8_t> data;
  uint8_t buffer[1 << 16];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, stdin)) > 0;) {
    data.insert(data.end(), buffer, buffer + n);
  }
  return data;
}

void write(const void* data, size_t bytes) {
  if (std::fwrite(data, 1, bytes, stdout) != bytes) std::exit(3);
}

[[noreturn]] void usage() {
  std::fputs("formats_driver: see the head of formats_driver.cc\n", stderr);
  std::exit(2);
}

class Reader {
 public:
  explicit Reader(std::vector<uint8_t> data) : data_(std::move(data)) {}
  bool done() const { return at_ == data_.size(); }
  template <class T>
  T next() {
    T value;
    if (data_.size() - at_ < sizeof value) std::exit(4);
    std::memcpy(&value, data_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  float element(const std::string& dtype) {
    if (dtype == "f32") return next<float>();
    if (dtype == "bf16") return bf16_to_float(next<uint16_t>());
    if (dtype == "f16") return fp16_to_float(next<uint16_t>());
    usage();
  }

 private:
  std::vector<uint8_t> data_;
  size_t at_ = 0;
};

uint16_t cast(const std::string& type, float value) {
  if (type == "e2m1") return float_to_e2m1(value);
  if (type == "e4m3") return float_to_e4m3_satfinite(value);
  if (type == "bf16") return float_to_bf16(value);
  if (type == "fp16") return float_to_fp16(value);
  usage();
}

uint8_t quantize_nvfp4(const std::string& method, const float* x, float gs, uint8_t* codes) {
  if (method == "rtn") return quantize_nvfp4_block(x, gs, codes);
  if (method == "mse") return quantize_nvfp4_block_mse(x, gs, codes);
  if (method == "four-over-six") return quantize_nvfp4_block_four_over_six(x, gs, codes);
  usage();
}

uint8_t quantize_mxfp4(const std::string& method, const float* x, uint8_t* codes) {
  if (method == "ceil") return quantize_mxfp4_block(x, Mxfp4ScaleRule::kCeil, codes);
  if (method == "floor") return quantize_mxfp4_block(x, Mxfp4ScaleRule::kFloor, codes);
  if (method == "even") return quantize_mxfp4_block(x, Mxfp4ScaleRule::kEven, codes);
  if (method == "mse") return quantize_mxfp4_block_mse(x, codes);
  usage();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) usage();
  const std::string op = argv[1], kind = argv[2], dtype = argc > 3 ? argv[3] : "f32";
  Reader in(read_all());
  while (!in.done()) {
    if (op == "cast") {
      const uint16_t code = cast(kind, in.next<float>());
      write(&code, sizeof code);
    } else if (op == "global") {
      const float amax = in.next<float>(), scale_max = std::strtof(kind.c_str(), nullptr);
      const float scales[2] = {nvfp4_encode_scale(amax, scale_max),
                               nvfp4_decode_scale(amax, scale_max)};
      write(scales, sizeof scales);
    } else if (op == "nvfp4") {
      const float gs = in.next<float>();
      float x[kNvfp4BlockSize];
      for (float& v : x) v = in.element(dtype);
      uint8_t out[1 + kNvfp4BlockBytes];
      out[0] = quantize_nvfp4(kind, x, gs, out + 1);
      write(out, sizeof out);
      dequantize_nvfp4_block(out + 1, out[0], 0.3f, x);
      write(x, sizeof x);
    } else if (op == "mxfp4") {
      float x[kMxfp4BlockSize];
      for (float& v : x) v = in.element(dtype);
      uint8_t out[1 + kMxfp4BlockBytes];
      out[0] = quantize_mxfp4(kind, x, out + 1);
      write(out, sizeof out);
      dequantize_mxfp4_block(out + 1, out[0], x);
      write(x, sizeof x);
    } else {
      usage();
    }
  }
  return std::fflush(stdout) == 0 ? 0 : 3;
}
