// Which kernels of the wgmma GEMM are built: a line here is one for bf16 and one for fp16.
#pragma once

#include <cuda.h>

#include <array>

#include "kernels/sm90/gemm_params.h"

namespace nibble::sm90 {

// The most warpgroups for each number of tokens, k groups and cluster (two: multicast, else one).
struct WgmmaKernel {
  int tokens, max_groups, k_groups = 1;
  bool multicast = false;
};
// In the order of preference: the first with room for a config's groups takes it.
inline constexpr auto kWgmmaKernels = std::to_array<WgmmaKernel>({
    {16, 5},           {24, 5},    {32, 5},          {40, 5},           {48, 5},
    {56, 4},           {64, 2},    {64, 4},          {64, 5},           {72, 2},
    {72, 4},           {80, 2},    {80, 4},          {88, 2},           {88, 4},
    {96, 2},           {96, 3},    {96, 4},          {104, 2},          {104, 3},
    {104, 4},          {112, 2},   {112, 3},         {112, 4},          {120, 2},
    {120, 3},          {120, 4},   {128, 2},         {128, 3},          {128, 4},
    {136, 3},          {144, 3},   {152, 3},         {160, 3},          {176, 3},
    {184, 3},          {192, 3},   {208, 3},         {216, 3},          {256, 2},
    {16, 4, 2},        {24, 4, 2}, {32, 4, 2},       {40, 4, 2},        {48, 4, 2},
    {56, 2, 2},        {64, 2, 2}, {64, 2, 1, true}, {128, 4, 1, true}, {192, 2, 1, true},
    {256, 2, 1, true},
});

// Two kinds of tiles in one grid (WgmmaMix). Those that gain most at 1,728 cells by the cost model,
// each beside the ones before it; docs/sm90.md has what they take.
struct WgmmaMixKernel {
  WgmmaMix::Kind own, rest;
};
inline constexpr auto kWgmmaMixes = std::to_array<WgmmaMixKernel>({
    {{112, 2}, {72, 3}},
    {{112, 3}, {80, 4}},
    {{128, 2}, {64, 3}},
    {{144, 2}, {88, 3}},
    {{152, 2}, {96, 3}},
    {{168, 2}, {112, 3}},
    {{184, 2}, {120, 3}},
    {{192, 2}, {128, 3}},
    {{208, 2}, {136, 3}},
    {{128, 2}, {192, 3}},
    {{144, 3}, {224, 2}},
});

// In the order of the lists.
struct WgmmaFunctions {
  std::array<void (*)(CUtensorMap, WgmmaParams), kWgmmaKernels.size()> kernels;
  std::array<void (*)(CUtensorMap, CUtensorMap, WgmmaParams, WgmmaParams), kWgmmaMixes.size()>
      mixes;
};
extern const WgmmaFunctions kWgmmaBF16, kWgmmaF16;  // of the activations; a unit each

}  // namespace nibble::sm90
