// Truth, comparison and arithmetic.
#include "text/jinja/operations.h"

#include <algorithm>
#include <cmath>

namespace nibble::jinja {
namespace {

bool is_undefined(const Value& v) { return v.is(Kind::kUndefined); }

void check_defined(Runtime& rt, const Value& a, const Value& b) {
  if (is_undefined(a)) rt.error("{}", a.undefined_message());
  if (is_undefined(b)) rt.error("{}", b.undefined_message());
}

int compare_numbers(const Value& a, const Value& b) {  // not for NaN
  if (a.is_integral() && b.is_integral())
    return (a.integer() > b.integer()) - (a.integer() < b.integer());
  // A long double holds every int64 and double.
  const auto wide = [](const Value& v) {
    return v.is_integral() ? static_cast<long double>(v.integer())
                           : static_cast<long double>(v.number());
  };
  return (wide(a) > wide(b)) - (wide(a) < wide(b));
}

bool has_nan(const Value& a, const Value& b) {
  return std::isnan(a.number()) || std::isnan(b.number());
}

bool is_listed(const Sequence& s) {
  return s.kind == SequenceKind::kList || s.kind == SequenceKind::kTuple ||
         s.kind == SequenceKind::kRange;
}

bool equal_dicts(Runtime& rt, const Dict& a, const Dict& b) {
  if (a.entries().size() != b.entries().size()) return false;
  for (const auto& [key, value] : a.entries()) {
    const Value* other = b.find(key);
    if (!other || !equal(rt, value, *other)) return false;
  }
  return true;
}

double floor_mod(double a, double b) {
  double mod = std::fmod(a, b);
  if (mod != 0 && (b < 0) != (mod < 0)) mod += b;
  return mod == 0 ? std::copysign(0.0, b) : mod;
}

double floor_divide(double a, double b) {  // CPython's float_floor_div
  const double raw_mod = std::fmod(a, b);
  double quotient = (a - raw_mod) / b;
  if (raw_mod != 0 && (b < 0) != (raw_mod < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

Value float_arithmetic(Runtime& rt, std::string_view op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") {
    if (a == 0 && b < 0) rt.error("0.0 to a negative power");
    if (a < 0 && std::isfinite(a) && std::isfinite(b) && b != std::floor(b))
      rt.error("a negative number to a fractional power");
    const double r = std::pow(a, b);
    if (std::isinf(r) && std::isfinite(a) && std::isfinite(b)) rt.error("number overflow");
    return r;
  }
  if (b == 0) rt.error("division by zero");
  if (op == "/") return a / b;
  return op == "%" ? floor_mod(a, b) : floor_divide(a, b);
}

int64_t int_power(Runtime& rt, int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (true) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result))
      rt.error("number overflow");
    exponent >>= 1;
    if (exponent == 0) return result;
    if (__builtin_mul_overflow(base, base, &base)) rt.error("number overflow");
  }
}

Value int_arithmetic(Runtime& rt, std::string_view op, int64_t a, int64_t b) {
  int64_t r = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &r);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &r);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &r);
  } else if (op == "**") {
    if (b < 0) return float_arithmetic(rt, op, static_cast<double>(a), static_cast<double>(b));
    if (a == 0 || a == 1) return b == 0 ? int64_t{1} : a;
    if (a == -1) return int64_t{b % 2 == 0 ? 1 : -1};
    return int_power(rt, a, b);
  } else {
    if (b == 0) rt.error("division by zero");
    if (op == "/") return static_cast<double>(a) / static_cast<double>(b);
    if (b == -1) {  // INT64_MIN / -1 does not fit
      overflow = op == "//" && __builtin_sub_overflow(int64_t{0}, a, &r);
    } else {
      const bool inexact = a % b != 0 && (a % b < 0) != (b < 0);
      r = op == "//" ? a / b - inexact : a % b + (inexact ? b : 0);
    }
  }
  if (overflow) rt.error("number overflow");
  return r;
}

Value repeat(Runtime& rt, const Value& v, int64_t times) {
  const size_t n = times > 0 ? static_cast<size_t>(times) : 0;
  if (v.is(Kind::kString)) {
    const std::string& s = v.string();
    if (!s.empty() && n > Runtime::kMaxBytes / s.size()) rt.error("a repeated string is too long");
    rt.visit_bytes(n * s.size());
    std::string out;
    for (size_t i = 0; i < n && !s.empty(); ++i) out += s;
    return rt.text(std::move(out));
  }
  const std::vector<Value>& items = v.sequence().items;
  if (!items.empty() && n > Runtime::kMaxSteps / items.size())
    rt.error("a repeated list is too long");
  rt.step(n * items.size());
  std::vector<Value> out;
  for (size_t i = 0; i < n && !items.empty(); ++i)
    out.insert(out.end(), items.begin(), items.end());
  return rt.sequence(v.sequence().kind, std::move(out));
}

bool is_repeatable(const Value& v) {
  return v.is(Kind::kString) ||
         (v.is(Kind::kSequence) &&
          (v.sequence().kind == SequenceKind::kList || v.sequence().kind == SequenceKind::kTuple));
}

}  // namespace

bool truthy(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return v.integer() != 0;
    case Kind::kFloat:
      return v.number() != 0;
    case Kind::kString:
      return !v.string().empty();
    case Kind::kSequence:
      return v.sequence().kind == SequenceKind::kGenerator || !v.sequence().items.empty();
    case Kind::kDict:
      return !v.dict().entries().empty();
    default:
      return true;
  }
}

