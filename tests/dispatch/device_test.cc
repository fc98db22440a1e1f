#include "nibble/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "dispatch/ops.h"
#include "dispatch/tables.h"
#include "nibble/error.h"
#include "nibble/log.h"

namespace nibble {
namespace {

using testing::HasSubstr;

std::string error_of(std::string_view force_impl) {
  try {
    Device::cpu(1, force_impl);
    return "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
    return e.what();
  }
}

// Runs a norm of one element and returns the trace.
std::string trace_of_norm(const Device& device) {
  std::string trace;
  set_log_sink([&](LogLevel, std::string_view message) { trace += message; });
  float x = 3, weight = 2, y = 0;
  rms_norm({.desc = {.rows = 1, .cols = 1},
            .x = {&x, DType::kF32, 1, 1, 1},
            .weight = &weight,
            .eps = 0,
            .y = {&y, DType::kF32, 1, 1, 1}},
           device);
  set_log_sink({});
  EXPECT_FLOAT_EQ(y, 2);
  return trace;
}

TEST(Device, EveryTableEndsWithTheReference) {
  for (const OpTable& table : op_tables()) {
    ASSERT_FALSE(table.impls.empty()) << table.op;
    EXPECT_EQ(table.impls.back(), "ref_" + std::string(table.op));
  }
}

// This many devices no machine has: with and without CUDA, with and without a driver, it is
// refused.
TEST(Device, ACudaDeviceThatIsNotThereIsATypedError) {
  try {
    Device::cuda(1 << 20);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kDevice);
    EXPECT_THAT(e.what(), HasSubstr("no CUDA device"));
  }
}

TEST(Device, OutgrownWorkspaceStaysValid) {
  const Device device = Device::cpu(1);
  EXPECT_EQ(device.workspace(), nullptr);
  device.reserve_workspace(100);
  auto* first = static_cast<uint8_t*>(device.workspace());
  first[99] = 7;
  device.reserve_workspace(100'000);
  auto* second = static_cast<uint8_t*>(device.workspace());
  EXPECT_NE(first, second);
  second[99'999] = 1;
  EXPECT_EQ(first[99], 7);
  device.reserve_workspace(1000);
  EXPECT_EQ(device.workspace(), second);
}

TEST(ForceImpl, Bites) {
  EXPECT_THAT(trace_of_norm(Device::cpu(1)), testing::Not(HasSubstr("ref_rms_norm")));
  EXPECT_THAT(trace_of_norm(Device::cpu(1, "rms_norm=ref_rms_norm")),
              HasSubstr("rms_norm rows=1 cols=1 f32: ref_rms_norm"));
}

TEST(ForceImpl, ComesFromTheEnvironment) {
  ::setenv("NIBBLE_FORCE_IMPL", "gemm=ref_gemm,rms_norm=ref_rms_norm", 1);
  const Device device = Device::cpu(1);
  ::unsetenv("NIBBLE_FORCE_IMPL");
  EXPECT_EQ(device.forced_impl("gemm"), "ref_gemm");
  EXPECT_EQ(device.forced_impl("rms_norm"), "ref_rms_norm");
  EXPECT_EQ(device.forced_impl("rope"), "");
}

TEST(ForceImpl, UnknownNamesAreErrorsThatListTheKnownOnes) {
  EXPECT_THAT(error_of("gemm=doesnotexist"),
              testing::AllOf(HasSubstr("'doesnotexist' of gemm"), HasSubstr("ref_gemm")));
  EXPECT_THAT(error_of("conv=ref_conv"),
              testing::AllOf(HasSubstr("unknown op 'conv'"), HasSubstr("rms_norm")));
  EXPECT_THAT(error_of("gemm"), HasSubstr("expected op=name"));
}

TEST(ForceImpl, UnfitIsAnErrorWithTheReason) {
  const Device device = Device::cpu(1, "rms_norm=cpu_portable_rms_norm");
  uint16_t x = 0;
  float weight = 1;
  try {
    rms_norm({.desc = {.rows = 1, .cols = 1, .type = DType::kBF16},
              .x = {&x, DType::kBF16, 1, 1, 1},
              .weight = &weight,
              .eps = 0,
              .y = {&x, DType::kBF16, 1, 1, 1}},
             device);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(e.what(), HasSubstr("cpu_portable_rms_norm: activations must be F32, found BF16"));
  }
}

TEST(Validate, NamesTheArgument) {
  const Device device = Device::cpu(1);
  float x[4] = {};
  const auto error = [&](RmsNormArgs args) -> std::string {
    try {
      rms_norm(args, device);
      return "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      return e.what();
    }
  };
  const RmsNormArgs good = {.desc = {.rows = 2, .cols = 2},
                            .x = {x, DType::kF32, 2, 2, 2},
                            .weight = x,
                            .eps = 0,
                            .y = {x, DType::kF32, 2, 2, 2}};
  EXPECT_EQ(error(good), "no error");
  RmsNormArgs bad = good;
  bad.weight = nullptr;
  EXPECT_EQ(error(bad), "rms_norm: weight is null");
  bad = good;
  bad.x.cols = 3;
  EXPECT_EQ(error(bad), "rms_norm: x must be [2, 2], found [2, 3]");
  bad = good;
  bad.y.stride = 1;
  EXPECT_EQ(error(bad), "rms_norm: y has rows 1 elements apart, expected at least 2");
  bad = good;
  bad.desc.rows = 0;
  EXPECT_EQ(error(bad), "rms_norm: rows must be 1 .. 2147483647, found 0");
}

}  // namespace
}  // namespace nibble
