#include <algorithm>

#include "text/jinja/builtins.h"
#include "text/jinja/operations.h"

namespace nibble::jinja {

Bindings::Bindings(Runtime& rt, std::string_view callee, const Args& args,
                   std::initializer_list<std::string_view> params, size_t required)
    : rt_(rt), callee_(callee), values_(params.size()) {
  if (args.positional.size() > params.size())
    rt.error("'{}' takes at most {} arguments, found {}", callee, params.size(),
             args.positional.size());
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [name, v] : args.named) {
    const auto it = std::find(params.begin(), params.end(), name);
    if (it == params.end()) rt.error("'{}' has no argument '{}'", callee, name);
    const Value*& slot = values_[static_cast<size_t>(it - params.begin())];
    if (slot) rt.error("'{}' gets the argument '{}' twice", callee, name);
    slot = &v;
  }
  for (size_t i = 0; i < required; ++i)
    if (!values_[i]) rt.error("'{}' needs the argument '{}'", callee, *(params.begin() + i));
}

bool Bindings::flag(size_t i, bool fallback) const {
  return values_[i] ? truthy(*values_[i]) : fallback;
}

int64_t Bindings::integer(size_t i, int64_t fallback) const {
  if (!values_[i]) return fallback;
  if (!values_[i]->is_integral())
    rt_.error("'{}' needs an integer, found a {}", callee_, type_name(*values_[i]));
  return values_[i]->integer();
}

std::string Bindings::text(size_t i, std::string_view fallback) const {
  return values_[i] ? to_text(rt_, *values_[i]) : std::string(fallback);
}

}  // namespace nibble::jinja
