// The methods of Python's str, dict and list that templates call; those that change their object
// are out of the sandbox's bounds and so of ours.
#include <algorithm>
#include <iterator>
#include <optional>

#include "text/jinja/builtins.h"
#include "text/jinja/operations.h"
#include "text/jinja/unicode.h"
#include "text/jinja/words.h"

namespace nibble::jinja {
namespace {

using Method = Value (*)(Runtime&, const Value& self, const Args&);

const std::string& text_argument(Runtime& rt, std::string_view method, const Value& v) {
  if (!v.is(Kind::kString)) rt.error("'{}' needs a string, found a {}", method, type_name(v));
  return v.string();
}

enum Side { kLeft = 1, kRight = 2, kBoth = 3 };

template <Side kSide>
Value strip(Runtime& rt, const Value& self, const Args& args) {
  const Bindings b(rt, "strip", args, {"chars"});
  return rt.text(std::string(b.has(0) && !b[0].is(Kind::kNone)
                                 ? strip_chars(self.string(), text_argument(rt, "strip", b[0]),
                                               kSide & kLeft, kSide & kRight)
                                 : strip_spaces(self.string(), kSide & kLeft, kSide & kRight)));
}

template <std::string (*kFn)(std::string_view)>
Value change_case(Runtime& rt, const Value& self, const Args& args) {
  const Bindings none(rt, "upper", args, {});
  rt.make_bytes(8 * self.string().size());  // decoded and mapped
  return rt.text(kFn(self.string()));
}

template <bool kFromRight>
Value split(Runtime& rt, const Value& self, const Args& args) {
  const Bindings b(rt, "split", args, {"sep", "maxsplit"});
  const int64_t limit = b.integer(1, -1);
  const size_t max_splits = limit < 0 ? SIZE_MAX : static_cast<size_t>(limit);
  const std::string& s = self.string();
  std::vector<std::string_view> parts;
  if (!b.has(0) || b[0].is(Kind::kNone)) {
    if (kFromRight && max_splits != SIZE_MAX) rt.error("'rsplit' needs a separator");
    parts = split_space(s, max_splits);
  } else {
    const std::string& separator = text_argument(rt, "split", b[0]);
    if (separator.empty()) rt.error("'split' has an empty separator");
    parts = kFromRight ? split_right(s, separator, max_splits) : split_at(s, separator, max_splits);
  }
  std::vector<Value> items;
  for (const std::string_view part : parts) items.push_back(rt.text(std::string(part)));
  return rt.list(std::move(items));
}

Value split_lines(Runtime& rt, const Value& self, const Args& args) {
  const Bindings b(rt, "splitlines", args, {"keepends"});
  std::vector<Value> items;
  for (const std::string_view line : lines(self.string(), b.flag(0, false)))
    items.push_back(rt.text(std::string(line)));
  return rt.list(std::move(items));
}

template <bool kStart>
Value has_affix(Runtime& rt, const Value& self, const Args& args) {
  const std::string_view name = kStart ? "startswith" : "endswith";
  const Bindings b(rt, name, args, {"prefix"}, 1);
  const std::string& s = self.string();
  const auto matches = [&](const Value& v) {
    const std::string& affix = text_argument(rt, name, v);
    rt.visit_bytes(affix.size());
    return kStart ? s.starts_with(affix) : s.ends_with(affix);
  };
  if (!b[0].is(Kind::kSequence) || b[0].sequence().kind != SequenceKind::kTuple)
    return matches(b[0]);
  const auto& items = b[0].sequence().items;
  return std::any_of(items.begin(), items.end(), matches);
}

template <bool kStart>
Value remove_affix(Runtime& rt, const Value& self, const Args& args) {
  const std::string_view name = kStart ? "removeprefix" : "removesuffix";
  const Bindings b(rt, name, args, {"affix"}, 1);
  std::string_view s = self.string();
  const std::string& affix = text_argument(rt, name, b[0]);
  if (kStart && s.starts_with(affix)) s.remove_prefix(affix.size());
  if (!kStart && s.ends_with(affix)) s.remove_suffix(affix.size());
  return rt.text(std::string(s));
}

Value replace(Runtime& rt, const Value& self, const Args& args) {
  const Bindings b(rt, "replace", args, {"old", "new", "count"}, 2);
  return rt.text(replace_text(rt, self.string(), text_argument(rt, "replace", b[0]),
                              text_argument(rt, "replace", b[1]), b.integer(2, -1)));
}

Value join(Runtime& rt, const Value& self, const Args& args) {
  const Bindings b(rt, "join", args, {"iterable"}, 1);
  std::string out;
  bool first = true;
  for (const Value& v : iterate(rt, b[0])) {
    if (!std::exchange(first, false)) out += self.string();
    out += text_argument(rt, "join", v);
    rt.make_bytes(self.string().size() + v.string().size());
  }
  return rt.text(std::move(out));
}

template <bool kFromRight>
Value find(Runtime& rt, const Value& self, const Args& args) {
  const Bindings b(rt, "find", args, {"sub"}, 1);
  const std::string& sub = text_argument(rt, "find", b[0]);
  const size_t at = kFromRight ? self.string().rfind(sub) : self.string().find(sub);
  if (at == std::string::npos) return int64_t{-1};
  return static_cast<int64_t>(code_points(std::string_view(self.string()).substr(0, at)));
}

Value count(Runtime& rt, const Value& self, const Args& args) {
  const Bindings b(rt, "count", args, {"value"}, 1);
  int64_t n = 0;
  if (self.is(Kind::kSequence)) {
    for (const Value& v : self.sequence().items) n += equal(rt, v, b[0]);
    return n;
  }
  const std::string& sub = text_argument(rt, "count", b[0]);
  if (sub.empty()) return static_cast<int64_t>(code_points(self.string()) + 1);
  for (size_t at = 0; (at = self.string().find(sub, at)) != std::string::npos; at += sub.size())
    ++n;
  return n;
}

Value index(Runtime& rt, const Value& self, const Args& args) {
  const Bindings b(rt, "index", args, {"value"}, 1);
  if (self.is(Kind::kString)) {
    const Value at = find<false>(rt, self, args);
    if (at.integer() < 0) rt.error("'index': not found");
    return at;
  }
  const auto& items = self.sequence().items;
  for (size_t i = 0; i < items.size(); ++i)
    if (equal(rt, items[i], b[0])) return static_cast<int64_t>(i);
  rt.error("'index': not found");
}

template <bool (*kIs)(char32_t)>
Value all_are(Runtime& rt, const Value& self, const Args& args) {
  const Bindings none(rt, "isdigit", args, {});
  rt.make_bytes(4 * self.string().size());
  const std::u32string chars = decode(self.string());
  return !chars.empty() && std::all_of(chars.begin(), chars.end(), kIs);
}

enum View { kKeys, kValues, kItems };
template <View kView>
Value view(Runtime& rt, const Value& self, const Args& args) {
  static constexpr const char* kNames[] = {"dict_keys", "dict_values", "dict_items"};
  const Bindings none(rt, kNames[kView], args, {});
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict().entries())
    items.push_back(kView == kKeys ? key : kView == kValues ? value : rt.tuple({key, value}));
  return rt.sequence(SequenceKind::kView, std::move(items), kNames[kView]);
}

Value get(Runtime& rt, const Value& self, const Args& args) {
  if (!args.named.empty()) rt.error("'get' takes no keyword arguments");
  const Bindings b(rt, "get", args, {"key", "default"}, 1);
  if (!b[0].is(Kind::kUndefined)) {
    if (!Dict::is_key(b[0])) rt.error("a {} can't be the key of a dict", type_name(b[0]));
    if (const Value* found = self.dict().find(b[0])) return *found;
  }
  return b.has(1) ? b[1] : Value(None{});
}

struct Entry {
  std::string_view name;
  Method method;  // null: Python has it, Nibble has not
};
constexpr Entry kStringMethods[] = {
    {"capitalize", change_case<capitalize>},
    {"casefold", nullptr},
    {"center", nullptr},
    {"count", count},
    {"encode", nullptr},
    {"endswith", has_affix<false>},
    {"expandtabs", nullptr},
    {"find", find<false>},
    {"format", nullptr},
    {"format_map", nullptr},
    {"index", index},
    {"isalnum", nullptr},
    {"isalpha", nullptr},
    {"isascii", nullptr},
    {"isdecimal", all_are<is_decimal>},
    {"isdigit", all_are<is_decimal>},
    {"isidentifier", nullptr},
    {"islower", nullptr},
    {"isnumeric", nullptr},
    {"isprintable", nullptr},
    {"isspace", all_are<is_space>},
    {"istitle", nullptr},
    {"isupper", nullptr},
    {"join", join},
    {"ljust", nullptr},
    {"lower", change_case<to_lower>},
    {"lstrip", strip<kLeft>},
    {"maketrans", nullptr},
    {"partition", nullptr},
    {"removeprefix", remove_affix<true>},
    {"removesuffix", remove_affix<false>},
    {"replace", replace},
    {"rfind", find<true>},
    {"rindex", nullptr},
    {"rjust", nullptr},
    {"rpartition", nullptr},
    {"rsplit", split<true>},
    {"rstrip", strip<kRight>},
    {"split", split<false>},
    {"splitlines", split_lines},
    {"startswith", has_affix<true>},
    {"strip", strip<kBoth>},
    {"swapcase", nullptr},
    {"title", change_case<title_words>},
    {"translate", nullptr},
    {"upper", change_case<to_upper>},
    {"zfill", nullptr},
};
constexpr Entry kDictMethods[] = {
    {"clear", nullptr},      {"copy", nullptr},     {"fromkeys", nullptr},     {"get", get},
    {"items", view<kItems>}, {"keys", view<kKeys>}, {"pop", nullptr},          {"popitem", nullptr},
    {"setdefault", nullptr}, {"update", nullptr},   {"values", view<kValues>},
};
constexpr Entry kListMethods[] = {
    {"append", nullptr}, {"clear", nullptr},   {"copy", nullptr},   {"count", count},
    {"extend", nullptr}, {"index", index},     {"insert", nullptr}, {"pop", nullptr},
    {"remove", nullptr}, {"reverse", nullptr}, {"sort", nullptr},
};

template <size_t kN>
const Entry* find_entry(const Entry (&table)[kN], std::string_view name) {
  const Entry* it = std::find_if(std::begin(table), std::end(table),
                                 [&](const Entry& e) { return e.name == name; });
  return it == std::end(table) ? nullptr : it;
}

const Entry* find_method(const Value& self, std::string_view name) {
  if (self.is(Kind::kString)) return find_entry(kStringMethods, name);
  if (self.is(Kind::kDict)) return find_entry(kDictMethods, name);
  if (self.is(Kind::kSequence) &&
      (self.sequence().kind == SequenceKind::kList || self.sequence().kind == SequenceKind::kTuple))
    return find_entry(kListMethods, name);
  return nullptr;
}

}  // namespace

bool is_method(std::string_view name) {
  const auto supported = [](const Entry* e) { return e && e->method; };
  return supported(find_entry(kStringMethods, name)) || supported(find_entry(kDictMethods, name)) ||
         supported(find_entry(kListMethods, name));
}

MethodSupport method_support(const Value& self, std::string_view name) {
  const Entry* e = find_method(self, name);
  if (e) return e->method ? MethodSupport::kSupported : MethodSupport::kUnsupported;
  const bool internal = name.starts_with("__") && name.ends_with("__") && !self.is(Kind::kDict);
  return internal ? MethodSupport::kUnsupported : MethodSupport::kNone;
}

Value call_method(Runtime& rt, const Value& self, std::string_view name, const Args& args) {
  if (self.is(Kind::kString)) rt.visit_bytes(self.string().size());
  return find_method(self, name)->method(rt, self, args);
}

}  // namespace nibble::jinja
