// What can stand behind `is`.
#include <algorithm>
#include <iterator>

#include "text/jinja/builtins.h"
#include "text/jinja/operations.h"

namespace nibble::jinja {
namespace {

template <Kind kKind>
bool is_kind(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "is", args, {});
  return v.is(kKind);
}

bool is_defined(Runtime& rt, const Value& v, const Args& args) {
  return !is_kind<Kind::kUndefined>(rt, v, args);
}

bool is_number(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "is number", args, {});
  return v.is_number();
}

template <bool kWanted>
bool is_bool(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "is true", args, {});
  return v.is(Kind::kBool) && v.boolean() == kWanted;
}

bool is_sequence(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "is sequence", args, {});
  if (v.is(Kind::kSequence))
    return v.sequence().kind != SequenceKind::kView &&
           v.sequence().kind != SequenceKind::kGenerator;
  return v.is(Kind::kString) || v.is(Kind::kDict) || v.is(Kind::kUndefined);
}

bool is_iterable(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "is iterable", args, {});
  return v.is(Kind::kSequence) || v.is(Kind::kString) || v.is(Kind::kDict) ||
         v.is(Kind::kUndefined);
}

int64_t remainder(Runtime& rt, const Value& v, int64_t divisor) {
  const Value r = arithmetic(rt, "%", v, Value(divisor));
  return r.is(Kind::kFloat) ? (r.number() == 0 ? 0 : r.number() == 1 ? 1 : -1) : r.integer();
}

template <int kWanted>
bool has_parity(Runtime& rt, const Value& v, const Args& args) {
  const Bindings none(rt, "is even", args, {});
  return remainder(rt, v, 2) == kWanted;
}

bool is_divisible(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "is divisibleby", args, {"num"}, 1);
  return remainder(rt, v, b.integer(0, 1)) == 0;
}

enum Comparison { kEq, kNe, kLt, kLe, kGt, kGe, kIn };
constexpr std::string_view kOperators[] = {"==", "!=", "<", "<=", ">", ">=", "in"};

template <Comparison kOp>
bool compares(Runtime& rt, const Value& v, const Args& args) {
  const Bindings b(rt, "is", args, {"other"}, 1);
  return compare(rt, kOperators[kOp], v, b[0]);
}

struct Entry {
  std::string_view name;
  Test test;
};
constexpr Entry kTests[] = {
    {"!=", compares<kNe>},
    {"<", compares<kLt>},
    {"<=", compares<kLe>},
    {"==", compares<kEq>},
    {">", compares<kGt>},
    {">=", compares<kGe>},
    {"boolean", is_kind<Kind::kBool>},
    {"defined", is_defined},
    {"divisibleby", is_divisible},
    {"eq", compares<kEq>},
    {"equalto", compares<kEq>},
    {"even", has_parity<0>},
    {"false", is_bool<false>},
    {"float", is_kind<Kind::kFloat>},
    {"ge", compares<kGe>},
    {"greaterthan", compares<kGt>},
    {"gt", compares<kGt>},
    {"in", compares<kIn>},
    {"integer", is_kind<Kind::kInt>},
    {"iterable", is_iterable},
    {"le", compares<kLe>},
    {"lessthan", compares<kLt>},
    {"lt", compares<kLt>},
    {"mapping", is_kind<Kind::kDict>},
    {"ne", compares<kNe>},
    {"none", is_kind<Kind::kNone>},
    {"number", is_number},
    {"odd", has_parity<1>},
    {"sequence", is_sequence},
    {"string", is_kind<Kind::kString>},
    {"true", is_bool<true>},
    {"undefined", is_kind<Kind::kUndefined>},
};

}  // namespace

Test find_test(std::string_view name) {
  const auto* it = std::find_if(std::begin(kTests), std::end(kTests),
                                [&](const Entry& e) { return e.name == name; });
  return it == std::end(kTests) ? nullptr : it->test;
}

}  // namespace nibble::jinja
