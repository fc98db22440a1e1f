// What the lanes of a warp do together, and barriers of blocks and of clusters.
#include <algorithm>

#include "tests/emulator/machine.h"
#include "tests/emulator/numbers.h"

namespace nibble::emulator {
namespace {

enum class Shuffle { kButterfly, kIndex, kUp, kDown };

// d[|p], a, b, c, members
template <Shuffle kHow>
void shuffle(Warp& w, const Instruction& i, uint32_t lanes) {
  const int pair = static_cast<int>(i.operands.size()) - 5;
  const auto* a = w.values<uint32_t>(i.operands[1 + pair]);
  const auto* b = w.values<uint32_t>(i.operands[2 + pair]);
  const auto* c = w.values<uint32_t>(i.operands[3 + pair]);
  uint32_t out[kLanes], valid = 0;
  for (int l = 0; l < kLanes; ++l) {
    const int segment = static_cast<int>(c[l] >> 8 & 31), clamp = static_cast<int>(c[l] & 31);
    const int by = static_cast<int>(b[l] & 31);
    const int last = (l & segment) | (clamp & ~segment), first = l & segment;
    int from = l ^ by;
    if (kHow == Shuffle::kIndex) from = first | (by & ~segment);
    if (kHow == Shuffle::kUp) from = l - by;
    if (kHow == Shuffle::kDown) from = l + by;
    const bool inside = kHow == Shuffle::kUp ? from >= last : from <= last;
    if (!inside) from = l;
    valid |= uint32_t{inside} << l;
    out[l] = a[from];
  }
  w.put(i.operands[0], out, lanes);
  if (pair == 1) w.put_predicate(i.operands[1], valid, lanes);
}

template <class T>
void reduce_max(Warp& w, const Instruction& i, uint32_t lanes) {
  const T* a = w.values<T>(i.operands[1]);
  T most = a[__builtin_ctz(lanes)];
  for_lanes(lanes, [&](int l) { most = std::max(most, a[l]); });
  T out[kLanes];
  std::fill_n(out, kLanes, most);
  w.put(i.operands[0], out, lanes);
}

void vote_any(Warp& w, const Instruction& i, uint32_t lanes) {
  w.put_predicate(i.operands[0], w.predicate(i.operands[1]) & lanes ? kAllLanes : 0, lanes);
}

void elect(Warp& w, const Instruction& i, uint32_t lanes) {
  w.put_predicate(i.operands[1], lanes & -lanes, lanes);
}

uint32_t threads_of(Warp& w, const Instruction& i) {
  return i.operands.size() > 1 ? *w.values<uint32_t>(i.operands[1]) : 0;
}
void barrier_sync(Warp& w, const Instruction& i, uint32_t) {
  w.block->arrive(*w.values<uint32_t>(i.operands[0]), threads_of(w, i), &w);
}
void barrier_arrive(Warp& w, const Instruction& i, uint32_t) {
  w.block->arrive(*w.values<uint32_t>(i.operands[0]), threads_of(w, i), nullptr);
}
void cluster_arrive(Warp& w, const Instruction&, uint32_t) {
  Cluster& c = *w.block->cluster;
  w.cluster_phase = c.phase + 1;
  c.check_arrived();
}
void cluster_wait(Warp& w, const Instruction&, uint32_t) {
  w.retry = w.block->cluster->phase < w.cluster_phase;
}

// Eight rows of eight 16-bit elements; lane 8 i + r gives the address of row r of matrix i, and
// lane 4 g + t has elements 2t and 2t + 1 of row g, or with kTransposed of column g.
constexpr int kRows = 8;
template <bool kTransposed>
int lane_of(int row, int column) {
  return kTransposed ? column * 4 + row / 2 : row * 4 + column / 2;
}
template <bool kTransposed>
int half_of(int row, int column) {
  return (kTransposed ? row : column) % 2;
}

template <bool kTransposed>
void load_matrices(Warp& w, const Instruction& i, uint32_t) {
  const int count = static_cast<int>(i.operands.size()) - 1;
  for (int m = 0; m < count; ++m) {
    uint16_t pairs[kLanes][2];
    for (int row = 0; row < kRows; ++row) {
      const uint8_t* from = w.shared(w.address(i.operands[count], m * kRows + row), 16);
      for (int column = 0; column < kRows; ++column) {
        std::memcpy(&pairs[lane_of<kTransposed>(row, column)][half_of<kTransposed>(row, column)],
                    from + column * 2, 2);
      }
    }
    std::memcpy(w.values<uint8_t>(i.operands[m]), pairs, sizeof pairs);
  }
}

template <bool kTransposed>
void store_matrices(Warp& w, const Instruction& i, uint32_t) {
  const int count = static_cast<int>(i.operands.size()) - 1;
  for (int m = 0; m < count; ++m) {
    uint16_t pairs[kLanes][2];
    std::memcpy(pairs, w.values<uint8_t>(i.operands[m + 1]), sizeof pairs);
    for (int row = 0; row < kRows; ++row) {
      uint8_t* to = w.shared(w.address(i.operands[0], m * kRows + row), 16);
      for (int column = 0; column < kRows; ++column) {
        std::memcpy(to + column * 2,
                    &pairs[lane_of<kTransposed>(row, column)][half_of<kTransposed>(row, column)],
                    2);
      }
    }
  }
  ++events;
}

template <bool kF16>
float from_bits(uint16_t bits) {
  return kF16 ? from_half(bits) : from_bf16(bits);
}

// A warp's 16 rows of 16 from four registers a lane.
struct Rows {
  float a[16][16];
};
template <bool kF16>
Rows rows_of(Warp& w, const Operand* registers) {
  Rows rows;
  for (int r = 0; r < 4; ++r) {
    const auto* pairs = w.values<uint16_t>(registers[r]);
    for (int l = 0; l < kLanes; ++l) {
      for (int half = 0; half < 2; ++half) {
        rows.a[l / 4 + r % 2 * 8][l % 4 * 2 + half + r / 2 * 8] =
            from_bits<kF16>(pairs[l * 2 + half]);
      }
    }
  }
  return rows;
}

// d[16, columns] = c[16, columns] + rows * b[16][columns], c and d by eight columns in four
// registers a lane. The products are summed first: how a GPU adds them is not laid down.
constexpr int kMostColumns = 256;
using Eight = float __attribute__((vector_size(32)));
void multiply_add(Warp& w, const Rows& rows, const float* b, int columns, const Operand* c,
                  const Operand* d) {
  float sums[16][kMostColumns];
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < columns; column += 8) {
      Eight sum = {};
      for (int k = 0; k < 16; ++k) {
        Eight eight;
        std::memcpy(&eight, b + k * columns + column, sizeof eight);
        sum += rows.a[row][k] * eight;
      }
      std::memcpy(&sums[row][column], &sum, sizeof sum);
    }
  }
  for (int r = 0; r < columns / 2; ++r) {
    const float* from = w.values<float>(c[r]);
    float* to = w.values<float>(d[r]);
    for (int g = 0; g < 8; ++g) {
      const float* row = &sums[g + r / 2 % 2 * 8][r / 4 * 8 + r % 2];
      for (int t = 0; t < 4; ++t) to[g * 4 + t] = from[g * 4 + t] + row[t * 2];
    }
  }
}

