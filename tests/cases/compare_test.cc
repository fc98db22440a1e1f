#include "cases/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cases/case_file.h"
#include "nibble/error.h"

namespace nibble::cases {
namespace {

using testing::HasSubstr;

std::string compare2(std::vector<float> found, std::vector<float> expected) {
  return compare(found, expected, 2, [](int64_t) { return 0.1; });
}

TEST(Compare, PassesWithinTheBound) {
  EXPECT_EQ(compare2({1.0f, 2.05f}, {1.0f, 2.0f}), "");
  EXPECT_EQ(compare2({NAN, INFINITY}, {NAN, INFINITY}), "");
}

TEST(Compare, NamesTheWorstCoordinate) {
  EXPECT_THAT(compare2({1, 2, 3.2f, 5}, {1, 2, 3, 4}),
              testing::AllOf(HasSubstr("2 of 4 outside"), HasSubstr("[1, 1]: 5, expected 4")));
}

TEST(Compare, NumbersAndNonNumbersDiffer) {
  EXPECT_THAT(compare2({NAN, 0}, {1, 0}), HasSubstr("1 of 2 outside"));
  EXPECT_THAT(compare2({1, 0}, {NAN, 0}), HasSubstr("1 of 2 outside"));
  EXPECT_THAT(compare2({-INFINITY, 0}, {INFINITY, 0}), HasSubstr("1 of 2 outside"));
  EXPECT_THAT(compare2({INFINITY, 0}, {3e38f, 0}), HasSubstr("1 of 2 outside"));
}

TEST(CompareBytes, NamesTheFirstDifference) {
  const std::vector<uint8_t> a = {1, 2, 3}, b = {1, 9, 9};
  EXPECT_EQ(compare_bytes(a, a, "codes"), "");
  EXPECT_EQ(compare_bytes(b, a, "codes"),
            "codes: 2 of 3 bytes differ; first at 1: 0x09, expected 0x02");
}

TEST(CaseFile, ReadsColumnsByName) {
  const auto rows = parse_cases("# comment\nm  weight\n3  nvfp4  # more\n\n4 bf16\n");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].integer("m"), 3);
  EXPECT_EQ(rows[0].format("weight"), WeightFormat::kNvfp4);
  EXPECT_EQ(rows[1].id(), "m=4 weight=bf16");
  EXPECT_NE(rows[0].seed(), rows[1].seed());
  EXPECT_THROW(rows[0].integer("weight"), Error);
  EXPECT_THROW(rows[0].integer("k"), Error);
  EXPECT_THROW(parse_cases("m n\n1\n"), Error);
}

}  // namespace
}  // namespace nibble::cases
