// What cuBLASLt is told, and what is refused: on the host, with a library that records the calls.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include "formats/scale_layout.h"
#include "kernels/cuda/fp4_rows.h"
#include "kernels/vendor/cublaslt/gemm.h"
#include "kernels/vendor/cublaslt/list.h"
#include "kernels/vendor/cublaslt/plan.h"
#include "nibble/error.h"
#include "tests/kernels/vendor/cublaslt/fake_cublaslt.h"

namespace nibble::cublaslt {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Before anything asks for the library: the table's entry finds none.
const int kNoLibrary = setenv("NIBBLE_CUBLASLT", "/no/such/libcublasLt.so", 1);

DeviceInfo chip(int sm) {
  DeviceInfo device;
  device.kind = DeviceKind::kCuda;
  device.sm = sm;
  device.num_sms = 148;
  device.bandwidth_gbps = 8000;
  return device;
}

GemmDesc desc(int64_t m = 16, int64_t n = 256, int64_t k = 128) {
  return {.m = m,
          .n = n,
          .k = k,
          .weight = WeightFormat::kNvfp4,
          .layout = WeightLayout::kFp4Rows,
          .activation = ActivationMode::kFp4,
          .a_type = DType::kBF16,
          .d_type = DType::kBF16};
}

template <class T>
uint64_t bits(const T* p) {
  return reinterpret_cast<uintptr_t>(p);
}

class Cublaslt : public testing::Test {
 protected:
  Cublaslt() {
    const std::string file = NIBBLE_FAKE_works;
    library_ = open_library({&file, 1}).library;
    void* const handle = dlopen(file.c_str(), RTLD_NOW);
    fake_ = reinterpret_cast<decltype(&nibble_fake)>(dlsym(handle, "nibble_fake"))();
    *fake_ = {};
  }

  std::shared_ptr<Plan> plan(const Problem& problem) {
    return std::make_shared<Plan>(library_, nullptr, problem);
  }