// {d} {a} {b} {c}, 16 x 8 x 16
template <bool kF16>
void mma(Warp& w, const Instruction& i, uint32_t) {
  float b[16 * 8];
  for (int r = 0; r < 2; ++r) {
    const auto* pairs = w.values<uint16_t>(i.operands[8 + r]);
    for (int l = 0; l < kLanes; ++l) {
      for (int half = 0; half < 2; ++half) {
        b[(l % 4 * 2 + half + r * 8) * 8 + l / 4] = from_bits<kF16>(pairs[l * 2 + half]);
      }
    }
  }
  multiply_add(w, rows_of<kF16>(w, &i.operands[4]), b, 8, &i.operands[10], &i.operands[0]);
}

// f(column, k, eight elements from there on) of B. Returns a hash of all.
template <class F>
uint64_t for_operand(Warp& w, const Warp::Read& of, const F& f) {
  uint64_t hash = 0;
  for (uint32_t c = 0; c < of.columns; ++c) {
    for (int k = 0; k < 16; k += 8) {
      const uint32_t plain = of.start + c / 8 * of.stride + c % 8 * 128 + k * 2;
      uint16_t bits[8];
      std::memcpy(bits, w.shared(plain ^ (plain >> 7 & 7) << 4, sizeof bits), sizeof bits);
      f(static_cast<int>(c), k, bits);
      uint64_t words[2];
      std::memcpy(words, bits, sizeof words);
      hash = (hash ^ words[0]) * 0x9E3779B97F4A7C15 + words[1];
      hash ^= hash >> 29;
    }
  }
  return hash;
}

