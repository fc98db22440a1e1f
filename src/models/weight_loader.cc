#include "models/weight_loader.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace nibble {
namespace {

bool same_format(const std::vector<WeightTensor>& weights) {
  return std::all_of(weights.begin(), weights.end(),
                     [&](const WeightTensor& w) { return w.format == weights.front().format; });
}

}  // namespace

WeightTensor WeightLoader::weight(const Part& part, int64_t k) const {
  WeightTensor weight = checkpoint_.linear(part.module);
  NIBBLE_CHECK(weight.n == part.n && weight.k == k, ErrorCode::kCheckpoint,
               "{}: {} must be [{}, {}] by config.json, found [{}, {}]", checkpoint_.dir().string(),
               part.module, part.n, k, weight.n, weight.k);
  return weight;
}

LinearWeight WeightLoader::prepare_and_release(const WeightTensor& weight) const {
  LinearWeight prepared = prepare(weight, device_, activation_for(weight.format, activation_));
  // What was copied into another layout need not stay in memory a second time.
  if (prepared.prepared().codes != weight.codes) checkpoint_.release(weight);
  return prepared;
}

std::vector<float> WeightLoader::bias(const std::vector<Part>& parts, bool expected) const {
  std::vector<float> all;
  for (const Part& part : parts) {
    const std::string name = part.module + ".bias";
    NIBBLE_CHECK(expected || !checkpoint_.has_tensor(name), ErrorCode::kCheckpoint,
                 "{}: {} is stored, but config.json says that there is no bias",
                 checkpoint_.dir().string(), name);
    if (!expected) continue;
    const std::vector<float> values = vector(name, part.n);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

Linear WeightLoader::linear(const std::vector<Part>& parts, const LinearOptions& options) const {
  std::vector<WeightTensor> stored;
  for (const Part& part : parts) stored.push_back(weight(part, options.k));
  std::vector<LinearWeight> prepared;
  if (stored.size() > 1 && same_format(stored)) {
    const WeightTensor stacked = concat_rows(stored);
    for (const WeightTensor& part : stored) checkpoint_.release(part);
    prepared.push_back(prepare(stacked, device_, activation_for(stacked.format, activation_)));
  } else {
    for (const WeightTensor& part : stored) prepared.push_back(prepare_and_release(part));
  }
  return Linear(prepared, bias(parts, options.bias), device_,
                {.max_m = options.max_rows > 0 ? options.max_rows : max_rows_,
                 .a = DType::kF32,
                 .d = DType::kF32,
                 .activation = activation_,
                 .add = options.add});
}

std::vector<float> WeightLoader::vector(const std::string& tensor, int64_t size) const {
  std::vector<float> values = checkpoint_.vector(tensor);
  NIBBLE_CHECK(static_cast<int64_t>(values.size()) == size, ErrorCode::kCheckpoint,
               "{}: {} must have {} elements by config.json, found {}", checkpoint_.dir().string(),
               tensor, size, values.size());
  return values;
}

std::shared_ptr<const PreparedWeight> WeightLoader::table(const Part& part, int64_t k) const {
  return std::make_shared<const PreparedWeight>(prepare_canonical(weight(part, k)));
}

}  // namespace nibble