  static constexpr Problem kProblem = {
      .m = 16, .n = 256, .k = 128, .a_stride = 128, .c_stride = 300, .d_stride = 264};
  std::shared_ptr<const Library> library_;
  Fake* fake_;
};

TEST(CublasltSupport, RunsOnChipsWithFp4TensorCores) {
  for (const int sm : {100, 103, 120, 121}) EXPECT_TRUE(cuda::multiplies_fp4(chip(sm)));
  for (const int sm : {80, 89, 90, 110}) {
    EXPECT_THAT(kGemm.can_implement(desc(), chip(sm)).reason,
                HasSubstr("needs compute capability 10.0, 10.3, 12.0 or 12.1, found sm_" +
                          std::to_string(sm)));
  }
  EXPECT_THAT(kGemm.can_implement(desc(), DeviceInfo{}).reason, HasSubstr("CUDA device only"));
}

TEST(CublasltSupport, NamesTheRuleThatIsBroken) {
  EXPECT_TRUE(takes(desc()));
  const auto reason = [](const std::function<void(GemmDesc&)>& change) {
    GemmDesc d = desc();
    change(d);
    return kGemm.can_implement(d, chip(100)).reason;
  };
  EXPECT_THAT(reason([](GemmDesc& d) { d.layout = WeightLayout::kSm120; }),
              HasSubstr("reads layout fp4_rows, found sm120"));
  EXPECT_THAT(reason([](GemmDesc& d) { d.activation = ActivationMode::k16Bit; }),
              HasSubstr("multiplies 4-bit activations, found mode 16bit"));
  EXPECT_THAT(reason([](GemmDesc& d) { d.a_type = DType::kI32; }), HasSubstr("a must be"));
  EXPECT_THAT(reason([](GemmDesc& d) {
                d.a_type = DType::kU8;
                d.a_layout = ScaleLayout::kSwizzled8x4;
              }),
              HasSubstr("scales of a must be"));
  EXPECT_THAT(reason([](GemmDesc& d) {
                d.a_type = DType::kU8;
                d.a_layout = ScaleLayout::kSwizzled128x4;
                d.k = 96;
              }),
              HasSubstr("k must be a multiple of 64 for a in U8, found 96"));
  EXPECT_THAT(reason([](GemmDesc& d) { d.d_type = DType::kU8; }), HasSubstr("quantizes D"));
  EXPECT_THAT(reason([](GemmDesc& d) { d.d_type = DType::kI32; }), HasSubstr("d must be"));
  EXPECT_THAT(reason([](GemmDesc& d) { d.silu_mul = true; }), HasSubstr("no silu_mul"));
  EXPECT_THAT(reason([](GemmDesc& d) { d.has_bias = true; }), HasSubstr("bias has 16 bits"));
  EXPECT_THAT(reason([](GemmDesc& d) { d.k = 48; }),
              HasSubstr("k must be a multiple of 32, found 48"));
  EXPECT_THAT(reason([](GemmDesc& d) { d.n = 100; }),
              HasSubstr("n must be a multiple of 8 for d in BF16, found 100"));
  GemmDesc fp32 = desc(1, 100);
  fp32.d_type = DType::kF32;
  EXPECT_TRUE(takes(fp32));
  EXPECT_THAT(reason([](GemmDesc& d) { d.m = int64_t{1} << 31; }), HasSubstr("at most"));
}

TEST(CublasltSupport, AMissingLibraryRefusesAndTheRestWorks) {
  ASSERT_EQ(kNoLibrary, 0);
  const auto gemms = kernels().gemm;
  ASSERT_EQ(gemms.size(), 1u);
  EXPECT_THAT(gemms[0].can_implement(desc(), chip(100)).reason,
              testing::AllOf(HasSubstr("needs cuBLASLt"), HasSubstr("/no/such/libcublasLt.so")));
  EXPECT_EQ(gemms[0].candidates(desc(), chip(100)).size(), 1u);
}

TEST(CublasltLibrary, TheFirstFileThatIsThereCounts) {
  const std::string files[] = {"/no/such/library.so", NIBBLE_FAKE_works};
  const OpenedLibrary opened = open_library(files);
  ASSERT_NE(opened.library, nullptr) << opened.reason;
  EXPECT_EQ(opened.library->GetVersion(), 130100u);
}

TEST(CublasltLibrary, TooOldOrIncompleteIsRefused) {
  const std::string old = NIBBLE_FAKE_old, partial = NIBBLE_FAKE_partial;
  EXPECT_THAT(open_library({&old, 1}).reason,
              HasSubstr("must be cuBLASLt 12.8.0 or newer, found 12.6.0"));
  EXPECT_THAT(open_library({&partial, 1}).reason, HasSubstr("has no cublasLtMatmul"));
  EXPECT_EQ(open_library({&partial, 1}).library, nullptr);
}

// Where NVIDIA's own is there, each function is found under its name.
TEST(CublasltLibrary, NvidiasOwnHasAllFunctions) {
  const std::string file = "libcublasLt.so.13";
  const OpenedLibrary opened = open_library({&file, 1});
  if (opened.library == nullptr && opened.reason.find("needs cuBLASLt") == 0) {
    GTEST_SKIP() << opened.reason;
  }
  ASSERT_NE(opened.library, nullptr) << opened.reason;
  EXPECT_GE(opened.library->GetVersion(), 130000u);
  EXPECT_STREQ(opened.library->GetStatusName(CUBLAS_STATUS_NOT_SUPPORTED),
               "CUBLAS_STATUS_NOT_SUPPORTED");
}

TEST_F(Cublaslt, TheHeuristicIsToldEverythingBeforeItIsAsked) {
  for (const auto format : {WeightFormat::kNvfp4, WeightFormat::kMxfp4}) {
    Problem problem = kProblem;
    problem.format = format;
    plan(problem);
    auto& at = fake_->at_heuristic;
    EXPECT_EQ(at.at(CUBLASLT_MATMUL_DESC_TRANSA), uint64_t{CUBLAS_OP_T});
    EXPECT_EQ(at.at(CUBLASLT_MATMUL_DESC_TRANSB), uint64_t{CUBLAS_OP_N});
    EXPECT_EQ(at.at(CUBLASLT_MATMUL_DESC_POINTER_MODE), uint64_t{CUBLASLT_POINTER_MODE_DEVICE});
    const uint64_t mode = format == WeightFormat::kNvfp4 ? CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3
                                                         : CUBLASLT_MATMUL_MATRIX_SCALE_VEC32_UE8M0;
    EXPECT_EQ(at.at(CUBLASLT_MATMUL_DESC_A_SCALE_MODE), mode);
    EXPECT_EQ(at.at(CUBLASLT_MATMUL_DESC_B_SCALE_MODE), mode);
    EXPECT_NE(at.at(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER), 0u);
    EXPECT_NE(at.at(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER), 0u);
    EXPECT_EQ(at.size(), 7u);
  }
  EXPECT_EQ(fake_->preferences.at(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES), kWorkspaceBytes);
  EXPECT_EQ(fake_->preferences.at(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES), 256u);
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    EXPECT_EQ(fake_->preferences.at(attribute), 16u);
  }
}

