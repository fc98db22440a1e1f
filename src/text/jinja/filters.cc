// Filters of one value; those that walk items are in sequence_filters.cc.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <optional>

#include "text/jinja/builtins.h"
#include "text/jinja/operations.h"
#include "text/jinja/unicode.h"
#include "text/jinja/words.h"
#include "text/utf8.h"

namespace nibble::jinja {
namespace {

Value trim(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "trim", args, {"chars"});
  const std::string s = to_text(rt, v);
  if (b.has(0) && !b[0].is(Kind::kNone))
    return rt.text(std::string(strip_chars(s, b.text(0, ""), true, true)));
  return rt.text(std::string(strip_spaces(s, true, true)));
}

Value length_of(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "length", args, {});
  return static_cast<int64_t>(length(rt, v));
}

Value fallback(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "default", args, {"default_value", "boolean"});
  const bool missing = v.is(Kind::kUndefined) || (b.flag(1, false) && !truthy(v));
  if (!missing) return v;
  return b.has(0) ? b[0] : Value("");
}

template <std::string (*kFn)(std::string_view)>
Value change_case(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "upper", args, {});
  const std::string s = to_text(rt, v);
  rt.make_bytes(8 * s.size());  // decoded and mapped
  return rt.text(kFn(s));
}

// Jinja's own idea of a title: words begin behind spaces, hyphens and opening brackets only.
std::string title(std::string_view s) {
  std::string out;
  const auto separates = [](char32_t c) {
    return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  for (size_t pos = 0; pos < s.size();) {
    const size_t begin = pos;
    if (separates(utf8::next(s, pos))) {
      out += s.substr(begin, pos - begin);
      continue;
    }
    const size_t rest = pos;
    while (pos < s.size()) {
      size_t next = pos;
      if (separates(utf8::next(s, next))) break;
      pos = next;
    }
    out += to_upper(s.substr(begin, rest - begin));
    out += to_lower(s.substr(rest, pos - rest));
  }
  return out;
}

Value string(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "string", args, {});
  return rt.text(to_text(rt, v));
}

// Nothing is escaped here, so there is nothing to mark.
Value safe(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "safe", args, {});
  return rt.text(to_text(rt, v));
}

// The digits of a Python number literal in a string: blanks around and underscores between.
std::optional<std::string> digits(std::string_view s) {
  std::string out;
  s = strip_spaces(s, true, true);
  if (s.starts_with('+')) s.remove_prefix(1);
  if (s.starts_with('+') || (s.starts_with('-') && s.substr(1).starts_with('+'))) return {};
  const auto digit = [&](size_t i) { return i < s.size() && s[i] >= '0' && s[i] <= '9'; };
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '_')
      out += s[i];
    else if (i == 0 || !digit(i - 1) || !digit(i + 1))
      return {};
  }
  return out;
}

std::optional<double> parse_float(std::string_view s) {
  const auto text = digits(s);
  if (!text || text->empty()) return {};
  double d = 0;
  const char* end = text->data() + text->size();
  const auto [stop, status] = std::from_chars(text->data(), end, d);
  if (stop != end || text->find('(') != std::string::npos) return {};
  if (status == std::errc::result_out_of_range) return std::strtod(text->c_str(), nullptr);
  return status == std::errc() ? std::optional(d) : std::nullopt;
}

Value to_int(Runtime& rt, double d, const Value& otherwise) {
  if (!std::isfinite(d)) return otherwise;
  d = std::trunc(d);
  if (d < -9223372036854775808.0 || d >= 9223372036854775808.0) rt.error("number overflow");
  return static_cast<int64_t>(d);
}

Value integer(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "int", args, {"default", "base"});
  if (b.integer(1, 10) != 10) rt.error("'int' with a base other than 10 is not supported");
  const Value otherwise = b.has(0) ? b[0] : Value(int64_t{0});
  if (v.is(Kind::kUndefined)) rt.error("{}", v.undefined_message());
  if (v.is_integral()) return v.integer();
  if (v.is(Kind::kFloat)) {
    if (std::isinf(v.number())) rt.error("an infinite number has no integer");
    return to_int(rt, v.number(), otherwise);
  }
  if (!v.is(Kind::kString)) return otherwise;
  if (const auto text = digits(v.string())) {
    int64_t i = 0;
    const char* end = text->data() + text->size();
    const auto [stop, status] = std::from_chars(text->data(), end, i);
    if (stop == end && status == std::errc()) return i;
    if (stop == end && status == std::errc::result_out_of_range) rt.error("number overflow");
  }
  const auto d = parse_float(v.string());
  return d ? to_int(rt, *d, otherwise) : otherwise;
}

