// exp, sin and cos on vectors. Polynomials are the functions' own series, long enough that what is
// cut off lies under an fp32 rounding. Included after a Vec.
#pragma once

namespace nibble::cpu {
namespace {

// Relative error under 2^-22. Underflows to 1e-38, overflows to 2e38; NaN stays.
Vec::F exp(Vec::F x) {
  x = Vec::min(Vec::set1(88.0f), Vec::max(Vec::set1(-87.0f), x));
  const Vec::F n = Vec::round(Vec::mul(x, Vec::set1(1.44269504f)));  // 1 / ln 2
  // ln 2 in two parts, the first with few enough bits that n times it is exact.
  Vec::F r = Vec::fma(n, Vec::set1(-0.693359375f), x);
  r = Vec::fma(n, Vec::set1(2.12194440e-4f), r);
  // |r| <= ln 2 / 2: the next term is 5e-9.
  Vec::F p = Vec::set1(1.0f / 5040);
  constexpr float kSeries[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  for (const float c : kSeries) {
    p = Vec::fma(p, r, Vec::set1(c));
  }
  return Vec::scale(p, n);
}

// Absolute error under 2^-22 for |x| up to 1e5.
void sin_cos(Vec::F x, Vec::F& sin, Vec::F& cos) {
  const Vec::F n = Vec::round(Vec::mul(x, Vec::set1(0.636619772f)));  // 2 / pi
  // pi / 2 in three parts of 24 bits each.
  Vec::F r = Vec::fma(n, Vec::set1(-0x1.921fb6p+0f), x);
  r = Vec::fma(n, Vec::set1(0x1.777a5cp-25f), r);
  r = Vec::fma(n, Vec::set1(0x1.ee59dap-50f), r);
  const Vec::F r2 = Vec::mul(r, r);
  // |r| <= pi / 4: the next terms are 2e-9 and 1e-10.
  Vec::F s = Vec::set1(1.0f / 362880);
  constexpr float kSin[] = {-1.0f / 5040, 1.0f / 120, -1.0f / 6};
  for (const float f : kSin) s = Vec::fma(s, r2, Vec::set1(f));
  s = Vec::fma(Vec::mul(s, r2), r, r);
  Vec::F c = Vec::set1(-1.0f / 3628800);
  constexpr float kCos[] = {1.0f / 40320, -1.0f / 720, 1.0f / 24, -0.5f, 1.0f};
  for (const float f : kCos) {
    c = Vec::fma(c, r2, Vec::set1(f));
  }
  const Vec::I quadrant = Vec::to_int(n);
  const Vec::I next = Vec::to_int(Vec::add(n, Vec::set1(1.0f)));
  sin = Vec::flip_sign<1>(Vec::select_odd(s, c, quadrant), quadrant);
  cos = Vec::flip_sign<1>(Vec::select_odd(c, s, quadrant), next);
}

}  // namespace
}  // namespace nibble::cpu
