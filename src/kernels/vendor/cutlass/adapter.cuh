// A Kernel of CUTLASS's collectives: types by its CollectiveBuilder, arguments from a Problem.
#pragma once

#pragma nv_diag_suppress 20012  // CUTLASS: annotations on a defaulted constructor
#include <cutlass/arch/arch.h>
#include <cutlass/device_kernel.h>

#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <cutlass/gemm/kernel/tile_scheduler.hpp>
#pragma nv_diag_default 20012
#include <string>
#include <type_traits>

#include "base/launch.h"
#include "kernels/vendor/cutlass/fusion.cuh"
#include "kernels/vendor/cutlass/kernels.h"
#include "kernels/vendor/cutlass/operands.h"
#include "nibble/error.h"

namespace nibble::cutlass_gemm {

template <Family kFamily, WeightFormat kFormat, class Element, Tile kTile>
struct Adapter {
  static constexpr bool kBlocks16 = kFormat == WeightFormat::kNvfp4;
  static constexpr bool kPair = kTile.cluster == 2;  // two SMs multiply one tile

  using Fp4 = cutlass::float_e2m1_t;
  using Input = std::conditional_t<
      kFamily == Family::kSm103, cute::tuple<Fp4, cutlass::float_ue4m3_t>,
      std::conditional_t<kBlocks16, cutlass::nv_float4_t<Fp4>, cutlass::mx_float4_t<Fp4>>>;
  using Arch = std::conditional_t<
      kFamily == Family::kSm100, cutlass::arch::Sm100,
      std::conditional_t<kFamily == Family::kSm103, cutlass::arch::Sm103, cutlass::arch::Sm120>>;
  using TileShape = cute::Shape<cute::Int<kTile.rows>, cute::Int<kTile.tokens>, cute::Int<kTile.k>>;
  using Cluster = cute::Shape<cute::Int<kTile.cluster>, cute::_1, cute::_1>;

  static constexpr auto schedule() {
    using namespace cutlass::gemm;  // NOLINT(google-build-using-namespace): names of 60 letters
    if constexpr (kFamily == Family::kSm120) {
      return collective::KernelScheduleAuto{};
    } else if constexpr (kFamily == Family::kSm100) {
      if constexpr (kBlocks16 && kPair) return KernelTmaWarpSpecialized2SmNvf4Sm100{};
      if constexpr (kBlocks16 && !kPair) return KernelTmaWarpSpecialized1SmNvf4Sm100{};
      if constexpr (!kBlocks16 && kPair) return KernelTmaWarpSpecialized2SmMxf4Sm100{};
      if constexpr (!kBlocks16 && !kPair) return KernelTmaWarpSpecialized1SmMxf4Sm100{};
    } else {
      static_assert(kBlocks16);
      if constexpr (kPair) return KernelTmaWarpSpecialized2SmBlockScaledMxNvf4UltraVs16Sm103{};
      if constexpr (!kPair) return KernelTmaWarpSpecialized1SmBlockScaledMxNvf4UltraVs16Sm103{};
    }
  }
  static constexpr auto epilogue_schedule() {
    using namespace cutlass::epilogue;  // NOLINT(google-build-using-namespace)
    if constexpr (kFamily == Family::kSm120) return collective::EpilogueScheduleAuto{};
    if constexpr (kFamily != Family::kSm120 && kPair) return TmaWarpSpecialized2Sm{};
    if constexpr (kFamily != Family::kSm120 && !kPair) return TmaWarpSpecialized1Sm{};
  }

