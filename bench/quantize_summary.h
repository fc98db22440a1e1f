// The table of docs/quantize.md, of what bench_cuda_quantize timed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>

namespace nibble::bench {

// The first `plain_sizes` rows by their number of elements, geometric means; then each of the
// others that has 65536 rows, with its k where that is not `usual_k`.
nlohmann::ordered_json quantize_summary(const nlohmann::ordered_json& rows, size_t plain_sizes,
                                        int64_t usual_k);

}  // namespace nibble::bench
