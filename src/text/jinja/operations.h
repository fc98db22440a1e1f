// What Python's operators and conversions do to values.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace nibble::jinja {

bool truthy(const Value& v);

std::string to_text(Runtime& rt, const Value& v);  // str(v)
std::string repr(Runtime& rt, const Value& v);
std::string float_repr(double d);
// json.dumps(v, ensure_ascii=False, ...). indent < 0: one line.
struct JsonFormat {
  int64_t indent = -1;
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false;
};
std::string to_json(Runtime& rt, const Value& v, const JsonFormat& format);

bool equal(Runtime& rt, const Value& a, const Value& b);
bool less(Runtime& rt, const Value& a, const Value& b);
bool contains(Runtime& rt, const Value& container, const Value& item);
bool compare(Runtime& rt, std::string_view op, const Value& a, const Value& b);

Value arithmetic(Runtime& rt, std::string_view op, const Value& a, const Value& b);
Value negate(Runtime& rt, const Value& v);
Value positive(Runtime& rt, const Value& v);

// v.name and v[key]; undefined where there is no such thing, an error where v is undefined.
Value attribute(Runtime& rt, const Value& v, std::string_view name);
Value item(Runtime& rt, const Value& v, const Value& key);
Value slice(Runtime& rt, const Value& v, const Value& from, const Value& to, const Value& step);

// The items a for loop sees; takes them out of a generator.
std::vector<Value> iterate(Runtime& rt, const Value& v);
size_t length(Runtime& rt, const Value& v);  // len(v)

}  // namespace nibble::jinja