bool equal(Runtime& rt, const Value& a, const Value& b) {
  rt.step();
  if (a.is_number() && b.is_number()) return !has_nan(a, b) && compare_numbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kString:
      rt.visit_bytes(std::min(a.string().size(), b.string().size()));
      return a.string() == b.string();
    case Kind::kSequence: {
      const Sequence& x = a.sequence();
      const Sequence& y = b.sequence();
      if (&x == &y) return true;
      if (x.kind != y.kind || !is_listed(x) || x.items.size() != y.items.size()) return false;
      return std::equal(x.items.begin(), x.items.end(), y.items.begin(),
                        [&](const Value& v, const Value& w) { return equal(rt, v, w); });
    }
    case Kind::kDict:
      return equal_dicts(rt, a.dict(), b.dict());
    case Kind::kNamespace:
      return &a.ns() == &b.ns();
    case Kind::kMacro:
      return &a.macro() == &b.macro();
    case Kind::kFunction:
      return &a.function() == &b.function();
    case Kind::kBound:
      return &a.bound() == &b.bound();
    default:
      return true;  // undefined or none, both
  }
}

bool less(Runtime& rt, const Value& a, const Value& b) {
  rt.step();
  check_defined(rt, a, b);
  if (a.is_number() && b.is_number()) return !has_nan(a, b) && compare_numbers(a, b) < 0;
  if (a.is(Kind::kString) && b.is(Kind::kString)) {
    rt.visit_bytes(std::min(a.string().size(), b.string().size()));
    return a.string() < b.string();  // UTF-8 sorts as code points do
  }
  if (a.is(Kind::kSequence) && b.is(Kind::kSequence)) {
    const Sequence& x = a.sequence();
    const Sequence& y = b.sequence();
    if (x.kind == y.kind && is_repeatable(a)) {
      for (size_t i = 0; i < std::min(x.items.size(), y.items.size()); ++i)
        if (!equal(rt, x.items[i], y.items[i])) return less(rt, x.items[i], y.items[i]);
      return x.items.size() < y.items.size();
    }
  }
  rt.error("a {} and a {} have no order", type_name(a), type_name(b));
}

bool contains(Runtime& rt, const Value& container, const Value& wanted) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (is_undefined(wanted)) rt.error("{}", wanted.undefined_message());
      if (!wanted.is(Kind::kString))
        rt.error("'in' a string needs a string, found a {}", type_name(wanted));
      rt.visit_bytes(container.string().size());
      return container.string().find(wanted.string()) != std::string::npos;
    case Kind::kDict:
      if (is_undefined(wanted)) return false;
      if (!Dict::is_key(wanted)) rt.error("a {} can't be the key of a dict", type_name(wanted));
      return container.dict().find(wanted) != nullptr;
    case Kind::kSequence: {
      const Sequence& s = container.sequence();
      bool found = false;
      size_t i = s.consumed;
      while (i < s.items.size() && !found) found = equal(rt, s.items[i++], wanted);
      if (s.kind == SequenceKind::kGenerator) s.consumed = i;
      return found;
    }
    default:
      rt.error("'in' needs a container, found a {}", type_name(container));
  }
}

bool compare(Runtime& rt, std::string_view op, const Value& a, const Value& b) {
  if (op == "==") return equal(rt, a, b);
  if (op == "!=") return !equal(rt, a, b);
  if (op == "in") return contains(rt, b, a);
  if (op == "not in") return !contains(rt, b, a);
  if (op == "<") return less(rt, a, b);
  if (op == ">") return less(rt, b, a);
  // Written out, since a NaN is neither less nor greater nor equal.
  if (op == "<=") return less(rt, a, b) || equal(rt, a, b);
  return less(rt, b, a) || equal(rt, a, b);
}

Value arithmetic(Runtime& rt, std::string_view op, const Value& a, const Value& b) {
  check_defined(rt, a, b);
  if (a.is_integral() && b.is_integral()) return int_arithmetic(rt, op, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return float_arithmetic(rt, op, a.number(), b.number());
  if (op == "+" && a.is(Kind::kString) && b.is(Kind::kString)) {
    rt.visit_bytes(a.string().size() + b.string().size());
    return rt.text(a.string() + b.string());
  }
  if (op == "+" && is_repeatable(a) && is_repeatable(b) && a.is(Kind::kSequence) &&
      b.is(Kind::kSequence) && a.sequence().kind == b.sequence().kind) {
    std::vector<Value> items = a.sequence().items;
    items.insert(items.end(), b.sequence().items.begin(), b.sequence().items.end());
    rt.step(items.size());
    return rt.sequence(a.sequence().kind, std::move(items));
  }
  if (op == "*" && is_repeatable(a) && b.is_integral()) return repeat(rt, a, b.integer());
  if (op == "*" && is_repeatable(b) && a.is_integral()) return repeat(rt, b, a.integer());
  if (op == "%" && a.is(Kind::kString)) rt.error("the % operator on strings is not supported");
  rt.error("'{}' is not defined for a {} and a {}", op, type_name(a), type_name(b));
}

Value negate(Runtime& rt, const Value& v) {
  if (v.is(Kind::kFloat)) return -v.number();
  if (v.is_integral()) return int_arithmetic(rt, "-", 0, v.integer());
  if (is_undefined(v)) rt.error("{}", v.undefined_message());
  rt.error("'-' is not defined for a {}", type_name(v));
}

Value positive(Runtime& rt, const Value& v) {
  if (v.is(Kind::kFloat)) return v;
  if (v.is_integral()) return v.integer();
  if (is_undefined(v)) rt.error("{}", v.undefined_message());
  rt.error("'+' is not defined for a {}", type_name(v));
}

}  // namespace nibble::jinja