TEST_F(Cublaslt, MatricesAreTransposesOfOurs) {
  constexpr std::pair<DType, cudaDataType_t> kTypes[] = {
      {DType::kBF16, CUDA_R_16BF}, {DType::kF16, CUDA_R_16F}, {DType::kF32, CUDA_R_32F}};
  alignas(16) uint8_t memory[16];
  for (const auto& [type, theirs] : kTypes) {
    Problem problem = kProblem;
    problem.type = type;
    fake_->matmuls.clear();
    const Operands operands = {.a = memory + 1,
                               .a_scales = memory + 2,
                               .b = memory + 3,
                               .b_scales = memory + 4,
                               .c = memory + 5,
                               .d = memory + 6,
                               .alpha = reinterpret_cast<float*>(memory + 8),
                               .beta = reinterpret_cast<float*>(memory + 12),
                               .workspace = memory + 9};
    plan(problem)->run(operands, 1, nullptr);
    ASSERT_EQ(fake_->matmuls.size(), 1u);
    const FakeMatmul& call = fake_->matmuls[0];
    const auto is = [](const FakeLayout& l, cudaDataType_t t, uint64_t rows, uint64_t cols,
                       int64_t stride) {
      return l.type == t && l.rows == rows && l.cols == cols && l.stride == stride;
    };
    EXPECT_TRUE(is(call.a_layout, CUDA_R_4F_E2M1, 128, 256, 128));
    EXPECT_TRUE(is(call.b_layout, CUDA_R_4F_E2M1, 128, 16, 128));
    EXPECT_TRUE(is(call.c_layout, theirs, 256, 16, 300));
    EXPECT_TRUE(is(call.d_layout, theirs, 256, 16, 264));
    EXPECT_EQ(call.a, operands.b);  // its A is the weights
    EXPECT_EQ(call.b, operands.a);
    EXPECT_EQ(call.attributes.at(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER), bits(memory + 4));
    EXPECT_EQ(call.attributes.at(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER), bits(memory + 2));
    EXPECT_EQ(call.c, operands.c);
    EXPECT_EQ(call.d, operands.d);
    EXPECT_EQ(call.alpha, operands.alpha);
    EXPECT_EQ(call.beta, operands.beta);
    EXPECT_EQ(call.workspace, operands.workspace);
    EXPECT_EQ(call.workspace_bytes, kWorkspaceBytes);
    EXPECT_EQ(call.algorithm, 101u);
  }
}

TEST_F(Cublaslt, RanksAreTheHeuristicsAndTheLastStandsForMore) {
  const auto p = plan(kProblem);
  EXPECT_EQ(p->algorithms(), 3);
  for (const int rank : {0, 2, 7}) p->run({}, rank, nullptr);
  std::vector<uint64_t> ran;
  for (const FakeMatmul& call : fake_->matmuls) ran.push_back(call.algorithm);
  EXPECT_THAT(ran, ElementsAre(100, 102, 102));
  fake_->algorithms = 100;
  EXPECT_EQ(plan(kProblem)->algorithms(), kMostAlgorithms);
}

