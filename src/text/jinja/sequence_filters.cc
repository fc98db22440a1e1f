// Filters that walk the items of a value.
#include <algorithm>
#include <iterator>

#include "text/jinja/builtins.h"
#include "text/jinja/operations.h"
#include "text/jinja/unicode.h"
#include "text/jinja/words.h"

namespace nibble::jinja {
namespace {

// The value at a path like "function.name" or "0.role", as make_attrgetter walks it.
Value at_path(Runtime& rt, Value v, const Value& path, const Value* otherwise = nullptr) {
  if (path.is(Kind::kNone)) return v;
  const auto step = [&](const Value& part) {
    v = item(rt, v, part);
    if (otherwise && !otherwise->is(Kind::kNone) && v.is(Kind::kUndefined)) v = *otherwise;
  };
  if (!path.is(Kind::kString)) {
    step(path);
    return v;
  }
  for (const std::string_view part : split_at(path.string(), ".", SIZE_MAX)) {
    const bool digits =
        !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == part.npos;
    step(digits ? Value(static_cast<int64_t>(std::stoll(std::string(part)))) : Value(part));
  }
  return v;
}

// What sort, unique, min and max compare: strings without case unless told otherwise.
Value sort_key(Runtime& rt, const Value& v, const Value& path, bool case_sensitive) {
  Value key = at_path(rt, v, path);
  if (case_sensitive || !key.is(Kind::kString)) return key;
  rt.make_bytes(8 * key.string().size());
  return rt.text(to_lower(key.string()));
}

const Value& or_none(const Bindings& b, size_t i) {
  static const Value none = None{};
  return b.has(i) ? b[i] : none;
}

// A stable merge sort: std::stable_sort's comparison must not throw halfway through moved items,
// so it sorts positions.
std::vector<Value> sorted(Runtime& rt, const std::vector<Value>& items,
                          const std::vector<Value>& keys, bool reverse) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reverse ? less(rt, keys[b], keys[a]) : less(rt, keys[a], keys[b]);
  });
  std::vector<Value> out;
  for (const size_t i : order) out.push_back(items[i]);
  return out;
}

Value join(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "join", args, {"d", "attribute"});
  const std::string between = b.text(0, "");
  std::string out;
  bool first = true;
  for (const Value& part : iterate(rt, v)) {
    if (!std::exchange(first, false)) {
      rt.make_bytes(between.size());
      out += between;
    }
    out += to_text(rt, at_path(rt, part, or_none(b, 1)));
  }
  return rt.text(std::move(out));
}

Value first(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "first", args, {});
  if (v.is(Kind::kSequence)) {
    const Sequence& s = v.sequence();
    if (s.consumed >= s.items.size()) return Value::undefined("no first item, it is empty");
    return s.items[s.kind == SequenceKind::kGenerator ? s.consumed++ : 0];
  }
  const std::vector<Value> items = iterate(rt, v);
  return items.empty() ? Value::undefined("no first item, it is empty") : items.front();
}

Value last(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "last", args, {});
  if (v.is(Kind::kSequence) && v.sequence().kind == SequenceKind::kGenerator)
    rt.error("'last' needs a list, found a generator");
  const std::vector<Value> items = iterate(rt, v);
  return items.empty() ? Value::undefined("no last item, it is empty") : items.back();
}

Value list(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "list", args, {});
  return rt.list(iterate(rt, v));
}

Value reverse(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "reverse", args, {});
  if (v.is(Kind::kString)) {
    rt.make_bytes(4 * v.string().size());
    std::u32string chars = decode(v.string());
    std::reverse(chars.begin(), chars.end());
    return rt.text(encode(chars));
  }
  const bool as_list = v.is(Kind::kSequence) && v.sequence().kind == SequenceKind::kGenerator;
  std::vector<Value> items = iterate(rt, v);
  std::reverse(items.begin(), items.end());
  return as_list ? rt.list(std::move(items)) : rt.generator(std::move(items));
}

Value items(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "items", args, {});
  std::vector<Value> out;
  if (v.is(Kind::kDict)) {
    for (const auto& [key, value] : v.dict().entries()) out.push_back(rt.tuple({key, value}));
  } else if (!v.is(Kind::kUndefined)) {
    rt.error("'items' needs a dict, found a {}", type_name(v));
  }
  return rt.generator(std::move(out));
}

Value dictsort(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "dictsort", args, {"case_sensitive", "by", "reverse"});
  if (!v.is(Kind::kDict)) rt.error("'dictsort' needs a dict, found a {}", type_name(v));
  const std::string by = b.text(1, "key");
  if (by != "key" && by != "value") rt.error("'dictsort' sorts by key or value, not by {}", by);
  std::vector<Value> pairs, keys;
  for (const auto& [key, value] : v.dict().entries()) {
    pairs.push_back(rt.tuple({key, value}));
    keys.push_back(sort_key(rt, by == "key" ? key : value, None{}, b.flag(0, false)));
  }
  return rt.list(sorted(rt, pairs, keys, b.flag(2, false)));
}

