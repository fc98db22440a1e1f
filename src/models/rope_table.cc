#include "models/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace nibble {
namespace {

// Long waves are stretched, short ones kept, those between blended by where they stand.
double llama3_frequency(const RopeConfig& config, double freq) {
  const double wavelength = 2.0 * std::numbers::pi / freq;
  const double context = static_cast<double>(config.original_context);
  const double rotations = context / wavelength;
  const double kept = std::clamp(
      (rotations - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor),
      0.0, 1.0);
  return (1.0 - kept) * freq / config.factor + kept * freq;
}

// The (fractional) index of the pair that turns `rotations` times within the original context.
double yarn_pair(const RopeConfig& config, double rotations, double head_dim) {
  const double context = static_cast<double>(config.original_context);
  return head_dim * std::log(context / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(config.theta));
}

double yarn_frequency(const RopeConfig& config, double freq, int64_t pair, int64_t head_dim) {
  const double dim = static_cast<double>(head_dim);
  double low = yarn_pair(config, config.beta_fast, dim);
  double high = yarn_pair(config, config.beta_slow, dim);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  if (low == high) high += 0.001;  // the published code's way out of 0/0
  const double stretched = std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
  return stretched * freq / config.factor + (1.0 - stretched) * freq;
}

}  // namespace

RopeTable make_rope_table(const RopeConfig& config, int64_t head_dim) {
  RopeTable table;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double freq =
        std::pow(config.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    switch (config.type) {
      case RopeType::kDefault:
        table.inv_freq.push_back(static_cast<float>(freq));
        break;
      case RopeType::kLinear:
        table.inv_freq.push_back(static_cast<float>(freq / config.factor));
        break;
      case RopeType::kLlama3:
        table.inv_freq.push_back(static_cast<float>(llama3_frequency(config, freq)));
        break;
      case RopeType::kYarn:
        table.inv_freq.push_back(static_cast<float>(yarn_frequency(config, freq, i, head_dim)));
        break;
    }
  }
  table.attention_factor = static_cast<float>(config.attention_factor);
  return table;
}

}  // namespace nibble
