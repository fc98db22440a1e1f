// Where a product may be rounded to e2m1 without being rounded to fp32 first.
#pragma once

#include <cmath>

namespace nibble::cuda {

// Whether rounding |x| * factor to e2m1 at once gives what rounding it to fp32 first does, for
// every block scale and every x of 11 significant bits or fewer. They part only where the product
// rounds to a value halfway between two of e2m1 without being it: x is then the value halfway over
// the factor, rounded. Significands alone count. Most global scales pass; 1 does not.
inline bool fused_product_rounds_alike(float encode_scale) {
  int exponent = 0;
  const float encode = std::frexp(encode_scale, &exponent);
  for (int scale = 8; scale < 16; ++scale) {
    const float factor = encode / static_cast<float>(scale);
    for (int halfway = 1; halfway <= 7; halfway += 2) {
      const double x = std::frexp(halfway / double{factor}, &exponent);
      const double product = std::nearbyint(x * 2048) * factor;  // exact
      const double wanted = std::ldexp(halfway, 11 - exponent);
      if (product != wanted && static_cast<float>(product) == static_cast<float>(wanted)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace nibble::cuda
