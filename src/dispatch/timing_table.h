// Published timings of GEMMs that others ran: a CSV with the columns device, n, k, m, backend and
// tflops, in any order, other columns ignored.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// D [m, n] = A [m, k] * B [n, k]^T by one backend of one device.
struct Timing {
  std::string device;
  std::string backend;
  std::string kernel;  // what runs under the backend's name; see kernel_name()
  int64_t n = 0;
  int64_t k = 0;
  int64_t m = 0;
  double tflops = 0;
  std::string where;  // "FILE:LINE"

  double us() const;  // 2 m n k / tflops
};

// TensorRT-LLM's kernels for scales in tiles of 8 x 4 take over up to this many rows. A table that
// does not list them apart counts them under "trtllm"; fitting one curve through two kernels put
// the step between them where it is not, and lost twice as much over the shapes left out.
inline constexpr int64_t kTrtllmSmallRows = 32;
inline constexpr const char* kTrtllm = "trtllm";
inline constexpr const char* kTrtllmSmall = "trtllm_8x4";

// What runs as `backend` at m rows. `small_apart`: "trtllm_8x4" is listed by that name beside it.
std::string_view kernel_name(std::string_view backend, int64_t m, bool small_apart);

// Not an FP4 backend: it is measured for comparison and never chosen, so read_timings drops it.
inline constexpr const char* kBaselineBackend = "torch-bf16";

// Throws kIo where the file can't be read, kInvalidArgument (naming file, line, what was expected
// and what was found) where a column is missing, a field is not a positive number, a row appears
// twice, or there is no row of an FP4 backend.
std::vector<Timing> read_timings(const std::filesystem::path& path);

// The same for a text; `name` stands for the file in messages.
std::vector<Timing> parse_timings(std::string_view text, const std::string& name);

// Throws kInvalidArgument where two of the timings are of the same thing.
void check_unique(const std::vector<Timing>& timings);

}  // namespace nibble
