// Norm, rotation, activation and search over rows of fp32. Included after a Vec and vector/math.h.
#pragma once

namespace nibble::cpu {
namespace {

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* y) {
  Vec::F sum0 = Vec::zero();
  Vec::F sum1 = Vec::zero();
  int64_t i = 0;
  for (; i + 2 * Vec::kWidth <= n; i += 2 * Vec::kWidth) {
    const Vec::F x0 = Vec::load(x + i);
    const Vec::F x1 = Vec::load(x + i + Vec::kWidth);
    sum0 = Vec::fma(x0, x0, sum0);
    sum1 = Vec::fma(x1, x1, sum1);
  }
  for (; i < n; i += Vec::kWidth) {
    const Vec::F x0 = Vec::load_some(x + i, n - i);
    sum0 = Vec::fma(x0, x0, sum0);
  }
  const float mean = Vec::sum(Vec::add(sum0, sum1)) / static_cast<float>(n);
  const Vec::F factor = Vec::set1(1.0f / __builtin_sqrtf(mean + eps));
  for (i = 0; i < n; i += Vec::kWidth) {
    const Vec::F scaled = Vec::mul(Vec::load_some(x + i, n - i), factor);
    Vec::store_some(y + i, n - i, Vec::mul(scaled, Vec::load_some(weight + i, n - i)));
  }
}

void rope_factors(float position, const float* inv_freq, int64_t n, float factor, float* cos,
                  float* sin) {
  for (int64_t i = 0; i < n; i += Vec::kWidth) {
    Vec::F s, c;
    sin_cos(Vec::mul(Vec::set1(position), Vec::load_some(inv_freq + i, n - i)), s, c);
    Vec::store_some(cos + i, n - i, Vec::mul(c, Vec::set1(factor)));
    Vec::store_some(sin + i, n - i, Vec::mul(s, Vec::set1(factor)));
  }
}

void rotate(float* head, int64_t half, const float* cos, const float* sin) {
  for (int64_t i = 0; i < half; i += Vec::kWidth) {
    const int64_t n = half - i;
    const Vec::F a = Vec::load_some(head + i, n);
    const Vec::F b = Vec::load_some(head + half + i, n);
    const Vec::F c = Vec::load_some(cos + i, n);
    const Vec::F s = Vec::load_some(sin + i, n);
    Vec::store_some(head + i, n, Vec::sub(Vec::mul(a, c), Vec::mul(b, s)));
    Vec::store_some(head + half + i, n, Vec::add(Vec::mul(b, c), Vec::mul(a, s)));
  }
}

void silu_mul(const float* gate, const float* up, int64_t n, float* y) {
  const Vec::F one = Vec::set1(1.0f);
  for (int64_t i = 0; i < n; i += Vec::kWidth) {
    const Vec::F g = Vec::load_some(gate + i, n - i);
    const Vec::F silu = Vec::div(g, Vec::add(one, exp(Vec::sub(Vec::zero(), g))));
    Vec::store_some(y + i, n - i, Vec::mul(silu, Vec::load_some(up + i, n - i)));
  }
}

template <WeightFormat kFormat>
Vec::F load_stored(const uint8_t* row, int64_t i) {
  if constexpr (kFormat == WeightFormat::kBF16) return Vec::from_bf16(row + 2 * i);
  if constexpr (kFormat == WeightFormat::kF16) return Vec::from_fp16(row + 2 * i);
  if constexpr (kFormat == WeightFormat::kF32) {
    return Vec::load(reinterpret_cast<const float*>(row + 4 * i));
  }
  return Vec::mul(Vec::from_e4m3(row + i), Vec::set1(0x1p120f));
}

template <WeightFormat kFormat>
void widen_row_of(const uint8_t* row, int64_t n, float alpha, float* y) {
  for (int64_t i = 0; i < n; i += Vec::kWidth) {
    Vec::store(y + i, Vec::mul(load_stored<kFormat>(row, i), Vec::set1(alpha)));
  }
}

void widen_row(WeightFormat format, const uint8_t* row, int64_t n, float alpha, float* y) {
  switch (format) {
    case WeightFormat::kBF16:
      return widen_row_of<WeightFormat::kBF16>(row, n, alpha, y);
    case WeightFormat::kF16:
      return widen_row_of<WeightFormat::kF16>(row, n, alpha, y);
    case WeightFormat::kF32:
      return widen_row_of<WeightFormat::kF32>(row, n, alpha, y);
    default:
      break;
  }
  widen_row_of<WeightFormat::kF8>(row, n, alpha, y);
  // The shifts make 480 of a NaN; a row rarely has one.
  for (int64_t i = 0; i < n; ++i) {
    if ((row[i] & 0x7F) == 0x7F) y[i] = __builtin_nanf("");
  }
}

int64_t argmax(const float* x, int64_t n) {
  const Vec::F lowest = Vec::set1(-__builtin_inff());
  Vec::F best0 = lowest;
  Vec::F best1 = lowest;
  int64_t i = 0;
  for (; i + 2 * Vec::kWidth <= n; i += 2 * Vec::kWidth) {
    best0 = Vec::max(Vec::load(x + i), best0);
    best1 = Vec::max(Vec::load(x + i + Vec::kWidth), best1);
  }
  float largest = Vec::largest(Vec::max(best0, best1));
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  for (i = 0; i < n; ++i) {
    if (x[i] == largest) return i;
  }
  return 0;
}

double exp_sum(const float* x, int64_t n, float top, float temperature) {
  constexpr int64_t kPiece = 32 * Vec::kWidth;  // whose sum in fp32 loses little
  const Vec::F lowest = Vec::set1(-__builtin_inff());
  double sum = 0;
  for (int64_t piece = 0; piece < n; piece += kPiece) {
    const int64_t end = piece + kPiece < n ? piece + kPiece : n;
    Vec::F part = Vec::zero();
    for (int64_t i = piece; i < end; i += Vec::kWidth) {
      const Vec::F below = Vec::sub(Vec::load_some(x + i, end - i), Vec::set1(top));
      const Vec::F e = exp(Vec::max(Vec::div(below, Vec::set1(temperature)), lowest));
      part = Vec::add(part, Vec::first(end - i, e, Vec::zero()));
    }
    sum += static_cast<double>(Vec::sum(part));
  }
  return sum;
}

int64_t find(const float* x, int64_t n, float low, float high, int32_t* found) {
  int64_t count = 0;
  int64_t i = 0;
  for (; i + Vec::kWidth <= n; i += Vec::kWidth) {
    const Vec::F v = Vec::load(x + i);
    uint32_t inside = Vec::at_least(v, Vec::set1(low)) & ~Vec::at_least(v, Vec::set1(high));
    for (; inside != 0; inside &= inside - 1) {
      found[count++] = static_cast<int32_t>(i) + __builtin_ctz(inside);
    }
  }
  for (; i < n; ++i) {
    if (x[i] >= low && !(x[i] >= high)) found[count++] = static_cast<int32_t>(i);
  }
  return count;
}

}  // namespace
}  // namespace nibble::cpu
