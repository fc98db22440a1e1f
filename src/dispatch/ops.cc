#include "dispatch/ops.h"

#include "dispatch/op_timer.h"
#include "dispatch/select.h"

namespace nibble {
namespace {

template <class Impl>
void run(typename Impl::Args args, const Device& device) {
  const OpTimer timer(device, kOpName<Impl>);
  validate(args);
  const Selection<Impl> s = select<Impl>(args.desc, device);
  trace<Impl>(args.desc, s, device);
  if constexpr (requires { args.workspace; }) {
    if (s.impl->workspace_bytes) {
      device.reserve_workspace(s.impl->workspace_bytes(args.desc, s.config, device.info()));
      args.workspace = device.workspace();
    }
  }
  s.impl->launch(args, s.config, device.stream());
}

}  // namespace

void rms_norm(const RmsNormArgs& args, const Device& d) { run<RmsNormImpl>(args, d); }
void rope(const RopeArgs& args, const Device& d) { run<RopeImpl>(args, d); }
void attention(const AttentionArgs& args, const Device& d) { run<AttentionImpl>(args, d); }
void silu_mul(const SiluMulArgs& args, const Device& d) { run<SiluMulImpl>(args, d); }
void embedding(const EmbeddingArgs& args, const Device& d) { run<EmbeddingImpl>(args, d); }
void sample(const SamplingArgs& args, const Device& d) { run<SamplingImpl>(args, d); }
void quantize(const QuantizeArgs& args, const Device& d) { run<QuantizeImpl>(args, d); }
void dequantize(const DequantizeArgs& args, const Device& d) { run<DequantizeImpl>(args, d); }

}  // namespace nibble
