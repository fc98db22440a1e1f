// The filters, tests, functions and methods that templates can name.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace nibble::jinja {

struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

using Filter = Value (*)(Runtime&, const Value& subject, const Args&);
using Test = bool (*)(Runtime&, const Value& subject, const Args&);
struct GlobalFunction {
  std::string_view name;
  Value (*call)(Runtime&, const Args&);
};

// Null where there is none of that name.
Filter find_filter(std::string_view name);
Filter find_sequence_filter(std::string_view name);  // the part of find_filter() that walks items
Test find_test(std::string_view name);
const GlobalFunction* find_function(std::string_view name);

bool is_method(std::string_view name);  // of any type
enum class MethodSupport { kNone, kSupported, kUnsupported };
// kUnsupported: Python's type has an attribute of this name, and Nibble has not.
MethodSupport method_support(const Value& self, std::string_view name);
Value call_method(Runtime& rt, const Value& self, std::string_view name, const Args& args);

// Arguments matched to parameter names as Python does; throws for too many, too few (below
// `required`), unknown or doubled ones.
class Bindings {
 public:
  Bindings(Runtime& rt, std::string_view callee, const Args& args,
           std::initializer_list<std::string_view> params, size_t required = 0);
  bool has(size_t i) const { return values_[i] != nullptr; }
  const Value& operator[](size_t i) const { return *values_[i]; }
  // With a fallback for what was not given.
  bool flag(size_t i, bool fallback) const;
  int64_t integer(size_t i, int64_t fallback) const;
  std::string text(size_t i, std::string_view fallback) const;  // str()

 private:
  Runtime& rt_;
  std::string_view callee_;
  std::vector<const Value*> values_;
};

}  // namespace nibble::jinja
