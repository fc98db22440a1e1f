#include "text/json_view.h"

#include <nlohmann/json.hpp>

namespace nibble::text {

std::string JsonView::where() const {
  return fmt::format("{}: {}", source_, path_.empty() ? "top level" : path_);
}

bool JsonView::is_object() const { return value_->is_object(); }
bool JsonView::is_zero() const { return value_->is_number() && value_->get<double>() == 0; }

const std::string& JsonView::string() const {
  if (!value_->is_string()) wrong_type("a string");
  return value_->get_ref<const std::string&>();
}

bool JsonView::boolean() const {
  if (!value_->is_boolean()) wrong_type("true or false");
  return value_->get<bool>();
}

int64_t JsonView::unsigned_integer(int64_t limit) const {
  if (!value_->is_number_unsigned()) wrong_type("an integer that is not negative");
  const auto n = value_->get<uint64_t>();
  if (n > static_cast<uint64_t>(limit)) fail("{} is above {}", n, limit);
  return static_cast<int64_t>(n);
}

JsonView JsonView::at(const std::string& key) const {
  if (auto found = find(key)) return *found;
  fail("\"{}\" is missing", key);
}

std::optional<JsonView> JsonView::find(const std::string& key) const {
  if (!value_->is_object()) wrong_type("an object");
  const auto it = value_->find(key);
  if (it == value_->end() || it->is_null()) return std::nullopt;
  return JsonView(*it, source_, path_.empty() ? key : path_ + "." + key);
}

bool JsonView::boolean_or(const std::string& key, bool fallback) const {
  const auto found = find(key);
  return found ? found->boolean() : fallback;
}

std::vector<JsonView> JsonView::items() const {
  if (!value_->is_array()) wrong_type("an array");
  std::vector<JsonView> out;
  for (size_t i = 0; i < value_->size(); ++i) {
    out.emplace_back((*value_)[i], source_, fmt::format("{}[{}]", path_, i));
  }
  return out;
}

void JsonView::wrong_type(std::string_view expected) const {
  fail("expected {}, found {}", expected, value_->type_name());
}

}  // namespace nibble::text
