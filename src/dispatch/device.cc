#include "nibble/device.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/cuda.h"
#include "base/env.h"
#include "base/host_arena.h"
#include "base/thread_pool.h"
#include "dispatch/cpu_features.h"
#include "dispatch/tables.h"
#include "dispatch/tuning.h"

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

constexpr size_t kWorkspaceAlignment = 256;
constexpr int kFirstSmWithPdl = 90;

using Memory = std::shared_ptr<void>;

Memory allocate(const DeviceInfo& device, size_t bytes) {
  if (device.kind == DeviceKind::kCuda) {
    auto buffer = std::make_shared<cuda::Buffer>(device.index, bytes);
    // Kernels may look for a mark of their own before one was left: never in memory without
    // content.
    const cuda::DeviceScope scope(device.index);
    cuda::fill(buffer->get(), 0, bytes, nullptr);
    cuda::synchronize(nullptr);
    return {buffer, buffer->get()};
  }
  void* memory = std::aligned_alloc(kWorkspaceAlignment, bytes);
  NIBBLE_CHECK(memory, ErrorCode::kDevice, "can't allocate {} bytes of workspace", bytes);
  return {memory, &std::free};
}

}  // namespace

struct Device::State {
  ForcedImpls forced;
  std::optional<TuningTable> tuning;  // that has choices
  std::optional<cuda::OwnedStream> own_stream;
  void* stream = nullptr;  // the own one or the caller's
  bool pdl = false;
  OpSeconds* timed_ops = nullptr;
  std::vector<Memory> workspaces;  // the last is the current one
  size_t workspace_bytes = 0;      // of the last
};

Device::Device(DeviceInfo info, int threads, std::string_view force_impl)
    : pool_(std::make_shared<ThreadPool>(threads)),
      arena_(std::make_shared<HostArena>()),
      state_(std::make_shared<State>()) {
  state_->forced = parse_forced(force_impl.empty() ? env("NIBBLE_FORCE_IMPL").value_or("")
                                                   : std::string(force_impl));
  info.threads = pool_->size();
  if (info.kind == DeviceKind::kCuda) {
    state_->stream = state_->own_stream.emplace(info.index).get();
  }
  if (const auto path = tuning_path(info)) {
    TuningTable table = TuningTable::read(*path, tuning_key(info));
    if (!table.empty()) state_->tuning = std::move(table);
  }
  info_ = std::make_shared<const DeviceInfo>(std::move(info));
}

Device Device::cpu(int threads, std::string_view force_impl) {
  DeviceInfo info;
  info.name = cpu_name();
  info.cpu = detect_cpu_features();
  return Device(std::move(info), threads, force_impl);
}

Device Device::cuda(int index, std::string_view force_impl) {
  cuda::Properties properties = cuda::properties(index);
  DeviceInfo info;
  info.kind = DeviceKind::kCuda;
  info.index = index;
  info.name = std::move(properties.name);
  info.sm = properties.sm;
  info.num_sms = properties.num_sms;
  info.bandwidth_gbps = properties.bandwidth_gbps;
  info.driver = std::move(properties.driver);
  return Device(std::move(info), 0, force_impl);
}

const TuningTable* Device::tuning() const { return state_->tuning ? &*state_->tuning : nullptr; }

std::string_view Device::forced_impl(std::string_view op) const {
  const auto it = state_->forced.find(op);
  return it == state_->forced.end() ? std::string_view() : it->second;
}

Stream Device::stream() const {
  return {info_->kind, pool_.get(), state_->stream, info_->index, state_->pdl, arena_.get()};
}

void Device::use_stream(void* cuda_stream) const {
  NIBBLE_CHECK(info_->kind == DeviceKind::kCuda, ErrorCode::kInvalidArgument,
               "use_stream: {} is not a CUDA device", info_->name);
  if (cuda_stream == nullptr) {
    cuda_stream = state_->own_stream->get();
  } else if (cuda_stream != state_->stream) {
    const int index = cuda::device_of_stream(cuda_stream);
    NIBBLE_CHECK(index == info_->index || index < 0, ErrorCode::kInvalidArgument,
                 "use_stream: expected a stream of CUDA device {}, found one of {}", info_->index,
                 index);
  }
  state_->stream = cuda_stream;
}

void Device::use_pdl(bool on) const {
  NIBBLE_CHECK(info_->kind == DeviceKind::kCuda, ErrorCode::kInvalidArgument,
               "use_pdl: {} is not a CUDA device", info_->name);
  NIBBLE_CHECK(info_->sm >= kFirstSmWithPdl, ErrorCode::kUnsupported,
               "use_pdl: needs sm_{} or later, found {} of sm_{}", kFirstSmWithPdl, info_->name,
               info_->sm);
  state_->pdl = on;
}

void Device::synchronize() const {
  if (state_->stream != nullptr) cuda::synchronize(state_->stream);
}

void Device::time_ops(OpSeconds* seconds) const { state_->timed_ops = seconds; }
OpSeconds* Device::timed_ops() const { return state_->timed_ops; }

// Outgrown blocks are kept. Each is at least twice the one before, so they add up to less than the
// current one.
void Device::reserve_workspace(size_t bytes) const {
  State& s = *state_;
  if (bytes <= s.workspace_bytes) return;
  bytes = std::max(bytes, 2 * s.workspace_bytes);
  bytes = (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
  s.workspaces.push_back(allocate(*info_, bytes));
  s.workspace_bytes = bytes;
}

void* Device::workspace() const {
  return state_->workspaces.empty() ? nullptr : state_->workspaces.back().get();
}

}  // namespace nibble