Value sort(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "sort", args, {"reverse", "case_sensitive", "attribute"});
  const std::vector<Value> in = iterate(rt, v);
  // Several attributes, separated by commas, compare as a tuple.
  std::vector<Value> paths;
  if (b.has(2) && b[2].is(Kind::kString))
    for (const std::string_view path : split_at(b[2].string(), ",", SIZE_MAX))
      paths.emplace_back(path);
  else
    paths.push_back(or_none(b, 2));
  std::vector<Value> keys;
  for (const Value& item_value : in) {
    std::vector<Value> parts;
    for (const Value& path : paths)
      parts.push_back(sort_key(rt, item_value, path, b.flag(1, false)));
    keys.push_back(rt.list(std::move(parts)));
  }
  return rt.list(sorted(rt, in, keys, b.flag(0, false)));
}

Value unique(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "unique", args, {"case_sensitive", "attribute"});
  Dict seen;
  std::vector<Value> out;
  for (const Value& part : iterate(rt, v)) {
    const Value key = sort_key(rt, part, or_none(b, 1), b.flag(0, false));
    if (!Dict::is_key(key)) rt.error("'unique' can't compare a {}", type_name(key));
    if (seen.find(key)) continue;
    rt.set(seen, key, true);
    out.push_back(part);
  }
  return rt.generator(std::move(out));
}

template <bool kMax>
Value extreme(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, kMax ? "max" : "min", args, {"case_sensitive", "attribute"});
  const std::vector<Value> in = iterate(rt, v);
  if (in.empty()) return Value::undefined("no aggregated item, it is empty");
  size_t best = 0;
  Value best_key;
  for (size_t i = 0; i < in.size(); ++i) {
    Value key = sort_key(rt, in[i], or_none(b, 1), b.flag(0, false));
    if (i > 0 && !(kMax ? less(rt, best_key, key) : less(rt, key, best_key))) continue;
    best = i;
    best_key = std::move(key);
  }
  return in[best];
}

Value sum(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "sum", args, {"attribute", "start"});
  Value total = b.has(1) ? b[1] : Value(int64_t{0});
  if (total.is(Kind::kString)) rt.error("'sum' can't add strings; use |join");
  for (const Value& part : iterate(rt, v))
    total = arithmetic(rt, "+", total, at_path(rt, part, or_none(b, 0)));
  return total;
}

Value map(Runtime& rt, const Value& v, const Args& args) {
  std::vector<Value> out;
  if (args.positional.empty()) {
    const Bindings b(rt, "map", args, {"attribute", "default"}, 1);
    const Value* otherwise = b.has(1) ? &b[1] : nullptr;
    for (const Value& part : iterate(rt, v)) out.push_back(at_path(rt, part, b[0], otherwise));
    return rt.generator(std::move(out));
  }
  if (!args.positional[0].is(Kind::kString)) rt.error("'map' needs the name of a filter");
  const std::string& name = args.positional[0].string();
  const Filter filter = find_filter(name);
  if (!filter) rt.error("unknown filter '{}'", name);
  // A filter that is given other filters by name could nest without bound.
  if (name == "map") rt.error("'map' of 'map' is not supported");
  const Args rest{{args.positional.begin() + 1, args.positional.end()}, args.named};
  for (const Value& part : iterate(rt, v)) {
    rt.step();
    out.push_back(filter(rt, part, rest));
  }
  return rt.generator(std::move(out));
}

template <bool kWanted, bool kByAttribute>
Value choose(Runtime& rt, const Value& v, const Args& args) {
  const std::string_view callee =
      kByAttribute ? (kWanted ? "selectattr" : "rejectattr") : (kWanted ? "select" : "reject");
  const size_t first_arg = kByAttribute ? 1 : 0;
  if (args.positional.size() < first_arg) rt.error("'{}' needs an attribute", callee);
  Test test = nullptr;
  Args rest;
  if (args.positional.size() > first_arg) {
    const Value& name = args.positional[first_arg];
    if (!name.is(Kind::kString)) rt.error("'{}' needs the name of a test", callee);
    test = find_test(name.string());
    if (!test) rt.error("unknown test '{}'", name.string());
    rest.positional.assign(args.positional.begin() + static_cast<ptrdiff_t>(first_arg) + 1,
                           args.positional.end());
    rest.named = args.named;
  }
  std::vector<Value> out;
  for (const Value& part : iterate(rt, v)) {
    rt.step();
    const Value tested = kByAttribute ? at_path(rt, part, args.positional[0]) : part;
    if ((test ? test(rt, tested, rest) : truthy(tested)) == kWanted) out.push_back(part);
  }
  return rt.generator(std::move(out));
}

struct Entry {
  std::string_view name;
  Filter filter;
};
constexpr Entry kFilters[] = {
    {"dictsort", dictsort},
    {"first", first},
    {"items", items},
    {"join", join},
    {"last", last},
    {"list", list},
    {"map", map},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"reject", choose<false, false>},
    {"rejectattr", choose<false, true>},
    {"reverse", reverse},
    {"select", choose<true, false>},
    {"selectattr", choose<true, true>},
    {"sort", sort},
    {"sum", sum},
    {"unique", unique},
};

}  // namespace

Filter find_sequence_filter(std::string_view name) {
  const auto* it = std::find_if(std::begin(kFilters), std::end(kFilters),
                                [&](const Entry& e) { return e.name == name; });
  return it == std::end(kFilters) ? nullptr : it->filter;
}

}  // namespace nibble::jinja
