// What one rendering carries along: bounds, the current line, and what lives as long as it does.
#pragma once

#include <fmt/format.h>

#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "text/jinja/ast.h"
#include "text/jinja/value.h"

namespace nibble::jinja {

using Variables = std::map<std::string, Value, std::less<>>;

struct Macro {
  const Stmt* definition;
  Variables captured;  // what is visible at the definition, outermost scope aside
};

class Runtime {
 public:
  // Far above what a conversation needs; they end templates that would not end by themselves.
  static constexpr size_t kMaxSteps = 2'000'000;          // expressions, statements, items visited
  static constexpr size_t kMaxBytes = size_t{256} << 20;  // of all intermediate values together
  static constexpr size_t kMaxOutput = size_t{64} << 20;

  explicit Runtime(std::string_view source_name) : source_name_(source_name) {}

  template <class... Args>
  [[noreturn]] void error(fmt::format_string<Args...> format, Args&&... args) const {
    nibble::fail(ErrorCode::kTemplate, "{}:{}: {}", source_name_, line_,
                 fmt::format(format, std::forward<Args>(args)...));
  }
  void set_line(int line) { line_ = line; }

  void step(size_t n = 1);
  void visit_bytes(size_t n) { step(1 + n / 256); }  // read or compared
  void make_bytes(size_t n);                         // written into a new value

  // New values; throw past the bounds.
  Value text(std::string s);
  Value sequence(SequenceKind kind, std::vector<Value> items, std::string text = {});
  Value list(std::vector<Value> items) { return sequence(SequenceKind::kList, std::move(items)); }
  Value tuple(std::vector<Value> items) { return sequence(SequenceKind::kTuple, std::move(items)); }
  Value generator(std::vector<Value> items) {
    return sequence(SequenceKind::kGenerator, std::move(items));
  }
  void set(Dict& dict, const Value& key, Value value);
  Value dict(Dict d);
  Value bound(const Value& self, std::string_view name);
  Namespace* make_namespace();
  const Macro* make_macro(const Stmt& definition, Variables captured);

 private:
  std::string_view source_name_;
  int line_ = 1;
  size_t steps_ = 0;
  size_t bytes_ = 0;
  std::deque<Namespace> namespaces_;
  std::deque<Macro> macros_;
};

}  // namespace nibble::jinja
