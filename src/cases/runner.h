// Runs the cases of one op on every implementation. A case class has
//   Case(const CaseRow&, const Device& host, const Device&)   makes the inputs, in host memory
//   Support adapt(const Impl&, const Device&)     whether it takes the case, in whatever layout
//   std::vector<size_t> output_bytes() const
//   void initialize(outputs) const                host(), for ops that work in place
//   Args args(outputs, inputs) const              data() and inputs(vector)
//   std::string compare(found, expected) const    "" or what is wrong
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/cuda.h"
#include "cases/case_file.h"
#include "dispatch/tables.h"
#include "nibble/selftest.h"
#include "ops/kernel_list.h"

namespace nibble::cases {

// Host memory as a launch on `device` finds it: in place on a CPU, copied on a CUDA device.
class Inputs {
 public:
  explicit Inputs(const Device& device) : stream_(device.stream()) {}

  template <class T>
  T* operator()(const std::vector<T>& host) {
    return static_cast<T*>(place(host.data(), host.size() * sizeof(T)));
  }

 private:
  void* place(const void* host, size_t bytes);

  Stream stream_;
  std::vector<cuda::Buffer> copies_;
};

// An output with a guard on either side, written in host memory or, for a CUDA device, on it.
class GuardedBuffer {
 public:
  GuardedBuffer(size_t bytes, const Device& device);

  uint8_t* data() { return (device_.data() ? device_.data() : memory_.data()) + kGuard; }

  // The copy in host memory: what a case initializes, and what is there after download().
  uint8_t* host() { return memory_.data() + kGuard; }
  std::span<const uint8_t> bytes() const {
    return {memory_.data() + kGuard, memory_.size() - 2 * kGuard};
  }
  // 0xFF: a NaN in every float type, and no valid count, code pair or scale in most places.
  void poison() { std::memset(host(), 0xFF, bytes().size()); }
  void upload();
  void download();
  bool guards_hold() const;

 private:
  static constexpr size_t kGuard = 256;
  static constexpr uint8_t kSentinel = 0xA5;
  std::vector<uint8_t> memory_;
  Stream stream_;
  cuda::Buffer device_;
};
using Outputs = std::vector<GuardedBuffer>;

template <class Case>
Outputs make_outputs(const Case& c, const Device& device) {
  Outputs outputs;
  for (const size_t bytes : c.output_bytes()) outputs.emplace_back(bytes, device);
  return outputs;
}

template <class Impl, class Case>
void launch(const Impl& impl, const Case& c, const KernelConfig& config, const Device& device,
            Outputs& outputs) {
  for (GuardedBuffer& out : outputs) out.poison();
  c.initialize(outputs);
  for (GuardedBuffer& out : outputs) out.upload();
  Inputs inputs(device);
  typename Impl::Args args = c.args(outputs, inputs);
  std::optional<GuardedBuffer> workspace;
  if constexpr (requires { args.workspace; }) {
    if (impl.workspace_bytes) {
      // Poisoned too: a kernel may not count on what an earlier call left there.
      workspace.emplace(impl.workspace_bytes(args.desc, config, device.info()), device);
      workspace->poison();
      workspace->upload();
      args.workspace = workspace->data();
    }
  }
  validate(args);
  impl.launch(args, config, device.stream());
  device.synchronize();
  for (GuardedBuffer& out : outputs) out.download();
  if (!workspace) return;
  workspace->download();
  NIBBLE_CHECK(workspace->guards_hold(), ErrorCode::kInternal, "{} wrote outside of its workspace",
               impl.name);
}

// "" or what is wrong.
template <class Impl, class Case>
std::string check(const Impl& impl, const Case& c, const KernelConfig& config, const Device& device,
                  const Outputs& expected) {
  Outputs first = make_outputs(c, device), second = make_outputs(c, device);
  launch(impl, c, config, device, first);
  launch(impl, c, config, device, second);
  for (size_t i = 0; i < first.size(); ++i) {
    if (!first[i].guards_hold()) return fmt::format("wrote outside of output {}", i);
    if (std::ranges::equal(first[i].bytes(), second[i].bytes())) continue;
    return fmt::format("output {} differs from one run to the next", i);
  }
  return c.compare(first, expected);
}

// The reference runs on the host, whatever the device. `more` implementations are tried beside the
// table's; `for_case` goes to the cases' constructor.
template <class Impl, class Case, class... ForCase>
void run_op(const Device& device, std::string_view filter,
            const std::function<void(const CaseResult&)>& on_result,
            std::span<const Impl> more = {}, const ForCase&... for_case) {
  static constexpr KernelConfig kDefault[1] = {};
  std::vector<Impl> all(more.begin(), more.end());
  all.insert(all.end(), impls<Impl>().begin(), impls<Impl>().end());
  const Impl& reference = all.back();
  const Device host = device.info().kind == DeviceKind::kCpu ? device : Device::cpu();
  for (const CaseRow& row : builtin_cases(kOpName<Impl>)) {
    Case c(row, host, device, for_case...);
    if (const Support s = c.adapt(reference, host); !s) {
      fail(ErrorCode::kInternal, "{} refuses case {}: {}", reference.name, row.id(), s.reason);
    }
    Outputs expected = make_outputs(c, host);
    launch(reference, c, kDefault[0], host, expected);
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
      Inputs inputs(host);
      const auto desc = c.args(expected, inputs).desc;
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
// `more`: layouts and GEMMs that are not in the dispatcher's tables.
void run_gemm_cases(const Device& device, std::string_view filter, const ResultSink& sink,
                    const KernelList& more = {});
void run_quantize_cases(const Device& device, std::string_view filter, const ResultSink& sink);
void run_model_op_cases(const Device& device, std::string_view filter, const ResultSink& sink);

}  // namespace nibble::cases
