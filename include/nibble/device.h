// The chip that work runs on, and what is known about it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "nibble/types.h"

namespace nibble {

class HostArena;
class ThreadPool;
class TuningTable;

// Instruction sets found at run time (x86-64; all false elsewhere).
struct CpuFeatures {
  bool avx2 = false;  // with FMA and F16C
  bool avx_vnni = false;
  bool avx512 = false;  // F, BW, VL, DQ, VBMI
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool amx_int8 = false;
  bool amx_bf16 = false;
};

// What implementations decide by. Plain data, so that a test can describe a chip that is not there.
struct DeviceInfo {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  std::string name;
  CpuFeatures cpu;
  int threads = 1;              // of the pool; kCpu: that share one op
  int sm = 0;                   // kCuda: 90 for H100/H200, 120 for RTX 50, ...
  int num_sms = 0;              // kCuda
  double bandwidth_gbps = 0.0;  // kCuda: DRAM read, from the card's clocks and bus width
  std::string driver;           // kCuda: the kernel module's version
};

// Where an op is put in order: a CPU's threads or a CUDA stream (a cudaStream_t).
struct Stream {
  DeviceKind kind = DeviceKind::kCpu;
  ThreadPool* pool = nullptr;
  void* cuda = nullptr;
  int index = 0;     // of the CUDA device
  bool pdl = false;  // programmatic dependent launch: kernels may start while the one before ends
  HostArena* arena = nullptr;  // kCpu: for prepared weights; null: each gets its own memory
  bool load = false;           // launches only bring their kernels into the device's memory
};

// Seconds by op ("gemm", "attention", ...).
using OpSeconds = std::map<std::string_view, double>;

// A handle that can be copied; its threads live as long as one copy does. One thread at a time may
// run ops on a device.
class Device {
 public:
  // `threads` = 0: every core that this process may use. `force_impl`, else the environment's
  // NIBBLE_FORCE_IMPL, names implementations to take whatever the tables say:
  // "op=name,op=name". Throws kInvalidArgument, listing the known ones, for an unknown op or name.
  static Device cpu(int threads = 0, std::string_view force_impl = {});

  // CUDA device `index`, with a stream of its own that ops are put in order on. Throws kDevice
  // where this machine or this build of Nibble has no such device.
  static Device cuda(int index = 0, std::string_view force_impl = {});

  const DeviceInfo& info() const { return *info_; }
  Stream stream() const;
  ThreadPool& pool() const { return *pool_; }

  // What `nibble tune` wrote about this device under NIBBLE_CACHE_DIR (see docs/dispatch.md), read
  // when the device was opened: that may throw kIo and kInvalidArgument. Null where there is none.
  const TuningTable* tuning() const;

  // The implementation that was forced for this op, or empty.
  std::string_view forced_impl(std::string_view op) const;

  // Puts the ops of this device, of all its copies and of the plans made from it on a stream of the
  // caller's from now on; null: on the device's own again. cudaStreamLegacy names the default
  // stream. What was put on the other stream before is not waited for. Throws kInvalidArgument on a
  // CPU and for a stream of another device.
  void use_stream(void* cuda_stream) const;

  // Programmatic dependent launch, for this device, all its copies and the plans made from it: off
  // at first. While it is on, the kernels of ops that can may start while what stands in front of
  // them on the stream ends: they load weights, and wait for its end before they touch anything
  // else. In a captured graph GEMMs of up to 64 tokens took 3 to 17 % less time on an H200; outside
  // of one a launch took 1 us more of the host. Nothing in front may write what a plan was made
  // with (weights, bias). Throws kInvalidArgument on a CPU, kUnsupported before sm_90.
  void use_pdl(bool on) const;

  // Waits until what was put on the stream is done, and throws kDevice if it went wrong. A CPU's
  // ops are done when they return.
  void synchronize() const;

  // Adds what each op takes to `seconds` from now on, for this device and all its copies; null:
  // nowhere. For a CPU: other devices' ops return before they are done.
  void time_ops(OpSeconds* seconds) const;
  OpSeconds* timed_ops() const;

  // Scratch memory that the device's ops take turns with. reserve grows it; both are for plans.
  // What workspace() gave stays valid as long as the device: a captured graph may hold it.
  void reserve_workspace(size_t bytes) const;
  void* workspace() const;

 private:
  struct State;
  Device(DeviceInfo info, int threads, std::string_view force_impl);
  std::shared_ptr<const DeviceInfo> info_;
  std::shared_ptr<ThreadPool> pool_;
  std::shared_ptr<HostArena> arena_;
  std::shared_ptr<State> state_;
};

}  // namespace nibble
