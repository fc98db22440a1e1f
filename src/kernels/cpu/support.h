// can_implement of the portable entries.
#pragma once

#include "ops/impl.h"

namespace nibble::cpu {

template <class Desc>
Support fp32_on_cpu(const Desc& desc, const DeviceInfo& device) {
  if (device.kind != DeviceKind::kCpu) return Support::no("runs on a CPU only");
  if (desc.type != DType::kF32) {
    return Support::no("activations must be F32, found {}", to_string(desc.type));
  }
  return Support::yes();
}

}  // namespace nibble::cpu
