// Where the elements of a Problem lie, as CuTe layouts. Needs no device: tests read it on the host.
#pragma once

#include <cutlass/layout/matrix.h>

#include <cutlass/detail/layout.hpp>
#include <cutlass/detail/sm100_blockscaled_layout.hpp>
#include <cutlass/detail/sm103_blockscaled_layout.hpp>

#include "kernels/vendor/cutlass/kernels.h"

namespace nibble::cutlass_gemm {

// CUTLASS's A is the weights, its B the tokens, its C and D are ours, transposed.
using LayoutWeights = cutlass::layout::RowMajor;
using LayoutTokens = cutlass::layout::ColumnMajor;
using LayoutD = cutlass::layout::ColumnMajor;

// Scales: a collective's configuration of them.
template <class Scales>
struct Operands {
  using Shape = cute::Shape<int, int, int, int>;

  Shape shape;  // rows of weights, tokens, k, 1
  cutlass::detail::TagToStrideA_t<LayoutWeights> weights;
  cutlass::detail::TagToStrideB_t<LayoutTokens> tokens;
  cutlass::detail::TagToStrideC_t<LayoutD> c, d;
  decltype(Scales::tile_atom_to_shape_SFA(Shape())) weight_scales;
  decltype(Scales::tile_atom_to_shape_SFB(Shape())) token_scales;

  explicit Operands(const Problem& p)
      : shape(p.n, p.m, p.k, 1),
        weights(p.k, {}, 0),
        tokens(2 * p.token_stride, {}, 0),
        c({}, p.c_stride, 0),
        d({}, p.d_stride, 0),
        weight_scales(Scales::tile_atom_to_shape_SFA(shape)),
        token_scales(Scales::tile_atom_to_shape_SFB(shape)) {}
};

}  // namespace nibble::cutlass_gemm
