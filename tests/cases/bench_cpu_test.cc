#include <gtest/gtest.h>

#include <map>
#include <string>

#include "nibble/bench.h"

namespace nibble {
namespace {

TEST(BenchCpu, RowsAgreeWithTheirTimesAndShares) {
  const Device device = Device::cpu(2);
  std::map<std::string, BenchRow> rows;
  bench_cpu(device, {.prompt = 16, .rotated_bytes = size_t{4} << 20}, [&](const BenchRow& row) {
    EXPECT_LE(row.fastest, row.seconds) << row.desc;
    EXPECT_LE(row.seconds, row.slowest) << row.desc;
    EXPECT_TRUE(rows.emplace(row.op + " " + row.desc, row).second) << row.desc;
  });
  const BenchRow& plain = rows.at("read plain pages");
  const BenchRow& huge = rows.at("read huge pages");
  for (const char* format : {"nvfp4", "mxfp4", "fp8"}) {
    const BenchRow& decode = rows.at(std::string("decode ") + format + " m=1");
    const BenchRow& prompt = rows.at(std::string("prompt ") + format + " m=16");
    EXPECT_EQ(decode.unit, "GB/s");
    EXPECT_DOUBLE_EQ(decode.rate, decode.bytes / decode.seconds / 1e9);
    EXPECT_DOUBLE_EQ(decode.share, decode.rate / plain.rate);
    EXPECT_DOUBLE_EQ(decode.share_of_huge, decode.rate / huge.rate);
    EXPECT_EQ(prompt.unit, "GMAC/s");
    // 3,538,944 weights a layer, 16 rows.
    EXPECT_DOUBLE_EQ(prompt.rate, 3'538'944.0 * 16 / prompt.seconds / 1e9);
    EXPECT_EQ(prompt.share, 0.0);
    EXPECT_FALSE(decode.impl.empty());
    EXPECT_FALSE(decode.impl.starts_with("ref_"));
  }
  EXPECT_EQ(rows.at("null nvfp4 m=1").bytes, rows.at("decode nvfp4 m=1").bytes);
  EXPECT_EQ(rows.at("null nvfp4 m=1").impl, rows.at("decode nvfp4 m=1").impl);
  for (const char* what : {"nvfp4 rtn", "nvfp4 mse", "mxfp4 rtn"}) {
    EXPECT_EQ(rows.at(std::string("quantize bf16 to ") + what).bytes, 1024.0 * 4096 * 2);
  }
  EXPECT_EQ(rows.size(), 12u);
}

}  // namespace
}  // namespace nibble
