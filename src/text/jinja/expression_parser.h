// The expression half of the parser: Jinja's grammar and precedence.
#pragma once

#include <fmt/format.h>

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace nibble::jinja {

class ExpressionParser {
 public:
  ExpressionParser(std::vector<Token> tokens, std::string_view name)
      : name_(name), tokens_(std::move(tokens)) {}

  ExprPtr expression();                // with inline if
  ExprPtr tuple(bool with_if = true);  // a, b, c without parentheses; one expression stays itself
  ExprPtr filters_only();              // name(args) | name ..., after a bar; null subject
  // A name, ns.attribute or tuple of names.
  ExprPtr target(bool with_attributes);

  const Token& peek() const { return tokens_[pos_]; }
  Token take() { return pos_ + 1 < tokens_.size() ? tokens_[pos_++] : tokens_[pos_]; }
  bool at(TokenKind kind) const { return peek().kind == kind; }
  bool at_op(std::string_view op) const { return at(TokenKind::kOperator) && peek().text == op; }
  bool at_name(std::string_view n) const { return at(TokenKind::kName) && peek().text == n; }
  bool skip_op(std::string_view op) { return at_op(op) && (take(), true); }
  bool skip_name(std::string_view n) { return at_name(n) && (take(), true); }
  void expect_op(std::string_view op);
  void expect(TokenKind kind);
  std::string identifier();  // a name to bind

  template <class... Args>
  [[noreturn]] void error(int line, fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kTemplate, "{}:{}: {}", name_, line,
         fmt::format(format, std::forward<Args>(args)...));
  }

  // Throws for a call of a name that the template neither binds nor mentions otherwise (as in
  // `f is defined`): it can only be a function that Nibble has not.
  void check_called_names() const;
  void mention(std::string name) { mentioned_.insert(std::move(name)); }

  // Bounds the parser's own recursion; held while parsing something that nests.
  class Nest {
   public:
    explicit Nest(ExpressionParser& parser);
    ~Nest() { --parser_.nesting_; }
    Nest(const Nest&) = delete;
    Nest& operator=(const Nest&) = delete;

   private:
    ExpressionParser& parser_;
  };

 private:
  ExprPtr make(ExprKind kind, int line, std::string name, std::vector<ExprPtr> args) const;
  template <class... Args>
  ExprPtr make(ExprKind kind, int line, std::string name, Args... args) const {
    std::vector<ExprPtr> list;
    (list.push_back(std::move(args)), ...);
    return make(kind, line, std::move(name), std::move(list));
  }
  ExprPtr constant(int line, Value value) const;

  ExprPtr either();
  ExprPtr both();
  ExprPtr negation();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr concatenation();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filter);
  ExprPtr primary();
  ExprPtr name();
  ExprPtr parenthesized();
  ExprPtr list();
  ExprPtr dict();
  ExprPtr postfix(ExprPtr e);
  ExprPtr filter_chain(ExprPtr e);
  ExprPtr subscript(ExprPtr e);
  ExprPtr attribute(ExprPtr e);
  ExprPtr call(ExprPtr e);
  ExprPtr filter(ExprPtr e);
  ExprPtr test(ExprPtr e);
  void arguments(Expr& into);
  void check_named_filter(const Expr& e) const;

  std::string_view name_;
  std::vector<Token> tokens_;
  size_t pos_ = 0;
  int nesting_ = 0;
  std::map<std::string, int> called_;  // function name -> line
  std::set<std::string> mentioned_;
};

}  // namespace nibble::jinja
