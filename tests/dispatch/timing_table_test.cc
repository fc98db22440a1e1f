#include "dispatch/timing_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/error.h"
#include "tests/dispatch/temporary_file.h"

namespace nibble {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::string kHeader = "device,n,k,m,backend,tflops\n";

std::vector<Timing> read(const std::string& text) {
  const TemporaryFile file("timing_table_test.csv", text);
  return read_timings(file.path());
}

std::string error_of(const std::string& text, ErrorCode code = ErrorCode::kInvalidArgument) {
  try {
    read(text);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code);
    return e.what();
  }
  return "no error";
}

TEST(TimingTable, ReadsColumnsInAnyOrderAndLineEndings) {
  const auto timings = read(
      "m,extra,tflops,backend,k,n,device\r\n"
      "4,x,2.5,cutlass,1000,500,B200\r\n\r\n8,,1e1,cutlass,1000,500,B200");
  ASSERT_EQ(timings.size(), 2u);
  EXPECT_EQ(timings[0].device, "B200");
  EXPECT_EQ(timings[0].backend, "cutlass");
  EXPECT_EQ(timings[0].kernel, "cutlass");
  EXPECT_EQ(timings[0].n, 500);
  EXPECT_EQ(timings[0].k, 1000);
  EXPECT_EQ(timings[0].m, 4);
  EXPECT_DOUBLE_EQ(timings[0].us(), 2e-6 * 4 * 500 * 1000 / 2.5);
  EXPECT_DOUBLE_EQ(timings[1].tflops, 10);
  EXPECT_THAT(timings[1].where, HasSubstr("timing_table_test.csv:4"));
}

TEST(TimingTable, DropsTheBaselineBackend) {
  const auto timings = read(kHeader + "B200,1,1,1,torch-bf16,1\nB200,1,1,1,cutlass,1\n");
  ASSERT_EQ(timings.size(), 1u);
  EXPECT_EQ(timings[0].backend, "cutlass");
}

TEST(TimingTable, SplitsTrtllmByRowsWhereItsSmallKernelIsNotListed) {
  const auto joint = read(kHeader + "X,1,1,32,trtllm,1\nX,1,1,33,trtllm,1\n");
  EXPECT_EQ(joint[0].kernel, "trtllm_8x4");
  EXPECT_EQ(joint[1].kernel, "trtllm");
  const auto apart = read(kHeader +
                          "X,1,1,1,trtllm,1\nX,1,1,1,trtllm_8x4,1\n"
                          "Y,1,1,1,trtllm,1\n");
  EXPECT_EQ(apart[0].kernel, "trtllm");
  EXPECT_EQ(apart[1].kernel, "trtllm_8x4");
  EXPECT_EQ(apart[2].kernel, "trtllm_8x4");
}

TEST(TimingTable, RefusesAMissingColumn) {
  EXPECT_THAT(error_of("device,n,k,backend,tflops\nB200,1,1,cutlass,1\n"),
              AllOf(HasSubstr("timing_table_test.csv:1:"), HasSubstr("no 'm'"),
                    HasSubstr("device,n,k,backend,tflops")));
}

TEST(TimingTable, RefusesAnEmptyFileOrTable) {
  EXPECT_THAT(error_of(""), HasSubstr("found an empty file"));
  EXPECT_THAT(error_of(kHeader), HasSubstr("found none"));
  EXPECT_THAT(error_of(kHeader + "B200,1,1,1,torch-bf16,1\n"), HasSubstr("found none"));
}

TEST(TimingTable, RefusesAFileThatIsNotThere) {
  try {
    read_timings("/no/such/table.csv");
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kIo);
    EXPECT_THAT(e.what(), HasSubstr("/no/such/table.csv"));
  }
}

struct BadField {
  const char* row;
  const char* column;
  const char* found;
};

class BadFields : public testing::TestWithParam<BadField> {};

TEST_P(BadFields, AreRefusedByLineAndColumn) {
  const std::string good = "B200,1,1,2,cutlass,1\n";
  EXPECT_THAT(
      error_of(kHeader + good + GetParam().row + "\n"),
      AllOf(HasSubstr("timing_table_test.csv:3:"),
            HasSubstr("'" + std::string(GetParam().column) + "'"), HasSubstr(GetParam().found)));
}

INSTANTIATE_TEST_SUITE_P(
    TimingTable, BadFields,
    testing::Values(BadField{"B200,1,1,1,cutlass,fast", "tflops", "found 'fast'"},
                    BadField{"B200,1,1,1,cutlass,", "tflops", "found ''"},
                    BadField{"B200,1,1,1,cutlass,0", "tflops", "found '0'"},
                    BadField{"B200,1,1,1,cutlass,-3", "tflops", "found '-3'"},
                    BadField{"B200,1,1,1,cutlass,nan", "tflops", "found 'nan'"},
                    BadField{"B200,1,1,1,cutlass,inf", "tflops", "found 'inf'"},
                    BadField{"B200,1,1,1,cutlass,1e999", "tflops", "found '1e999'"},
                    BadField{"B200,1,1,1,cutlass,1x", "tflops", "found '1x'"},
                    BadField{"B200,0,1,1,cutlass,1", "n", "found '0'"},
                    BadField{"B200,1,-1,1,cutlass,1", "k", "found '-1'"},
                    BadField{"B200,1,1,1.5,cutlass,1", "m", "found '1.5'"},
                    BadField{"B200,1,1,2147483648,cutlass,1", "m", "found '2147483648'"},
                    BadField{"B200,1,1,99999999999999999999,cutlass,1", "m", "found '9999"},
                    BadField{",1,1,1,cutlass,1", "device", "found nothing"},
                    BadField{"B200,1,1,1,,1", "backend", "found nothing"}));

TEST(TimingTable, RefusesARowOfAnotherLength) {
  EXPECT_THAT(error_of(kHeader + "B200,1,1,1,cutlass\n"),
              AllOf(HasSubstr(":2:"), HasSubstr("expected 6 fields"), HasSubstr("found 5")));
}

TEST(TimingTable, RefusesARowTwice) {
  EXPECT_THAT(error_of(kHeader + "B200,1,1,1,cutlass,1\nB200,1,1,2,cutlass,1\n"
                                 "B200,1,1,1,cutlass,2\n"),
              AllOf(HasSubstr("timing_table_test.csv:4:"), HasSubstr("expected one row"),
                    HasSubstr("found another"), HasSubstr("timing_table_test.csv:2")));
}

}  // namespace
}  // namespace nibble
