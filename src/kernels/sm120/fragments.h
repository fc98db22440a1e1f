// Which element of the operands of mma.sync.m16n8k64 (block scaled, e2m1) each lane's registers
// hold (PTX ISA, "Matrix fragments for mma.m16n8k64"). lane = 4 g + t; code i of a register is its
// bits [4 i, 4 i + 4). Byte b of a scale word scales k in [16 b, 16 b + 16), of MXFP4
// [32 b, 32 b + 32).
#pragma once

#include "base/host_device.h"

namespace nibble::sm120 {

struct Place {
  int line;  // row of A or column of B
  int k;
};

// A [16, 64]: registers 0..3.
NIBBLE_HD constexpr Place a_place(int lane, int reg, int i) {
  return {lane / 4 + reg % 2 * 8, lane % 4 * 8 + reg / 2 * 32 + i};
}
// B [64, 8]: registers 0 and 1.
NIBBLE_HD constexpr Place b_place(int lane, int reg, int i) {
  return {lane / 4, lane % 4 * 8 + reg * 32 + i};
}

// C [16, 8]: registers 0..3.
struct SumPlace {
  int row;
  int column;
};
NIBBLE_HD constexpr SumPlace c_place(int lane, int reg) {
  return {lane / 4 + reg / 2 * 8, lane % 4 * 2 + reg % 2};
}

// The lane whose word scales a row of A, for thread-id-a 0 or 1, or a column of B, for thread-id-b
// 0 to 3.
NIBBLE_HD constexpr int scale_lane_a(int row, int thread_id) {
  return row % 8 * 4 + row / 8 + 2 * thread_id;
}
NIBBLE_HD constexpr int scale_lane_b(int column, int thread_id) { return column * 4 + thread_id; }

}  // namespace nibble::sm120
