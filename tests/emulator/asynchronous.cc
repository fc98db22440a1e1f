// Copies beside the threads and what counts them.
#include <bit>

#include "tests/emulator/machine.h"
#include "tests/emulator/tensor_map.h"

namespace nibble::emulator {
namespace {

void nothing(Warp&, const Instruction&, uint32_t) {}

// [to], [from], bytes[, of which from memory]
void copy_async(Warp& w, const Instruction& i, uint32_t lanes) {
  for_lanes(lanes, [&](int l) {
    const uint32_t bytes = w.values<uint32_t>(i.operands[2])[l];
    const uint32_t valid = i.operands.size() > 3 ? w.values<uint32_t>(i.operands[3])[l] : bytes;
    const uint64_t from = w.address(i.operands[1], l);
    if (from % bytes != 0) throw Fault("cp.async from a misaligned address");
    if (valid > 0 && !memory().contains(from, valid)) throw Fault("cp.async from nowhere");
    w.copies.add({w.shared(w.address(i.operands[0], l), bytes), reinterpret_cast<const void*>(from),
                  bytes, valid});
  });
}
// A lane's groups are its own; here they are the warp's. Where only some lanes close one, the
// others' copies arrive no later than they should.
void commit_copies(Warp& w, const Instruction&, uint32_t) { w.copies.commit(); }
void wait_copies(Warp& w, const Instruction& i, uint32_t) {
  w.copies.wait(*w.values<uint32_t>(i.operands[0]), [](const Warp::Copy& copy) {
    std::memset(copy.to, 0, copy.bytes);
    std::memcpy(copy.to, copy.from, copy.valid);
  });
}

// An mbarrier in its 64 bits: arrivals still to come, those of a phase, bytes still to come (may be
// below zero for a while), and the phase's parity.
struct Barrier {
  uint64_t pending : 20, expected : 20;
  int64_t bytes : 22;
  uint64_t unused : 1, parity : 1;

