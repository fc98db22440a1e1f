// Reads "n k m" lines; prints "n k m|name configuration|us" for every candidate of the Hopper
// GEMMs.
#include <iostream>

#include "tests/kernels/sm90/h200.h"

int main() {
  using namespace nibble::sm90;
  std::cout.precision(9);
  int64_t n = 0, k = 0, m = 0;
  while (std::cin >> n >> k >> m) {
    for (const Estimate& e : estimates(gemm(m, n, k))) {
      std::cout << n << ' ' << k << ' ' << m << '|' << e.name << '|' << e.us << '\n';
    }
  }
}