void commit_products(Warp& w, const Instruction&, uint32_t) { w.products.commit(); }
void wait_products(Warp& w, const Instruction& i, uint32_t) {
  w.products.wait(*w.values<uint32_t>(i.operands[0]), [&](const Warp::Read& read) {
    if (for_operand(w, read, [](int, int, const uint16_t(&)[8]) {}) != read.hash) {
      throw Fault("what a product under way reads was overwritten");
    }
  });
}

// {d} {a} descriptor, add, +1, +1, b's order: b in shared memory in rows of 128 bytes of k,
// swizzled.
template <bool kF16>
void wgmma(Warp& w, const Instruction& i, uint32_t) {
  const int columns = i.extra;
  const Operand* d = &i.operands[0];
  const Operand* rest = &i.operands[columns / 2];
  const uint64_t descriptor = *w.values<uint64_t>(rest[4]);
  const uint32_t start = (descriptor & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0 || *w.values<uint32_t>(rest[8]) != 0 ||
      *w.values<uint32_t>(rest[6]) != 1 || *w.values<uint32_t>(rest[7]) != 1) {
    throw Fault("wgmma of another form");
  }
  const Warp::Read read = {start, stride, static_cast<uint32_t>(columns), 0};
  float b[16 * kMostColumns];
  const uint64_t hash = for_operand(w, read, [&](int c, int k, const uint16_t(&bits)[8]) {
    for (int j = 0; j < 8; ++j) b[(k + j) * columns + c] = from_bits<kF16>(bits[j]);
  });
  w.products.add({read.start, read.stride, read.columns, hash});
  if ((w.predicate(rest[5]) & 1) == 0) {
    for (int k = 0; k < columns / 2; ++k) std::memset(w.values<float>(d[k]), 0, kLanes * 4);
  }
  multiply_add(w, rows_of<kF16>(w, rest), b, columns, d, d);
}

// {d} {a} {b} {c} {a's scales} {byte, thread} {b's scales} {byte, thread}, 16 x 8 x 64 of e2m1. A
// lane has eight elements of k from 8t and eight from 32 + 8t on: a of row g and, in the odd
// registers, of row g + 8, b of column g. Scales: of row g and g + 8 in two lanes of the quad, of
// column g in one; a byte for each of kBlocks blocks.
template <int kBlocks, float (*kScale)(uint8_t)>
void block_scaled_mma(Warp& w, const Instruction& i, uint32_t) {
  constexpr int kDepth = 64, kColumns = 8;
  const auto element = [&](int first, int lane, int k) -> double {
    return from_e2m1(w.values<uint32_t>(i.operands[first])[lane] >> k % 8 * 4 & 15);
  };
  const auto scale = [&](int operand, int lane, int block) -> double {
    const int byte = *w.values<uint16_t>(i.operands[operand + 1]) + block;
    return kScale(static_cast<uint8_t>(w.values<uint32_t>(i.operands[operand])[lane] >> byte * 8));
  };
  const int a_thread = *w.values<uint16_t>(i.operands[16]) * 2;
  const int b_thread = *w.values<uint16_t>(i.operands[19]);
  double a[16][kDepth], b[kDepth][kColumns];
  for (int block = 0; block < kBlocks; ++block) {
    const int begin = block * (kDepth / kBlocks), end = begin + kDepth / kBlocks;
    for (int row = 0; row < 16; ++row) {
      const int lane = row % 8 * 4;
      const double by = scale(14, lane + a_thread + row / 8, block);
      for (int k = begin; k < end; ++k) {
        a[row][k] = by * element(4 + k / 32 * 2 + row / 8, lane + k % 32 / 8, k);
      }
    }
    for (int column = 0; column < kColumns; ++column) {
      const double by = scale(17, column * 4 + b_thread, block);
      for (int k = begin; k < end; ++k) {
        b[k][column] = by * element(8 + k / 32, column * 4 + k % 32 / 8, k);
      }
    }
  }
  float out[4][kLanes];
  for (int row = 0; row < 16; ++row) {
    double sums[kColumns] = {};
    for (int k = 0; k < kDepth; ++k) {
      for (int column = 0; column < kColumns; ++column) sums[column] += a[row][k] * b[k][column];
    }
    for (int column = 0; column < kColumns; ++column) {
      const int which = row / 8 * 2 + column % 2, lane = row % 8 * 4 + column / 2;
      const double c = w.values<float>(i.operands[10 + which])[lane];
      out[which][lane] = canonical(static_cast<float>(c + sums[column]));
    }
  }
  for (int r = 0; r < 4; ++r) w.put(i.operands[r], out[r], kAllLanes);
}