TEST_F(Cublaslt, NoAlgorithmIsARefusalAndNoFailure) {
  fake_->failing["MatmulAlgoGetHeuristic"] = CUBLAS_STATUS_NOT_SUPPORTED;
  const auto p = plan(kProblem);
  EXPECT_EQ(p->algorithms(), 0);
  EXPECT_THAT(p->refusal(), testing::AllOf(HasSubstr("130100 has no algorithm for nvfp4"),
                                           HasSubstr("16 x 256 x 128: FAKE_NOT_SUPPORTED")));
}

TEST_F(Cublaslt, FailuresNameTheCallAndLeaveNothingBehind) {
  for (const std::string call :
       {"MatmulDescCreate", "MatmulDescSetAttribute", "MatrixLayoutCreate",
        "MatmulPreferenceCreate", "MatmulPreferenceSetAttribute", "MatmulAlgoGetHeuristic"}) {
    fake_->failing = {{call, CUBLAS_STATUS_INTERNAL_ERROR}};
    try {
      plan(kProblem);
      FAIL() << call;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kDevice);
      EXPECT_EQ(error.what(), "cublasLt" + call + ": FAKE_FAILURE");
    }
    EXPECT_EQ(fake_->alive, 0) << call;
  }
  fake_->failing.clear();
  auto p = plan(kProblem);
  EXPECT_GT(fake_->alive, 0);
  fake_->failing = {{"Matmul", CUBLAS_STATUS_EXECUTION_FAILED}};
  EXPECT_THROW(p->run({}, 0, nullptr), Error);
  p.reset();
  EXPECT_EQ(fake_->alive, 0);
}

TEST_F(Cublaslt, PlansAreMadeOnceAndTheOldestGo) {
  const auto asked = [&] { return std::ranges::count(fake_->calls, "MatmulAlgoGetHeuristic"); };
  Plans plans(library_, 2);
  std::vector<std::thread> threads;
  std::vector<std::shared_ptr<Plan>> got(8);
  for (auto& p : got) threads.emplace_back([&] { p = plans.get(nullptr, kProblem); });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(asked(), 1);
  for (const auto& p : got) EXPECT_EQ(p, got[0]);

  Problem other = kProblem;
  for (const int64_t m : {17, 18, 17, 18}) {
    other.m = m;
    plans.get(nullptr, other);
  }
  EXPECT_EQ(asked(), 3);
  EXPECT_EQ(plans.size(), 2u);
  plans.get(nullptr, kProblem);
  EXPECT_EQ(asked(), 4);
  got[0]->run({}, 0, nullptr);  // a plan that went is whole while someone holds it
}

// Two segments, their codes, scales, columns of C and D, and alphas.
class CublasltMultiply : public Cublaslt {
 protected:
  void multiply_with(GemmDesc d, int64_t stride) {
    weight_.n = d.n;
    weight_.k = d.k;
    weight_.format = d.weight;
    weight_.codes = codes_.data();
    weight_.scales = scales_.data();
    weight_.segments = {{0, 2.0f}, {128, 3.0f}};
    d.num_segments = 2;
    GemmArgs args;
    args.desc = d;
    args.b = &weight_;
    args.d = {d_.data(), d.d_type, d.m, d.n, stride};
    args.c = {c_.data(), d.d_type, d.m, d.n, stride + 8};
    Plans plans(library_);
    multiply({nullptr, &plans, constants_}, args,
             {.codes = codes_.data(), .stride = d.k / 2 + 16, .scales = scales_.data()}, alphas_, 1,
             d_.data(), {});
  }

  std::vector<uint8_t> codes_ = std::vector<uint8_t>(256 * 64),
                       scales_ = std::vector<uint8_t>(2 * 1024),
                       c_ = std::vector<uint8_t>(16 * 300 * 4), d_ = c_;
  float alphas_[2] = {}, constants_[2] = {};
  PreparedWeight weight_;
};

