// Attributes, items, slices and iteration.
#include <algorithm>
#include <optional>

#include "text/jinja/builtins.h"
#include "text/jinja/operations.h"
#include "text/jinja/unicode.h"
#include "text/utf8.h"

namespace nibble::jinja {
namespace {

Value no_attribute(const Value& v, std::string_view name) {
  return Value::undefined(fmt::format("'{} object' has no attribute '{}'", type_name(v), name));
}

std::optional<Value> python_attribute(Runtime& rt, const Value& v, std::string_view name) {
  switch (method_support(v, name)) {
    case MethodSupport::kSupported:
      return rt.bound(v, name);
    case MethodSupport::kUnsupported:
      rt.error("unknown method '{}' of a {}", name, type_name(v));
    case MethodSupport::kNone:
      break;
  }
  if (v.is(Kind::kNamespace))
    if (const Value* found = v.ns().attributes.find_text(name)) return *found;
  return std::nullopt;
}

// Python's slice.indices for a sequence of n items.
struct Range {
  int64_t begin, end, step;
};
Range slice_range(Runtime& rt, size_t length, const Value& from, const Value& to,
                  const Value& step_value) {
  const auto part = [&](const Value& v) -> std::optional<int64_t> {
    if (v.is(Kind::kNone)) return std::nullopt;
    if (!v.is_integral()) rt.error("a slice needs integers, found a {}", type_name(v));
    // Beyond any length; keeps the sums below from overflowing.
    return std::clamp(v.integer(), -(int64_t{1} << 60), int64_t{1} << 60);
  };
  const auto n = static_cast<int64_t>(length);
  const int64_t step = part(step_value).value_or(1);
  if (step == 0) rt.error("a slice step can't be zero");
  const int64_t low = step < 0 ? -1 : 0;
  const int64_t high = step < 0 ? n - 1 : n;
  const auto place = [&](std::optional<int64_t> at, int64_t fallback) {
    return at ? std::clamp(*at < 0 ? *at + n : *at, low, high) : fallback;
  };
  return {place(part(from), step < 0 ? high : low), place(part(to), step < 0 ? low : high), step};
}

template <class Fn>
void for_each_index(const Range& r, Fn&& fn) {
  for (int64_t i = r.begin; r.step > 0 ? i < r.end : i > r.end; i += r.step)
    fn(static_cast<size_t>(i));
}

std::optional<size_t> place(int64_t index, size_t length) {
  const auto n = static_cast<int64_t>(length);
  if (index < -n || index >= n) return std::nullopt;
  return static_cast<size_t>(index < 0 ? index + n : index);
}

std::optional<Value> python_item(Runtime& rt, const Value& v, const Value& key) {
  if (v.is(Kind::kDict)) {
    if (!Dict::is_key(key)) return std::nullopt;
    const Value* found = v.dict().find(key);
    return found ? std::optional(*found) : std::nullopt;
  }
  if (!key.is_integral()) return std::nullopt;
  if (v.is(Kind::kString)) {
    const std::string& s = v.string();
    rt.visit_bytes(s.size());
    const auto at = place(key.integer(), code_points(s));
    if (!at) return std::nullopt;
    size_t pos = 0;
    for (size_t i = 0; i < *at; ++i) utf8::next(s, pos);
    const size_t begin = pos;
    utf8::next(s, pos);
    return rt.text(s.substr(begin, pos - begin));
  }
  if (v.is(Kind::kSequence)) {
    const Sequence& s = v.sequence();
    if (s.kind == SequenceKind::kView || s.kind == SequenceKind::kGenerator) return std::nullopt;
    if (const auto at = place(key.integer(), s.items.size())) return s.items[*at];
  }
  return std::nullopt;
}

}  // namespace

Value attribute(Runtime& rt, const Value& v, std::string_view name) {
  if (v.is(Kind::kUndefined)) rt.error("{}", v.undefined_message());
  if (auto found = python_attribute(rt, v, name)) return *found;
  if (v.is(Kind::kDict))
    if (const Value* found = v.dict().find_text(name)) return *found;
  return no_attribute(v, name);
}

Value item(Runtime& rt, const Value& v, const Value& key) {
  if (v.is(Kind::kUndefined)) rt.error("{}", v.undefined_message());
  if (auto found = python_item(rt, v, key)) return *found;
  if (!key.is(Kind::kString))
    return Value::undefined(fmt::format("'{} object' has no such element", type_name(v)));
  if (auto found = python_attribute(rt, v, key.string())) return *found;
  return no_attribute(v, key.string());
}

Value slice(Runtime& rt, const Value& v, const Value& from, const Value& to, const Value& step) {
  if (v.is(Kind::kUndefined)) rt.error("{}", v.undefined_message());
  if (v.is(Kind::kString)) {
    rt.make_bytes(v.string().size());
    const std::u32string chars = decode(v.string());
    std::string out;
    for_each_index(slice_range(rt, chars.size(), from, to, step),
                   [&](size_t i) { utf8::append(out, chars[i]); });
    return rt.text(std::move(out));
  }
  if (v.is(Kind::kSequence) && v.sequence().kind != SequenceKind::kView &&
      v.sequence().kind != SequenceKind::kGenerator) {
    const Sequence& s = v.sequence();
    std::vector<Value> items;
    for_each_index(slice_range(rt, s.items.size(), from, to, step),
                   [&](size_t i) { items.push_back(s.items[i]); });
    return s.kind == SequenceKind::kTuple ? rt.tuple(std::move(items)) : rt.list(std::move(items));
  }
  rt.error("a {} can't be sliced", type_name(v));
}

std::vector<Value> iterate(Runtime& rt, const Value& v) {
  std::vector<Value> items;
  switch (v.kind()) {
    case Kind::kUndefined:
      break;
    case Kind::kString: {
      const std::string& s = v.string();
      for (size_t pos = 0; pos < s.size();) {
        const size_t begin = pos;
        utf8::next(s, pos);
        items.push_back(rt.text(s.substr(begin, pos - begin)));
      }
      break;
    }
    case Kind::kSequence: {
      const Sequence& s = v.sequence();
      items.assign(s.items.begin() + static_cast<ptrdiff_t>(s.consumed), s.items.end());
      if (s.kind == SequenceKind::kGenerator) s.consumed = s.items.size();
      break;
    }
    case Kind::kDict:
      for (const Dict::Entry& entry : v.dict().entries()) items.push_back(entry.key);
      break;
    default:
      rt.error("a {} has no items to go through", type_name(v));
  }
  rt.make_bytes(items.size() * sizeof(Value));
  return items;
}

size_t length(Runtime& rt, const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      rt.visit_bytes(v.string().size());
      return code_points(v.string());
    case Kind::kDict:
      return v.dict().entries().size();
    case Kind::kSequence:
      if (v.sequence().kind != SequenceKind::kGenerator) return v.sequence().items.size();
      [[fallthrough]];
    default:
      rt.error("a {} has no length", type_name(v));
  }
}

}  // namespace nibble::jinja
