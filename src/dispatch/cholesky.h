// Symmetric positive definite systems, dense and small.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "base/check.h"

namespace nibble {

// Solves a * x = b. `a` is [n, n] row major, of which the lower triangle is read and overwritten
// with its Cholesky factor. Throws kInternal where `a` is not positive definite.
inline std::vector<double> solve_positive_definite(std::vector<double>& a, std::vector<double> b) {
  const size_t n = b.size();
  NIBBLE_ASSERT(a.size() == n * n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      NIBBLE_ASSERT(i != j || sum > 0);
      a[i * n + j] = i == j ? std::sqrt(sum) : sum / a[j * n + j];
    }
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) b[i] -= a[i * n + k] * b[k];
    b[i] /= a[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) b[i] -= a[k * n + i] * b[k];
    b[i] /= a[i * n + i];
  }
  return b;
}

}  // namespace nibble
