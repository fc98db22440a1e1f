#include "nibble/device.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>

#include "base/check.h"
#include "base/env.h"
#include "base/thread_pool.h"
#include "dispatch/cpu_features.h"
#include "dispatch/tables.h"

namespace nibble {
namespace {

using ForcedImpls = std::map<std::string, std::string, std::less<>>;

// "gemm=ref_gemm,rope=ref_rope", every name checked against the tables.
ForcedImpls parse_forced(std::string_view text) {
  ForcedImpls forced;
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    if (item.empty()) continue;
    const size_t equals = item.find('=');
    NIBBLE_CHECK(equals != std::string_view::npos, ErrorCode::kInvalidArgument,
                 "NIBBLE_FORCE_IMPL: expected op=name,op=name, found '{}'", item);
    const std::string_view op = item.substr(0, equals);
    const std::string_view name = item.substr(equals + 1);
    const auto tables = op_tables();
    const auto table = std::ranges::find(tables, op, &OpTable::op);
    if (table == tables.end()) {
      std::vector<std::string_view> ops;
      for (const OpTable& t : tables) ops.push_back(t.op);
      fail(ErrorCode::kInvalidArgument, "NIBBLE_FORCE_IMPL: unknown op '{}'; known: {}", op,
           fmt::join(ops, ", "));
    }
    NIBBLE_CHECK(std::ranges::find(table->impls, name) != table->impls.end(),
                 ErrorCode::kInvalidArgument,
                 "NIBBLE_FORCE_IMPL: unknown implementation '{}' of {}; known: {}", name, op,
                 fmt::join(table->impls, ", "));
    forced[std::string(op)] = name;
  }
  return forced;
}

constexpr size_t kWorkspaceAlignment = 64;

}  // namespace

struct Device::State {
  ForcedImpls forced;
  std::unique_ptr<void, decltype(&std::free)> workspace{nullptr, &std::free};
  size_t workspace_bytes = 0;
};

Device Device::cpu(int threads, std::string_view force_impl) {
  Device device;
  device.state_ = std::make_shared<State>();
  device.state_->forced = parse_forced(force_impl.empty() ? env("NIBBLE_FORCE_IMPL").value_or("")
                                                          : std::string(force_impl));
  device.pool_ = std::make_shared<ThreadPool>(threads);
  DeviceInfo info;
  info.name = cpu_name();
  info.cpu = detect_cpu_features();
  info.threads = device.pool_->size();
  device.info_ = std::make_shared<const DeviceInfo>(std::move(info));
  return device;
}

std::string_view Device::forced_impl(std::string_view op) const {
  const auto it = state_->forced.find(op);
  return it == state_->forced.end() ? std::string_view() : it->second;
}

void Device::reserve_workspace(size_t bytes) const {
  if (bytes <= state_->workspace_bytes) return;
  bytes = (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
  state_->workspace.reset(std::aligned_alloc(kWorkspaceAlignment, bytes));
  state_->workspace_bytes = state_->workspace ? bytes : 0;
  NIBBLE_CHECK(state_->workspace, ErrorCode::kDevice, "can't allocate {} bytes of workspace",
               bytes);
}

void* Device::workspace() const { return state_->workspace.get(); }

}  // namespace nibble