  static constexpr int kAlignment = 32;  // of codes: 16 bytes
  static constexpr int kAlignmentD = 16 / sizeof(Element);
  using CtaTile = cute::Shape<cute::Int<kTile.rows / kTile.cluster>, cute::Int<kTile.tokens>,
                              cute::Int<kTile.k>>;
  using Ending = Fusion<Element, CtaTile>;
  // Columns that leave at a time; CUTLASS's own choice, or more on sm_103, spills registers.
  using EpilogueTile = std::conditional_t<
      kFamily == Family::kSm120, cutlass::epilogue::collective::EpilogueTileAuto,
      cute::Shape<cute::Int<kTile.rows / kTile.cluster>,
                  cute::Int<(kFamily == Family::kSm100 && kTile.tokens > 128 ? 64 : 32)>>>;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      Arch, cutlass::arch::OpClassBlockScaledTensorOp, TileShape, Cluster, EpilogueTile, float,
      float, Element, LayoutD, kAlignmentD, Element, LayoutD, kAlignmentD,
      decltype(epilogue_schedule()), typename Ending::Type>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      Arch, cutlass::arch::OpClassBlockScaledTensorOp, Input, LayoutWeights, kAlignment, Input,
      LayoutTokens, kAlignment, float, TileShape, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      decltype(schedule())>::CollectiveOp;
  using Scheduler = std::conditional_t<kTile.splits, cutlass::gemm::StreamKScheduler, void>;
  using Gemm = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop,
                                                    Epilogue, Scheduler>;

  static typename Gemm::Arguments arguments(const Problem& p) {
    using Codes = typename Mainloop::ArrayElementA;
    using Scale = typename Mainloop::ElementSF;
    const Operands<typename Mainloop::Sm1xxBlkScaledConfig> at(p);
    typename Gemm::Arguments args;
    args.mode = cutlass::gemm::GemmUniversalMode::kGemm;
    args.problem_shape = at.shape;
    args.mainloop = {reinterpret_cast<const Codes*>(p.weights),       at.weights,
                     reinterpret_cast<const Codes*>(p.tokens),        at.tokens,
                     reinterpret_cast<const Scale*>(p.weight_scales), at.weight_scales,
                     reinterpret_cast<const Scale*>(p.token_scales),  at.token_scales};
    args.epilogue = {Ending::arguments(p.alpha, p.bias, p.c != nullptr),
                     // D where there is no C: a tensor map is made of it, and not read.
                     static_cast<const Element*>(p.c != nullptr ? p.c : p.d),
                     p.c != nullptr ? at.c : at.d, static_cast<Element*>(p.d), at.d};
    args.hw_info.sm_count = p.num_sms;
    if constexpr (kTile.splits) {
      using Mode = std::remove_cvref_t<decltype(args.scheduler.decomposition_mode)>;
      args.scheduler.splits = p.split_k;
      args.scheduler.decomposition_mode = p.split_k > 1 ? Mode::SplitK : Mode::DataParallel;
    }
    return args;
  }

  static size_t workspace_bytes(const Problem& p) { return Gemm::get_workspace_size(arguments(p)); }

  static bool takes(const Problem& p) { return Gemm::can_implement(arguments(p)); }

  static void launch(const Problem& p, Stream stream) {
    const auto args = arguments(p);
    const auto check = [](cutlass::Status status) {
      if (status == cutlass::Status::kSuccess) return;
      throw Error(ErrorCode::kInvalidArgument,
                  std::string("cutlass_fp4_gemm: CUTLASS refuses the arguments: ") +
                      cutlassGetStatusString(status));
    };
    check(Gemm::can_implement(args) ? cutlass::Status::kSuccess
                                    : cutlass::Status::kErrorInvalidProblem);
    check(Gemm::initialize_workspace(args, p.workspace, static_cast<cudaStream_t>(stream.cuda)));
    const auto params = Gemm::to_underlying_arguments(args, p.workspace);
    cuda::launch({.grid = Gemm::get_grid_shape(params),
                  .block = Gemm::get_block_shape(),
                  .shared_bytes = static_cast<size_t>(Gemm::SharedStorageSize),
                  .cluster = dim3(kTile.cluster),
                  .pdl = stream.pdl,
                  .stream = stream},
                 "cutlass_fp4_gemm", cutlass::device_kernel<Gemm>, params);
  }

  static constexpr Kernel entry() {
    return {.family = kFamily,
            .format = kFormat,
            .d_type = std::is_same_v<Element, float> ? DType::kF32 : DType::kBF16,
            .tile = kTile,
            .stages = Mainloop::DispatchPolicy::Stages,
            .takes = takes,
            .workspace_bytes = workspace_bytes,
            .launch = launch};
  }
};

}  // namespace nibble::cutlass_gemm