Value real(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "float", args, {"default"});
  if (v.is(Kind::kUndefined)) rt.error("{}", v.undefined_message());
  if (v.is_number()) return v.number();
  const auto d = v.is(Kind::kString) ? parse_float(v.string()) : std::nullopt;
  return d ? Value(*d) : b.has(0) ? b[0] : Value(0.0);
}

Value absolute(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "abs", args, {});
  if (v.is(Kind::kFloat)) return std::abs(v.number());
  return v.is_integral() && v.integer() >= 0 ? Value(v.integer()) : negate(rt, v);
}

Value replace(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "replace", args, {"old", "new", "count"}, 2);
  const bool all = !b.has(2) || b[2].is(Kind::kNone);
  return rt.text(
      replace_text(rt, to_text(rt, v), b.text(0, ""), b.text(1, ""), all ? -1 : b.integer(2, -1)));
}

Value indent(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "indent", args, {"width", "first", "blank"});
  if (!v.is(Kind::kString)) rt.error("'indent' needs a string, found a {}", type_name(v));
  const bool by_text = b.has(0) && b[0].is(Kind::kString);
  const int64_t width = by_text ? 0 : std::max<int64_t>(b.integer(0, 4), 0);
  if (width > 10'000) rt.error("'indent' by {} is too wide", width);
  const std::string by = by_text ? b[0].string() : std::string(static_cast<size_t>(width), ' ');
  const bool blank = b.flag(2, false);
  std::string text = v.string();
  text += '\n';
  std::string out;
  if (b.flag(1, false)) out += by;
  bool first = true;
  for (const std::string_view line : lines(text, false)) {
    rt.make_bytes(by.size() + line.size());
    if (!std::exchange(first, false)) {
      out += '\n';
      if (blank || !line.empty()) out += by;
    }
    out += line;
  }
  return rt.text(std::move(out));
}

// transformers' own: json.dumps with ensure_ascii off, and no HTML escapes.
Value tojson(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  if (b.flag(0, false)) rt.error("'tojson' with ensure_ascii is not supported");
  JsonFormat format;
  if (b.has(1) && !b[1].is(Kind::kNone)) {
    format.indent = std::max<int64_t>(b.integer(1, 0), 0);
    format.item_separator = std::string(1, ',');
  }
  if (b.has(2) && !b[2].is(Kind::kNone)) {
    const std::vector<Value> parts = iterate(rt, b[2]);
    if (parts.size() != 2) rt.error("'tojson' needs two separators, found {}", parts.size());
    format.item_separator = to_text(rt, parts[0]);
    format.key_separator = to_text(rt, parts[1]);
  }
  format.sort_keys = b.flag(3, false);
  return rt.text(to_json(rt, v, format));
}

struct Entry {
  std::string_view name;
  Filter filter;
};
constexpr Entry kFilters[] = {
    {"abs", absolute},
    {"capitalize", change_case<capitalize>},
    {"count", length_of},
    {"d", fallback},
    {"default", fallback},
    {"float", real},
    {"indent", indent},
    {"int", integer},
    {"length", length_of},
    {"lower", change_case<to_lower>},
    {"replace", replace},
    {"safe", safe},
    {"string", string},
    {"title", change_case<title>},
    {"tojson", tojson},
    {"trim", trim},
    {"upper", change_case<to_upper>},
};

}  // namespace

Filter find_filter(std::string_view name) {
  const auto* it = std::find_if(std::begin(kFilters), std::end(kFilters),
                                [&](const Entry& e) { return e.name == name; });
  return it == std::end(kFilters) ? find_sequence_filter(name) : it->filter;
}

}  // namespace nibble::jinja
