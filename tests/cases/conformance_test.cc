// Every registered implementation of every op over tests/cases/*.txt: what `nibble selftest` runs.
// A new kernel is covered by its table line alone.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "cases/runner.h"
#include "nibble/selftest.h"

namespace nibble {
namespace {

class Conformance : public testing::TestWithParam<int> {};

TEST_P(Conformance, EveryImplementationAgreesWithItsReference) {
  std::map<std::string, int> passed;
  selftest(Device::cpu(GetParam()), "", [&](const CaseResult& r) {
    EXPECT_NE(r.status, CaseResult::Status::kFailed)
        << r.impl << "/" << r.case_id << ": " << r.detail << "\n  again: nibble selftest --filter "
        << r.impl << " --threads " << GetParam();
    if (r.status == CaseResult::Status::kPassed) ++passed[r.impl];
    EXPECT_EQ(r.detail.empty(), r.status == CaseResult::Status::kPassed) << r.impl;
  });
  for (const OpTable& table : op_tables()) {
    const std::string reference(table.impls.back());
    EXPECT_GT(passed[reference], 0) << reference << " ran no case";
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, Conformance, testing::Values(1, 3));

// The harness itself: a norm that is wrong in one way each must be found out.
struct BrokenNormCase {
  std::vector<size_t> output_bytes() const { return {8 * sizeof(float)}; }
  void initialize(cases::Outputs&) const {}
  RmsNormArgs args(cases::Outputs& out, cases::Inputs&) const {
    RmsNormArgs args;
    args.desc = {.rows = 1, .cols = 8};
    args.x = {const_cast<float*>(x), DType::kF32, 1, 8, 8};
    args.weight = x;
    args.y = {out[0].data(), DType::kF32, 1, 8, 8};
    return args;
  }
  std::string compare(const cases::Outputs& found, const cases::Outputs& expected) const {
    return std::memcmp(found[0].bytes().data(), expected[0].bytes().data(), 32) == 0 ? ""
                                                                                     : "differs";
  }
  float x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
};

std::string check_norm(void (*launch)(const RmsNormArgs&, const KernelConfig&, Stream)) {
  const Device device = Device::cpu(1);
  const BrokenNormCase c;
  cases::Outputs expected = cases::make_outputs(c, device);
  const RmsNormImpl copy = {.name = "copy",
                            .launch = [](const RmsNormArgs& a, const KernelConfig&, Stream) {
                              std::memcpy(a.y.data, a.x.data, 32);
                            }};
  cases::launch(copy, c, {}, device, expected);
  const RmsNormImpl impl = {.name = "broken", .launch = launch};
  return cases::check(impl, c, {}, device, expected);
}

TEST(Harness, AcceptsTheSameBytes) {
  EXPECT_EQ(check_norm([](const RmsNormArgs& a, const KernelConfig&, Stream) {
              std::memcpy(a.y.data, a.x.data, 32);
            }),
            "");
}

TEST(Harness, FindsAWrongValue) {
  EXPECT_EQ(check_norm([](const RmsNormArgs& a, const KernelConfig&, Stream) {
              std::memcpy(a.y.data, a.x.data, 32);
              a.y.row<float>(0)[3] = 0;
            }),
            "differs");
}

TEST(Harness, FindsUntouchedOutput) {
  EXPECT_EQ(check_norm([](const RmsNormArgs& a, const KernelConfig&, Stream) {
              std::memcpy(a.y.data, a.x.data, 28);
            }),
            "differs");
}

TEST(Harness, FindsAWriteBehindTheOutput) {
  EXPECT_EQ(check_norm([](const RmsNormArgs& a, const KernelConfig&, Stream) {
              std::memcpy(a.y.data, a.x.data, 32);
              a.y.row<float>(0)[8] = 0;
            }),
            "wrote outside of output 0");
}

TEST(Harness, FindsAResultThatChanges) {
  EXPECT_EQ(check_norm([](const RmsNormArgs& a, const KernelConfig&, Stream) {
              static float counter = 0;
              std::memcpy(a.y.data, a.x.data, 32);
              a.y.row<float>(0)[0] = ++counter;
            }),
            "output 0 differs from one run to the next");
}

}  // namespace
}  // namespace nibble
