// D = C + (alpha * sum + bias) as CUTLASS's epilogue visitors. Only alpha is ours: CUTLASS's own
// scalar is read while the kernel starts, in front of griddepcontrol.wait, when the kernel that
// computes alpha may still run. Sums exist behind that wait, so alpha is read with the first.
#pragma once

#include <cutlass/epilogue/fusion/sm90_visitor_compute_tma_warpspecialized.hpp>
#include <cutlass/epilogue/fusion/sm90_visitor_load_tma_warpspecialized.hpp>

namespace nibble::cutlass_gemm {

struct LateScalar {
  struct SharedStorage {};
  struct Arguments {
    const float* value = nullptr;
  };
  using Params = Arguments;

  template <class Shape>
  static constexpr Params to_underlying_arguments(const Shape&, const Arguments& args, void*) {
    return args;
  }
  template <class Shape>
  static bool can_implement(const Shape&, const Arguments&) {
    return true;
  }
  template <class Shape>
  static size_t get_workspace_size(const Shape&, const Arguments&) {
    return 0;
  }
  template <class Shape>
  static cutlass::Status initialize_workspace(const Shape&, const Arguments&, void*, cudaStream_t,
                                              cutlass::CudaHostAdapter* = nullptr) {
    return cutlass::Status::kSuccess;
  }

  const float* pointer = nullptr;

  CUTLASS_HOST_DEVICE LateScalar() {}
  CUTLASS_HOST_DEVICE LateScalar(const Params& params, const SharedStorage&)
      : pointer(params.value) {}

  CUTLASS_DEVICE bool is_producer_load_needed() const { return false; }
  CUTLASS_DEVICE bool is_C_load_needed() const { return false; }

  template <class... Args>
  CUTLASS_DEVICE auto get_producer_load_callbacks(
      const cutlass::epilogue::fusion::ProducerLoadArgs<Args...>&) {
    return cutlass::epilogue::fusion::EmptyProducerLoadCallbacks{};
  }

  struct Callbacks : cutlass::epilogue::fusion::EmptyConsumerStoreCallbacks {
    CUTLASS_DEVICE explicit Callbacks(const float* from) : pointer(from) {}

    template <class Sum, int kCount>
    CUTLASS_DEVICE cutlass::Array<float, kCount> visit(const cutlass::Array<Sum, kCount>&, int, int,
                                                       int) {
      if (!known) {
        value = __ldcg(pointer);
        known = true;
      }
      cutlass::Array<float, kCount> all;
      all.fill(value);
      return all;
    }

    const float* pointer;
    float value = 0;
    bool known = false;
  };
  template <bool kOfSource, class... Args>
  CUTLASS_DEVICE auto get_consumer_store_callbacks(
      const cutlass::epilogue::fusion::ConsumerStoreArgs<Args...>&) {
    return Callbacks(pointer);
  }
};

// CtaTile: what one SM holds of a tile.
template <class Element, class CtaTile>
struct Fusion {
  template <class... T>
  using Tree = cutlass::epilogue::fusion::Sm90EVT<T...>;
  template <class Out>
  using MultiplyAdd =
      cutlass::epilogue::fusion::Sm90Compute<cutlass::homogeneous_multiply_add, Out, float,
                                             cutlass::FloatRoundStyle::round_to_nearest>;
  using Beta =
      cutlass::epilogue::fusion::Sm90ScalarBroadcast<float,
                                                     cute::Stride<cute::_0, cute::_0, int64_t>>;
  using Bias =
      cutlass::epilogue::fusion::Sm90ColBroadcast<0, CtaTile, float, float,
                                                  cute::Stride<cute::_1, cute::_0, int64_t>, 1>;
  using Scaled =
      Tree<MultiplyAdd<float>, LateScalar, cutlass::epilogue::fusion::Sm90AccFetch, Bias>;
  using Type =
      Tree<MultiplyAdd<Element>, Beta, cutlass::epilogue::fusion::Sm90SrcFetch<Element>, Scaled>;

  static typename Type::Arguments arguments(const float* alpha, const float* bias, bool has_c) {
    return {{{has_c ? 1.0f : 0.0f}, {nullptr}, {}}, {}, {{alpha}, {}, {bias, 0.0f, {}}, {}}, {}};
  }
};

}  // namespace nibble::cutlass_gemm