Operation together(Run run, std::vector<uint8_t> widths, int members = -1) {
  return {run, std::move(widths), Kind::kCollective, members};
}

}  // namespace

void add_collectives(Operations& all) {
  constexpr uint8_t kPredicate = 0;
  const auto add_shuffle = [&](const std::string& how, Run run) {
    const std::string name = "shfl.sync." + how + ".b32";
    all[name] = together(run, {4, 4, 4, 4, 4}, 4);
    all[name + " 6"] = together(run, {4, kPredicate, 4, 4, 4, 4}, 5);
  };
  add_shuffle("bfly", &shuffle<Shuffle::kButterfly>);
  add_shuffle("idx", &shuffle<Shuffle::kIndex>);
  add_shuffle("up", &shuffle<Shuffle::kUp>);
  add_shuffle("down", &shuffle<Shuffle::kDown>);
  all["redux.sync.max.s32"] = together(&reduce_max<int32_t>, {4, 4, 4}, 2);
  all["redux.sync.max.u32"] = together(&reduce_max<uint32_t>, {4, 4, 4}, 2);
  all["vote.sync.any.pred"] = together(&vote_any, {kPredicate, kPredicate, 4}, 2);
  all["elect.sync"] = together(&elect, {4, kPredicate, 4}, 2);
  all["bar.warp.sync"] = together([](Warp&, const Instruction&, uint32_t) {}, {4}, 0);

  all["wgmma.commit_group.sync.aligned"] = together(&commit_products, {});
  all["wgmma.wait_group.sync.aligned"] = together(&wait_products, {4});

  all["bar.sync"] = {&barrier_sync, {4}, Kind::kBarrier};
  all["bar.sync 2"] = {&barrier_sync, {4, 4}, Kind::kBarrier};
  all["bar.arrive"] = {&barrier_arrive, {4, 4}, Kind::kBarrier};
  all["barrier.cluster.arrive.relaxed.aligned"] = together(&cluster_arrive, {});
  all["barrier.cluster.wait.acquire.aligned"] = {&cluster_wait, {}, Kind::kRetry};

  for (const int count : {1, 2, 4}) {
    const std::string x = ".sync.aligned.m8n8.x" + std::to_string(count);
    std::vector<uint8_t> widths(count, 4);
    widths.push_back(kAddress);
    all["ldmatrix" + x + ".shared.b16"] = together(&load_matrices<false>, widths);
    all["ldmatrix" + x + ".trans.shared.b16"] = together(&load_matrices<true>, widths);
    std::rotate(widths.begin(), widths.end() - 1, widths.end());
    all["stmatrix" + x + ".shared.b16"] = together(&store_matrices<false>, widths);
    all["stmatrix" + x + ".trans.shared.b16"] = together(&store_matrices<true>, widths);
  }
  const std::vector<uint8_t> widths(14, 4);
  all["mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"] = together(&mma<false>, widths);
  all["mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"] = together(&mma<true>, widths);
  const std::string scaled = "mma.sync.aligned.m16n8k64.row.col.kind::";
  const std::vector<uint8_t> scaled_widths = {4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
                                              4, 4, 4, 4, 4, 2, 2, 4, 2, 2};
  all[scaled + "mxf4nvf4.block_scale.scale_vec::4X.f32.e2m1.e2m1.f32.ue4m3"] =
      together(&block_scaled_mma<4, from_e4m3>, scaled_widths);
  all[scaled + "mxf4.block_scale.scale_vec::2X.f32.e2m1.e2m1.f32.ue8m0"] =
      together(&block_scaled_mma<2, from_e8m0>, scaled_widths);
  for (int columns = 8; columns <= 256; columns += 8) {
    std::vector<uint8_t> all_widths(columns / 2 + 4, 4);
    all_widths.insert(all_widths.end(), {8, kPredicate, 4, 4, 4});
    const std::string name =
        "wgmma.mma_async.sync.aligned.m64n" + std::to_string(columns) + "k16.f32";
    all[name + ".bf16.bf16"] = together(&wgmma<false>, all_widths);
    all[name + ".f16.f16"] = together(&wgmma<true>, all_widths);
    all[name + ".bf16.bf16"].extra = all[name + ".f16.f16"].extra = columns;
  }
}

}  // namespace nibble::emulator
