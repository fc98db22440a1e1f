// The values a template computes with. Everything but a namespace is immutable, as in Jinja's
// ImmutableSandboxedEnvironment; so values form no cycles.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace nibble::jinja {

class Value;
class Dict;
struct Sequence;
struct Namespace;
struct Macro;
struct Bound;
struct GlobalFunction;

// Lists in lists: bounds every recursion over a value, its destruction included.
inline constexpr int kMaxValueDepth = 100;

struct Undefined {
  std::shared_ptr<const std::string> what;  // "'x' is undefined"; null for a plain one
};
struct None {};

enum class Kind {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kSequence,
  kDict,
  kBound,
  kNamespace,
  kMacro,
  kFunction
};

class Value {
 public:
  Value() = default;
  Value(None n) : data_(n) {}
  Value(bool b) : data_(b) {}
  Value(int64_t i) : data_(i) {}
  Value(double d) : data_(d) {}
  Value(std::string s) : data_(std::make_shared<const std::string>(std::move(s))) {}
  Value(std::string_view s) : Value(std::string(s)) {}
  Value(const char* s) : Value(std::string(s)) {}
  Value(std::shared_ptr<const Sequence> s) : data_(std::move(s)) {}
  Value(std::shared_ptr<const Dict> d) : data_(std::move(d)) {}
  Value(std::shared_ptr<const Bound> b) : data_(std::move(b)) {}
  // Namespaces and macros belong to the run that makes them (Runtime): a namespace can hold itself,
  // which shared ownership would never free.
  Value(Namespace* n) : data_(n) {}
  Value(const Macro* m) : data_(m) {}
  Value(const GlobalFunction* f) : data_(f) {}

  static Value undefined(std::string what) {
    Value v;
    v.data_ = Undefined{std::make_shared<const std::string>(std::move(what))};
    return v;
  }

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind k) const { return kind() == k; }
  bool is_number() const { return is(Kind::kBool) || is(Kind::kInt) || is(Kind::kFloat); }
  bool is_integral() const { return is(Kind::kBool) || is(Kind::kInt); }

  bool boolean() const { return std::get<bool>(data_); }
  int64_t integer() const {  // of a bool or an int
    return is(Kind::kBool) ? int64_t{boolean()} : std::get<int64_t>(data_);
  }
  double number() const {
    return is(Kind::kFloat) ? std::get<double>(data_) : static_cast<double>(integer());
  }
  const std::string& string() const { return *std::get<std::shared_ptr<const std::string>>(data_); }
  const Sequence& sequence() const { return *std::get<std::shared_ptr<const Sequence>>(data_); }
  const Dict& dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  const Bound& bound() const { return *std::get<std::shared_ptr<const Bound>>(data_); }
  Namespace& ns() const { return *std::get<Namespace*>(data_); }
  const Macro& macro() const { return *std::get<const Macro*>(data_); }
  const GlobalFunction& function() const { return *std::get<const GlobalFunction*>(data_); }

  std::string undefined_message() const;
  int depth() const;  // 0 for what holds no other value

 private:
  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
               std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>,
               std::shared_ptr<const Bound>, Namespace*, const Macro*, const GlobalFunction*>
      data_;
};

enum class SequenceKind { kList, kTuple, kRange, kView, kGenerator };

struct Sequence {
  SequenceKind kind = SequenceKind::kList;
  std::vector<Value> items;
  std::string text;             // what a kRange or the head of a kView prints as
  mutable size_t consumed = 0;  // kGenerator: items already taken, as in Python
  int depth = 1;
};

// Insertion-ordered. Keys are strings, numbers, booleans or none; 1, 1.0 and True are one key.
class Dict {
 public:
  struct Entry {
    Value key, value;
  };
  static bool is_key(const Value& v);
  void set(const Value& key, Value value);  // key: is_key()
  const Value* find(const Value& key) const;
  const Value* find_text(std::string_view key) const;
  const std::vector<Entry>& entries() const { return entries_; }
  int depth() const { return depth_; }

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> index_;
  int depth_ = 1;
};

struct Bound {  // a method and its object
  Value self;
  std::string name;
};

struct Namespace {
  Dict attributes;
};

const char* type_name(const Value& v);  // Python's: "str", "NoneType", ...

}  // namespace nibble::jinja
