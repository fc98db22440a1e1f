#include "dispatch/tables.h"

#include "kernels/cpu/list.h"
#include "kernels/cuda/list.h"
#include "kernels/ref/list.h"
#include "kernels/sm120/list.h"
#include "kernels/sm80/list.h"
#include "kernels/sm90/list.h"
#include "kernels/vendor/cublaslt/list.h"
#include "kernels/vendor/cutlass/list.h"

namespace nibble {
namespace {

// The one place that knows every backend. Of the weight layouts that a device prepares, the first
// wins that a GEMM reads in the mode asked for: cuda's, for native FP4, stands in front of sm90's.
const KernelList* backends(size_t& count) {
  static const KernelList lists[] = {sm120::kernels(), cublaslt::kernels(), cutlass_gemm::kernels(),
                                     cuda::kernels(),  sm90::kernels(),     sm80::kernels(),
                                     cpu::kernels(),   ref::kernels()};
  count = std::size(lists);
  return lists;
}

template <class Entry>
std::vector<Entry> gather(std::span<const Entry> KernelList::*member) {
  size_t count;
  const KernelList* lists = backends(count);
  std::vector<Entry> all;
  for (size_t i = 0; i < count; ++i) {
    const auto part = lists[i].*member;
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

template <class Impl>
OpTable names() {
  OpTable table{kOpName<Impl>, {}};
  for (const Impl& impl : impls<Impl>()) table.impls.push_back(impl.name);
  return table;
}

}  // namespace

#define NIBBLE_OP_TABLE(Impl, member)                                 \
  template <>                                                         \
  std::span<const Impl> impls<Impl>() {                               \
    static const std::vector<Impl> all = gather(&KernelList::member); \
    return all;                                                       \
  }
NIBBLE_OP_TABLE(GemmImpl, gemm)
NIBBLE_OP_TABLE(QuantizeImpl, quantize)
NIBBLE_OP_TABLE(DequantizeImpl, dequantize)
NIBBLE_OP_TABLE(RmsNormImpl, rms_norm)
NIBBLE_OP_TABLE(RopeImpl, rope)
NIBBLE_OP_TABLE(AttentionImpl, attention)
NIBBLE_OP_TABLE(SiluMulImpl, silu_mul)
NIBBLE_OP_TABLE(EmbeddingImpl, embedding)
NIBBLE_OP_TABLE(SamplingImpl, sampling)
#undef NIBBLE_OP_TABLE

std::span<const WeightLayoutImpl> weight_layouts() {
  static const std::vector<WeightLayoutImpl> all = gather(&KernelList::weight_layout);
  return all;
}

std::span<const OpTable> op_tables() {
  static const OpTable tables[] = {
      names<GemmImpl>(),    names<QuantizeImpl>(),  names<DequantizeImpl>(),
      names<RmsNormImpl>(), names<RopeImpl>(),      names<AttentionImpl>(),
      names<SiluMulImpl>(), names<EmbeddingImpl>(), names<SamplingImpl>()};
  return tables;
}

}  // namespace nibble