  void check() {
    if (pending != 0 || bytes != 0) return;
    parity ^= 1;
    pending = expected;
  }
};
static_assert(sizeof(Barrier) == 8);

template <class F>
void at_barrier(Warp& w, uint64_t address, const F& change) {
  uint8_t* at = w.shared(address, sizeof(Barrier));
  Barrier b;
  std::memcpy(&b, at, sizeof b);
  change(b);
  std::memcpy(at, &b, sizeof b);
  ++events;
}
void arrive(Barrier& b) {
  if (b.pending == 0) throw Fault("more arrive at an mbarrier than it was made for");
  b.pending -= 1;
  b.check();
}
void complete(Warp& w, uint64_t address, int64_t bytes) {
  at_barrier(w, address, [&](Barrier& b) {
    b.bytes -= bytes;
    b.check();
  });
}

void barrier_init(Warp& w, const Instruction& i, uint32_t lanes) {
  for_lanes(lanes, [&](int l) {
    const uint32_t count = w.values<uint32_t>(i.operands[1])[l];
    at_barrier(w, w.address(i.operands[0], l), [&](Barrier& b) { b = {count, count, 0, 0, 0}; });
  });
}
void barrier_arrive(Warp& w, const Instruction& i, uint32_t lanes) {
  for_lanes(lanes, [&](int l) { at_barrier(w, w.address(i.operands[1], l), arrive); });
}
void barrier_expect(Warp& w, const Instruction& i, uint32_t lanes) {
  for_lanes(lanes, [&](int l) {
    at_barrier(w, w.address(i.operands[1], l), [&](Barrier& b) {
      b.bytes += w.values<uint32_t>(i.operands[2])[l];
      arrive(b);
    });
  });
}
void barrier_wait(Warp& w, const Instruction& i, uint32_t lanes) {
  uint32_t over = 0;
  for_lanes(lanes, [&](int l) {
    Barrier b;
    std::memcpy(&b, w.shared(w.address(i.operands[1], l), sizeof b), sizeof b);
    over |= uint32_t{b.parity != w.values<uint32_t>(i.operands[2])[l]} << l;
  });
  w.put_predicate(i.operands[0], over, lanes);
  w.yield = over != lanes;
}

// [to], [from], bytes, [barrier]
void copy_bulk(Warp& w, const Instruction& i, uint32_t lanes) {
  for_lanes(lanes, [&](int l) {
    const uint32_t bytes = w.values<uint32_t>(i.operands[2])[l];
    const uint64_t to = w.address(i.operands[0], l), from = w.address(i.operands[1], l);
    if (to % 16 != 0 || from % 16 != 0 || bytes % 16 != 0 || bytes == 0) {
      throw Fault("cp.async.bulk wants multiples of 16");
    }
    if (!memory().contains(from, bytes)) throw Fault("cp.async.bulk from nowhere");
    w.shared(to + bytes - 1, 1);
    w.block->cluster->under_way.push_back(
        {&w.block_of(to), [&w, to, from, bytes, barrier = w.address(i.operands[3], l)] {
           std::memcpy(w.shared(to, 16), reinterpret_cast<const void*>(from), bytes);
           complete(w, barrier, bytes);
         }});
  });
}

// [to], [map, {coordinates}], [barrier][, blocks]
template <int kRank>
void copy_tensor(Warp& w, const Instruction& i, uint32_t lanes) {
  for_lanes(lanes, [&](int l) {
    TensorMap map;
    std::memcpy(&map, reinterpret_cast<const void*>(w.address(i.operands[1], l)), sizeof map);
    if (map.rank != kRank) throw Fault("a tensor map of another rank");
    int at[3] = {};
    for (int k = 0; k < kRank; ++k) at[k] = w.values<int32_t>(i.operands[2 + k])[l];
    const Operand* rest = &i.operands[2 + kRank];
    const uint64_t to = w.address(i.operands[0], l), barrier = w.address(rest[0], l);
    if (to % 128 != 0) throw Fault("a tensor copy to a misaligned address");
    const bool multicast = i.operands.size() == 4 + kRank;
    const uint32_t blocks = multicast ? w.values<uint16_t>(rest[1])[l] : 1;
    for_lanes(blocks, [&](int b) {
      const uint64_t block = multicast ? uint64_t(b + 1) << kRankShift : 0;
      const uint64_t first = to | block, its_barrier = barrier | block;
      const auto arrive = [&w, map, x = at[0], y = at[1], z = at[2], first, its_barrier] {
        const auto box = read_box(map, {x, y, z});
        for (size_t piece = 0; piece < box.size(); piece += 16) {
          const uint64_t plain = first + piece;
          std::memcpy(w.shared(plain ^ (plain >> 7 & 7) << 4, 16), box.data() + piece, 16);
        }
        complete(w, its_barrier, static_cast<int64_t>(box.size()));
      };
      w.block->cluster->under_way.push_back({&w.block_of(first), arrive});
    });
  });
}

// [to], {four floats}, [barrier]
void store_async(Warp& w, const Instruction& i, uint32_t lanes) {
  struct Four {
    uint64_t to, barrier;
    float values[4];
  };
  std::vector<Four> all;
  all.reserve(kLanes);
  for_lanes(lanes, [&](int l) {
    Four one = {w.address(i.operands[0], l), w.address(i.operands[5], l), {}};
    for (int k = 0; k < 4; ++k) one.values[k] = w.values<float>(i.operands[k + 1])[l];
    all.push_back(one);
  });
  const Block& first = w.block_of(all[0].to);
  w.block->cluster->under_way.push_back({&first, [&w, all = std::move(all)] {
                                           for (const Four& one : all) {
                                             std::memcpy(w.shared(one.to, 16), one.values, 16);
                                             complete(w, one.barrier, 16);
                                           }
                                         }});
}

void map_to_block(Warp& w, const Instruction& i, uint32_t lanes) {
  uint32_t out[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    out[l] = w.values<uint32_t>(i.operands[1])[l] | (w.values<uint32_t>(i.operands[2])[l] + 1)
                                                        << kRankShift;
  }
  w.put(i.operands[0], out, lanes);
}

}  // namespace

void add_asynchronous(Operations& all) {
  constexpr uint8_t kPredicate = 0;
  for (const std::string cache : {"ca", "cg"}) {
    const std::string name = "cp.async." + cache + ".shared.global";
    all[name] = {&copy_async, {kAddress, kAddress, 4}};
    all[name + " 4"] = {&copy_async, {kAddress, kAddress, 4, 4}};
  }
  for (const std::string name :
       {"griddepcontrol.wait", "griddepcontrol.launch_dependents", "wgmma.fence.sync.aligned",
        "membar.gl", "fence.mbarrier_init.release.cluster", "fence.proxy.async", "membar.cta"}) {
    all[name] = {&nothing, {}};
  }
  for (const std::string name :
       {"setmaxnreg.inc.sync.aligned.u32", "setmaxnreg.dec.sync.aligned.u32"}) {
    all[name] = {&nothing, {4}};
  }
  all["cp.async.commit_group"] = {&commit_copies, {}};
  all["cp.async.wait_group"] = {&wait_copies, {4}};
  all["prefetch.global.L2"] = all["prefetch.tensormap"] = {&nothing, {kAddress}};
  all["mbarrier.init.shared::cta.b64"] = {&barrier_init, {kAddress, 4}};
  all["mbarrier.arrive.shared::cta.b64"] = {&barrier_arrive, {8, kAddress}};
  all["mbarrier.arrive.shared::cluster.b64"] = {&barrier_arrive, {8, kAddress}};
  all["mbarrier.arrive.expect_tx.shared::cta.b64"] = {&barrier_expect, {8, kAddress, 4}};
  all["mbarrier.try_wait.parity.shared::cta.b64"] = {&barrier_wait, {kPredicate, kAddress, 4}};
  all["mapa.shared::cluster.u32"] = {&map_to_block, {4, 4, 4}};
  const std::string counted = ".mbarrier::complete_tx::bytes";
  all["cp.async.bulk.shared::cluster.global" + counted] = {&copy_bulk,
                                                           {kAddress, kAddress, 4, kAddress}};
  const std::string tensor = ".shared::cluster.global.tile" + counted;
  all["cp.async.bulk.tensor.2d" + tensor] = {&copy_tensor<2>, {kAddress, kAddress, 4, 4, kAddress}};
  all["cp.async.bulk.tensor.2d" + tensor + ".multicast::cluster"] = {
      &copy_tensor<2>, {kAddress, kAddress, 4, 4, kAddress, 2}};
  all["cp.async.bulk.tensor.3d" + tensor] = {&copy_tensor<3>,
                                             {kAddress, kAddress, 4, 4, 4, kAddress}};
  all["st.async.shared::cluster" + counted + ".v4.f32"] = {&store_async,
                                                           {kAddress, 4, 4, 4, 4, kAddress}};
}

}  // namespace nibble::emulator