TEST_F(CublasltMultiply, OneMatmulASegment) {
  GemmDesc d = desc(16, 200);
  multiply_with(d, 264);
  ASSERT_EQ(fake_->matmuls.size(), 2u);
  const FakeMatmul &first = fake_->matmuls[0], &second = fake_->matmuls[1];
  EXPECT_EQ(first.a_layout.cols, 128u);
  EXPECT_EQ(second.a_layout.cols, 72u);
  EXPECT_EQ(first.b_layout.stride, 128 + 32);
  EXPECT_EQ(first.d_layout.stride, 264);
  EXPECT_EQ(second.a, codes_.data() + 128 * 64);
  EXPECT_EQ(second.attributes.at(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER),
            bits(scales_.data() + scale_bytes(ScaleLayout::kSwizzled128x4, 128, 8)));
  EXPECT_EQ(second.attributes.at(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER), bits(scales_.data()));
  EXPECT_EQ(first.d, d_.data());
  EXPECT_EQ(second.d, d_.data() + 128 * 2);
  EXPECT_EQ(second.c, second.d);  // unread: beta is 0
  EXPECT_EQ(second.beta, constants_);
  EXPECT_EQ(first.alpha, alphas_);
  EXPECT_EQ(second.alpha, alphas_ + 1);
  EXPECT_EQ(second.algorithm, 101u);

  fake_->matmuls.clear();
  d.has_c = true;
  d.d_type = DType::kF32;
  multiply_with(d, 264);
  EXPECT_EQ(fake_->matmuls[1].c, c_.data() + 128 * 4);
  EXPECT_EQ(fake_->matmuls[1].c_layout.stride, 272);
  EXPECT_EQ(fake_->matmuls[1].beta, constants_ + 1);
}

TEST_F(CublasltMultiply, OfOneRowNoStrideCounts) {
  multiply_with(desc(1, 200), 7);
  EXPECT_EQ(fake_->matmuls[0].b_layout.stride, 128);
  EXPECT_EQ(fake_->matmuls[0].d_layout.stride, 200);
}

TEST_F(CublasltMultiply, AShapeThatTheHeuristicRefusesIsUnsupported) {
  fake_->algorithms = 0;
  try {
    multiply_with(desc(16, 200), 264);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  }
  EXPECT_TRUE(fake_->matmuls.empty());
}

TEST(CublasltCosts, FollowTheRooflineAndTheLibrarysOrder) {
  const auto us = [](const GemmDesc& d, int algorithm = 0, int sm = 100) {
    return kGemm.estimate_us(d, {.algorithm = algorithm}, chip(sm));
  };
  const GemmDesc d = desc(1, 8192, 8192);
  EXPECT_GT(us(d), 8192.0 * 8192 * 0.5625 / 8000e3);
  EXPECT_GT(us(desc(8192, 8192, 8192)), 2e-6 * 8192 * 8192 * 8192 / 10'000);
  EXPECT_LT(us(desc(8192, 8192, 8192), 0, 103), us(desc(8192, 8192, 8192)));
  for (int i = 1; i < kMostAlgorithms; ++i) EXPECT_GT(us(d, i), us(d, i - 1));
  GemmDesc given = d, fused = d;
  given.a_type = DType::kU8;
  fused.num_segments = 3;
  EXPECT_LT(us(given), us(d));
  EXPECT_GT(us(fused), us(d));
}

TEST(CublasltCosts, WorkspaceHoldsTheLibrarysAndTheActivations) {
  const auto bytes = [](const GemmDesc& d) { return kGemm.workspace_bytes(d, {}, chip(100)); };
  const auto scales = static_cast<size_t>(scale_bytes(ScaleLayout::kSwizzled128x4, 16, 8));
  EXPECT_GE(bytes(desc()), kWorkspaceBytes + 16 * 64 + scales + sizeof(float));
  GemmDesc given = desc();
  given.a_type = DType::kU8;
  given.weight = WeightFormat::kMxfp4;
  EXPECT_EQ(bytes(given), kWorkspaceBytes);
}

}  // namespace
}  // namespace nibble::cublaslt
