#include "tests/emulator/machine.h"

#include <algorithm>
#include <cstdio>

namespace nibble::emulator {

uint64_t events = 0;

namespace {

constexpr int kMostIdlePasses = 1000;
constexpr uint32_t kLongestTurn = 512;

// How many instructions a warp has until another's turn: each time another number, so that what one
// does too early another sees, and each run the same ones.
uint32_t pseudo_random() {
  static uint32_t state = 1;
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}
uint32_t turn() { return 16 + pseudo_random() % kLongestTurn; }

std::string hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

void fill_special(Warp& w, const Launch& launch, uint32_t first_thread, Dim at, uint32_t rank,
                  uint32_t cluster_index) {
  const Dim b = launch.block;
  const auto set = [&](Special which, int lane, uint32_t value) {
    reinterpret_cast<uint32_t*>(w.registers.data() + which * kSpecialBytes)[lane] = value;
  };
  for (int l = 0; l < kLanes; ++l) {
    const uint32_t thread = first_thread + l;
    set(kTidX, l, thread % b.x);
    set(kTidY, l, thread / b.x % b.y);
    set(kTidZ, l, thread / b.x / b.y);
    set(kNtidX, l, b.x);
    set(kNtidY, l, b.y);
    set(kNtidZ, l, b.z);
    set(kCtaidX, l, at.x);
    set(kCtaidY, l, at.y);
    set(kCtaidZ, l, at.z);
    set(kNctaidX, l, launch.grid.x);
    set(kNctaidY, l, launch.grid.y);
    set(kNctaidZ, l, launch.grid.z);
    set(kLaneId, l, l);
    set(kWarpId, l, first_thread / kLanes);
    set(kClusterCtarank, l, rank);
    set(kClusterNctarank, l, launch.cluster.count());
    set(kClusterIdX, l, cluster_index);
    set(kNClusterIdX, l, launch.grid.x / launch.cluster.x);
    set(kSmId, l, 0);
    reinterpret_cast<uint64_t*>(w.registers.data() + kLocalBase)[l] =
        reinterpret_cast<uint64_t>(w.local.data() + l * launch.function->local_bytes);
  }
}

// Register files of warps that have ended: to clear a new one costs more than to run the warp.
std::vector<std::vector<uint8_t>> spare_files;
std::vector<uint8_t> take(size_t bytes) {
  std::vector<uint8_t> file;
  if (!spare_files.empty()) {
    file = std::move(spare_files.back());
    spare_files.pop_back();
  }
  file.resize(std::max(file.size(), bytes), kGarbage);
  return file;
}

// Clusters of one dimension, as they lie in the grid: along x.
std::unique_ptr<Cluster> make_cluster(const Launch& launch, uint32_t index) {
  const Function& f = *launch.function;
  auto cluster = std::make_unique<Cluster>();
  const uint32_t size = launch.cluster.count();
  const uint32_t per_row = launch.grid.x / launch.cluster.x;
  const uint32_t threads = launch.block.count();
  for (uint32_t rank = 0; rank < size; ++rank) {
    auto block = std::make_unique<Block>();
    block->cluster = cluster.get();
    block->shared_end = static_cast<uint32_t>(kSharedBase + f.shared_bytes + launch.dynamic_shared);
    block->shared_storage.assign(block->shared_end + kSharedBase, kGarbage);
    const auto base = reinterpret_cast<uint64_t>(block->shared_storage.data());
    block->shared = block->shared_storage.data() + (kSharedBase - base % kSharedBase) % kSharedBase;
    const Dim at = {index % per_row * launch.cluster.x + rank, index / per_row % launch.grid.y,
                    index / per_row / launch.grid.y};
    for (uint32_t first = 0; first < threads; first += kLanes) {
      auto warp = std::make_unique<Warp>();
      warp->block = block.get();
      warp->launch = &launch;
      warp->constants = f.constants.data();
      warp->registers = take(f.register_bytes);
      warp->local.assign(f.local_bytes * kLanes, kGarbage);
      const uint32_t lanes = std::min<uint32_t>(kLanes, threads - first);
      warp->live = lanes == kLanes ? kAllLanes : (1u << lanes) - 1;
      fill_special(*warp, launch, first, at, rank, index % per_row);
      block->warps.push_back(std::move(warp));
    }
    cluster->blocks.push_back(std::move(block));
  }
  return cluster;
}

// False once all its warps have ended.
bool run_cluster(Cluster& cluster) {
  cluster.deliver();
  bool alive = false;
  for (auto& block : cluster.blocks) {
    for (auto& warp : block->warps) {
      if (warp->done()) continue;
      alive = true;
      if (!warp->at_barrier) warp->run();
    }
  }
  return alive;
}

std::string where(const Cluster& cluster) {
  std::string text;
  for (const auto& block : cluster.blocks) {
    for (const auto& warp : block->warps) {
      if (warp->done()) continue;
      text += "\n  a warp waits at: " +
              warp->launch->function->code[warp->pc[__builtin_ctz(warp->live)]].text;
    }
  }
  return text.substr(0, 2000);
}

}  // namespace

std::map<std::string, Special, std::less<>> special_registers() {
  return {{"%tid.x", kTidX},
          {"%tid.y", kTidY},
          {"%tid.z", kTidZ},
          {"%ntid.x", kNtidX},
          {"%ntid.y", kNtidY},
          {"%ntid.z", kNtidZ},
          {"%ctaid.x", kCtaidX},
          {"%ctaid.y", kCtaidY},
          {"%ctaid.z", kCtaidZ},
          {"%nctaid.x", kNctaidX},
          {"%nctaid.y", kNctaidY},
          {"%nctaid.z", kNctaidZ},
          {"%laneid", kLaneId},
          {"%warpid", kWarpId},
          {"%cluster_ctarank", kClusterCtarank},
          {"%cluster_nctarank", kClusterNctarank},
          {"%clusterid.x", kClusterIdX},
          {"%nclusterid.x", kNClusterIdX},
          {"%smid", kSmId}};
}

void Block::arrive(uint32_t id, uint32_t threads, Warp* waiting) {
  Barrier& b = barriers[id];
  b.expected = threads;
  b.arrived += kLanes;
  if (waiting != nullptr) {
    waiting->at_barrier = true;
    b.waiting.push_back(waiting);
  }
  check_barriers();
}

void Block::check_barriers() {
  const auto live =
      static_cast<uint32_t>(std::ranges::count_if(warps, [](const auto& w) { return !w->done(); }));
  for (auto& [id, b] : barriers) {
    if (b.arrived == 0 || b.arrived < (b.expected != 0 ? b.expected : live * kLanes)) continue;
    b.arrived = 0;
    ++events;
    for (Warp* w : b.waiting) w->at_barrier = false;
    b.waiting.clear();
  }
}

void Cluster::check_arrived() {
  bool one = false;
  for (const auto& block : blocks) {
    for (const auto& warp : block->warps) {
      if (!warp->done() && warp->cluster_phase <= phase) return;
      one |= warp->cluster_phase > phase;
    }
  }
  if (!one) return;
  ++phase;
  ++events;
}

void Cluster::deliver() {
  const auto is_done = [](const auto& warp) { return warp->done(); };
  std::erase_if(under_way, [&](const Delivery& d) {
    if (std::ranges::all_of(d.to->warps, is_done)) {
      throw Fault("a block ended before a copy to it had arrived");
    }
    ++events;
    if (pseudo_random() >> 16 & 1) return false;
    d.arrive();
    return true;
  });
}

const Block& Warp::block_of(uint64_t address) const {
  const uint32_t rank = static_cast<uint32_t>(address) >> kRankShift;
  const auto& blocks = block->cluster->blocks;
  if (rank > blocks.size()) throw Fault("no block of the cluster at " + hex(address));
  return rank == 0 ? *block : *blocks[rank - 1];
}

uint8_t* Warp::other_shared(uint64_t address, size_t bytes) {
  const uint32_t offset = static_cast<uint32_t>(address) & ((1u << kRankShift) - 1);
  const Block& of = block_of(address);
  if (offset % bytes != 0) throw Fault("misaligned shared address " + hex(address));
  if (offset < kSharedBase || offset + bytes > of.shared_end) {
    throw Fault("shared address " + hex(address) + " is outside of the block's " +
                std::to_string(of.shared_end - kSharedBase) + " bytes");
  }
  return of.shared + offset;
}

uint8_t* Warp::global(uint64_t address, size_t bytes) {
  if (address % bytes != 0) throw Fault("misaligned address " + hex(address));
  const auto mine = reinterpret_cast<uint64_t>(local.data());
  const auto parameters = reinterpret_cast<uint64_t>(launch->parameters.data());
  const bool known =
      memory().contains(address, bytes) ||
      (address >= mine && address + bytes <= mine + local.size()) ||
      (address >= parameters && address + bytes <= parameters + launch->parameters.size());
  if (!known) throw Fault("address " + hex(address) + " is not allocated");
  return reinterpret_cast<uint8_t*>(address);
}

// The lanes that may run `i` now.
uint32_t Warp::ready(const Instruction& i, uint32_t lanes) {
  if (i.kind == Kind::kBarrier) return lanes == live ? lanes : 0;
  if (i.kind != Kind::kCollective) return lanes;
  uint32_t members = live;
  if (i.members >= 0) members &= values<uint32_t>(i.operands[i.members])[__builtin_ctz(lanes)];
  return (members & lanes) == members ? members & lanes : 0;
}

// Of the lanes at the lowest place those that can go on; those that have waited in vain last.
void Warp::choose_lanes() {
  for (const uint32_t among : {live & ~tired, live}) {
    for (uint32_t rest = among; rest != 0;) {
      uint32_t lowest = ~0u, lanes = 0;
      for_lanes(rest, [&](int l) { lowest = std::min(lowest, pc[l]); });
      for_lanes(live, [&](int l) { lanes |= uint32_t{pc[l] == lowest} << l; });
      rest &= ~lanes;
      if (const uint32_t now = ready(launch->function->code[lowest], lanes)) {
        active = now;
        at = lowest;
        tired = 0;
        return;
      }
    }
  }
  std::string text = "lanes of a warp wait for each other:";
  for_lanes(live, [&](int l) { text += "\n  " + launch->function->code[pc[l]].text; });
  throw Fault(text.substr(0, 2000));
}

void Warp::run() {
  const std::vector<Instruction>& code = launch->function->code;
  yield = false;
  uint32_t left = turn();
  while (live != 0 && !at_barrier && !yield) {
    choose_lanes();
    // Where others wait for these lanes to come.
    uint32_t meeting = ~0u;
    for_lanes(live & ~active, [&](int l) {
      if (pc[l] > at) meeting = std::min(meeting, pc[l]);
    });
    const auto leave = [&](uint32_t lanes, uint32_t to) {
      for_lanes(lanes, [&](int l) { pc[l] = to; });
    };
    for (;;) {
      const Instruction& i = code[at];
      if (--left == 0) {
        leave(active, at);
        ++events;
        yield = true;
        break;
      }
      uint32_t lanes = active;
      if (i.guard != kNoGuard) {
        const uint32_t bits = *reinterpret_cast<const uint32_t*>(registers.data() + i.guard);
        lanes &= i.negated ? ~bits : bits;
      }
      if (i.kind == Kind::kPlain || (i.kind == Kind::kBranch && lanes == 0)) {
        if (lanes != 0) i.run(*this, i, lanes);
        ++at;
        if (yield) {
          leave(active, at);
          tired = active;
          break;
        }
        if (at == meeting) {
          leave(active, at);
          break;
        }
        continue;
      }
      if (i.kind == Kind::kBranch) {
        if (lanes == active && active == live) {
          at = i.target;
          continue;
        }
        leave(lanes, i.target);
        leave(active & ~lanes, at + 1);
        break;
      }
      if (i.kind == Kind::kExit) {
        leave(active & ~lanes, at + 1);
        live &= ~lanes;
        if (live == 0) {
          ++events;
          block->check_barriers();
          block->cluster->check_arrived();
        }
        break;
      }
      if (i.kind == Kind::kRetry) {
        retry = false;
        if (lanes != 0) i.run(*this, i, lanes);
        leave(active, retry ? at : at + 1);
        if (retry) {
          tired = active;
          yield = true;
        }
        break;
      }
      // A collective or a barrier: with all that it takes, or later.
      if (ready(i, active) != active) {
        leave(active, at);
        break;
      }
      if (lanes != 0) i.run(*this, i, lanes);
      ++at;
      if (i.kind == Kind::kBarrier || at == meeting) {
        leave(active, at);
        break;
      }
    }
  }
}

void run(const Launch& launch) {
  const uint32_t clusters = launch.grid.count() / launch.cluster.count();
  std::vector<std::unique_ptr<Cluster>> resident;
  uint32_t started = 0;
  int idle = 0;
  while (started < clusters || !resident.empty()) {
    const uint64_t before = events;
    std::erase_if(resident, [](auto& cluster) {
      if (run_cluster(*cluster)) return false;
      for (auto& block : cluster->blocks) {
        for (auto& warp : block->warps) spare_files.push_back(std::move(warp->registers));
      }
      return true;
    });
    if (events != before && !resident.empty()) {
      idle = 0;
    } else if (started < clusters) {
      resident.push_back(make_cluster(launch, started++));
    } else if (!resident.empty() && ++idle > kMostIdlePasses) {
      throw Fault(launch.function->name + " goes no further:" + where(*resident.front()));
    }
  }
}

}  // namespace nibble::emulator
