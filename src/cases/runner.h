// Runs the cases of one op on every implementation. A case class has
//   Case(const CaseRow&, const Device&)           makes the inputs
//   Support adapt(const Impl&, const Device&)     whether it takes the case, in whatever layout
//   std::vector<size_t> output_bytes() const
//   void initialize(outputs) const                for ops that work in place
//   Args args(outputs) const
//   std::string compare(found, expected) const    "" or what is wrong
#pragma once

#include <cstring>
#include <functional>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "cases/case_file.h"
#include "dispatch/tables.h"
#include "nibble/selftest.h"

namespace nibble::cases {

// An output with a guard on either side.
class GuardedBuffer {
 public:
  explicit GuardedBuffer(size_t bytes) : memory_(bytes + 2 * kGuard, kSentinel) { poison(); }
  uint8_t* data() { return memory_.data() + kGuard; }
  std::span<const uint8_t> bytes() const {
    return {memory_.data() + kGuard, memory_.size() - 2 * kGuard};
  }
  // 0xFF: a NaN in every float type, and no valid count, code pair or scale in most places.
  void poison() { std::memset(data(), 0xFF, bytes().size()); }
  bool guards_hold() const {
    for (size_t i = 0; i < kGuard; ++i) {
      if (memory_[i] != kSentinel || memory_[memory_.size() - 1 - i] != kSentinel) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 128;
  static constexpr uint8_t kSentinel = 0xA5;
  std::vector<uint8_t> memory_;
};
using Outputs = std::vector<GuardedBuffer>;

template <class Impl, class Case>
void launch(const Impl& impl, const Case& c, const KernelConfig& config, const Device& device,
            Outputs& outputs) {
  for (GuardedBuffer& out : outputs) out.poison();
  c.initialize(outputs);
  typename Impl::Args args = c.args(outputs);
  std::vector<uint8_t> workspace;
  if constexpr (requires { args.workspace; }) {
    if (impl.workspace_bytes) {
      workspace.resize(impl.workspace_bytes(args.desc, config, device.info()) + 64);
      // Poisoned too: a kernel may not count on what an earlier call left there.
      std::memset(workspace.data(), 0xFF, workspace.size());
      const auto address = reinterpret_cast<uintptr_t>(workspace.data());
      args.workspace = workspace.data() + (64 - address % 64);
    }
  }
  validate(args);
  impl.launch(args, config, device.stream());
}

// "" or what is wrong.
template <class Impl, class Case>
std::string check(const Impl& impl, const Case& c, const KernelConfig& config, const Device& device,
                  const Outputs& expected) {
  Outputs first, second;
  for (const size_t bytes : c.output_bytes()) first.emplace_back(bytes), second.emplace_back(bytes);
  launch(impl, c, config, device, first);
  launch(impl, c, config, device, second);
  for (size_t i = 0; i < first.size(); ++i) {
    if (!first[i].guards_hold()) return fmt::format("wrote outside of output {}", i);
    if (std::memcmp(first[i].data(), second[i].data(), first[i].bytes().size()) != 0) {
      return fmt::format("output {} differs from one run to the next", i);
    }
  }
  return c.compare(first, expected);
}

template <class Impl, class Case>
void run_op(const Device& device, std::string_view filter,
            const std::function<void(const CaseResult&)>& on_result) {
  static constexpr KernelConfig kDefault[1] = {};
  const std::span<const Impl> all = impls<Impl>();
  const Impl& reference = all.back();
  for (const CaseRow& row : builtin_cases(kOpName<Impl>)) {
    Case c(row, device);
    if (const Support s = c.adapt(reference, device); !s) {
      fail(ErrorCode::kInternal, "{} refuses case {}: {}", reference.name, row.id(), s.reason);
    }
    Outputs expected;
    for (const size_t bytes : c.output_bytes()) expected.emplace_back(bytes);
    launch(reference, c, kDefault[0], device, expected);
    for (const Impl& impl : all) {
      if (impl.name.find(filter) == std::string_view::npos) continue;
      CaseResult result{std::string(kOpName<Impl>), std::string(impl.name), row.id(),
                        CaseResult::Status::kPassed, ""};
      if (const Support s = c.adapt(impl, device); !s) {
        result.status = CaseResult::Status::kRefused;
        result.detail = s.reason;
        on_result(result);
        continue;
      }
      const auto desc = c.args(expected).desc;
      const auto configs = impl.candidates ? impl.candidates(desc, device.info())
                                           : std::span<const KernelConfig>(kDefault);
      for (const KernelConfig& config : configs) {
        result.detail = check(impl, c, config, device, expected);
        if (result.detail.empty()) continue;
        result.status = CaseResult::Status::kFailed;
        result.detail = fmt::format("[{}] {}", to_string(config), result.detail);
        break;
      }
      on_result(result);
    }
  }
}

using ResultSink = std::function<void(const CaseResult&)>;
void run_gemm_cases(const Device& device, std::string_view filter, const ResultSink& sink);
void run_quantize_cases(const Device& device, std::string_view filter, const ResultSink& sink);
void run_model_op_cases(const Device& device, std::string_view filter, const ResultSink& sink);

}  // namespace nibble::cases
