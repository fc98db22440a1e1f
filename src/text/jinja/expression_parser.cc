#include "text/jinja/expression_parser.h"

#include <algorithm>
#include <array>

#include "text/jinja/builtins.h"

namespace nibble::jinja {
namespace {

constexpr int kMaxNesting = 100;    // of statements and brackets in one another
constexpr int kMaxExprDepth = 200;  // of one expression's tree
constexpr std::array<std::string_view, 11> kLoopAttributes = {
    "index",  "index0",   "revindex", "revindex0", "first", "last",
    "length", "previtem", "nextitem", "depth",     "depth0"};

bool is_one_of(std::string_view what, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), what) != list.end();
}

}  // namespace

ExpressionParser::Nest::Nest(ExpressionParser& parser) : parser_(parser) {
  if (parser_.nesting_ >= kMaxNesting)
    parser_.error(parser_.peek().line, "the template nests deeper than {} levels", kMaxNesting);
  ++parser_.nesting_;
}

ExprPtr ExpressionParser::make(ExprKind kind, int line, std::string name,
                               std::vector<ExprPtr> args) const {
  auto e = std::make_unique<Expr>();
  e->kind = kind;
  e->line = line;
  e->name = std::move(name);
  e->args = std::move(args);
  for (const ExprPtr& arg : e->args)
    if (arg) e->depth = std::max(e->depth, arg->depth + 1);
  if (e->depth > kMaxExprDepth)
    error(line, "an expression nests deeper than {} levels", kMaxExprDepth);
  return e;
}

ExprPtr ExpressionParser::constant(int line, Value value) const {
  ExprPtr e = make(ExprKind::kConst, line, "");
  e->value = std::move(value);
  return e;
}

void ExpressionParser::expect(TokenKind kind) {
  if (!at(kind)) {
    const char* what = kind == TokenKind::kBlockEnd      ? "%}"
                       : kind == TokenKind::kVariableEnd ? "}}"
                                                         : "a name";
    error(peek().line, "expected {}, found '{}'", what, peek().text);
  }
  take();
}

void ExpressionParser::expect_op(std::string_view op) {
  if (!skip_op(op)) error(peek().line, "expected '{}', found '{}'", op, peek().text);
}

std::string ExpressionParser::identifier() {
  const Token token = peek();
  expect(TokenKind::kName);
  if (is_one_of(token.text, {"true", "false", "none", "True", "False", "None", "loop", "and", "or",
                             "not", "in", "is", "if", "else"}))
    error(token.line, "'{}' can't be assigned to", token.text);
  mention(token.text);
  return token.text;
}

ExprPtr ExpressionParser::target(bool with_attributes) {
  const int line = peek().line;
  std::vector<ExprPtr> items;
  bool many = false;
  const bool parentheses = skip_op("(");
  do {
    if (!at(TokenKind::kName) && many) break;  // a trailing comma
    const int item_line = peek().line;
    std::string bound = identifier();
    if (with_attributes && skip_op(".")) {
      const std::string attribute_name = peek().text;
      expect(TokenKind::kName);
      items.push_back(make(ExprKind::kAttr, item_line, attribute_name,
                           make(ExprKind::kName, item_line, std::move(bound))));
    } else {
      items.push_back(make(ExprKind::kName, item_line, std::move(bound)));
    }
    many |= at_op(",");
  } while (skip_op(","));
  if (parentheses) expect_op(")");
  if (!many) return std::move(items[0]);
  return make(ExprKind::kTuple, line, "", std::move(items));
}

ExprPtr ExpressionParser::tuple(bool with_if) {
  const int line = peek().line;
  const auto item = [&] { return with_if ? expression() : either(); };
  const auto at_end = [&] {
    return at(TokenKind::kVariableEnd) || at(TokenKind::kBlockEnd) || at(TokenKind::kEnd) ||
           at_op(")");
  };
  ExprPtr first = item();
  if (!at_op(",")) return first;
  std::vector<ExprPtr> items;
  items.push_back(std::move(first));
  while (skip_op(",") && !at_end()) items.push_back(item());
  return make(ExprKind::kTuple, line, "", std::move(items));
}

ExprPtr ExpressionParser::expression() {
  const Nest nest(*this);
  ExprPtr e = either();
  while (at_name("if")) {
    const int line = take().line;
    ExprPtr condition = either();
    ExprPtr otherwise = skip_name("else") ? expression() : nullptr;
    e = make(ExprKind::kCond, line, "", std::move(e), std::move(condition), std::move(otherwise));
  }
  return e;
}

ExprPtr ExpressionParser::either() {
  ExprPtr e = both();
  while (at_name("or")) {
    const int line = take().line;
    e = make(ExprKind::kOr, line, "", std::move(e), both());
  }
  return e;
}

ExprPtr ExpressionParser::both() {
  ExprPtr e = negation();
  while (at_name("and")) {
    const int line = take().line;
    e = make(ExprKind::kAnd, line, "", std::move(e), negation());
  }
  return e;
}

ExprPtr ExpressionParser::negation() {
  if (!at_name("not")) return comparison();
  const Nest nest(*this);
  const int line = take().line;
  return make(ExprKind::kUnary, line, "not", negation());
}

ExprPtr ExpressionParser::comparison() {
  const int line = peek().line;
  std::vector<ExprPtr> operands;
  std::vector<std::string> operators;
  operands.push_back(sum());
  while (true) {
    if (at(TokenKind::kOperator) && is_one_of(peek().text, {"==", "!=", "<", "<=", ">", ">="})) {
      operators.push_back(take().text);
    } else if (skip_name("in")) {
      operators.emplace_back("in");
    } else if (at_name("not") && tokens_[pos_ + 1].kind == TokenKind::kName &&
               tokens_[pos_ + 1].text == "in") {
      take();
      take();
      operators.emplace_back("not in");
    } else {
      break;
    }
    operands.push_back(sum());
  }
  if (operators.empty()) return std::move(operands[0]);
  ExprPtr e = make(ExprKind::kCompare, line, "", std::move(operands));
  e->names = std::move(operators);
  return e;
}

ExprPtr ExpressionParser::sum() {
  ExprPtr e = concatenation();
  while (at_op("+") || at_op("-")) {
    const Token op = take();
    e = make(ExprKind::kBinary, op.line, op.text, std::move(e), concatenation());
  }
  return e;
}

ExprPtr ExpressionParser::concatenation() {
  const int line = peek().line;
  std::vector<ExprPtr> items;
  items.push_back(product());
  while (skip_op("~")) items.push_back(product());
  if (items.size() == 1) return std::move(items[0]);
  return make(ExprKind::kConcat, line, "", std::move(items));
}

ExprPtr ExpressionParser::product() {
  ExprPtr e = power();
  while (at_op("*") || at_op("/") || at_op("//") || at_op("%")) {
    const Token op = take();
    e = make(ExprKind::kBinary, op.line, op.text, std::move(e), power());
  }
  return e;
}

ExprPtr ExpressionParser::power() {  // from the left, unlike Python
  ExprPtr e = unary(true);
  while (at_op("**")) {
    const Token op = take();
    e = make(ExprKind::kBinary, op.line, op.text, std::move(e), unary(true));
  }
  return e;
}

ExprPtr ExpressionParser::unary(bool with_filter) {
  ExprPtr e;
  if (at_op("-") || at_op("+")) {
    const Nest nest(*this);
    const Token op = take();
    e = make(ExprKind::kUnary, op.line, op.text, unary(false));
  } else {
    e = primary();
  }
  e = postfix(std::move(e));
  return with_filter ? filter_chain(std::move(e)) : std::move(e);
}

ExprPtr ExpressionParser::primary() {
  const int line = peek().line;
  switch (peek().kind) {
    case TokenKind::kName:
      return name();
    case TokenKind::kString: {
      std::string text = take().text;
      while (at(TokenKind::kString)) text += take().text;
      return constant(line, std::move(text));
    }
    case TokenKind::kInt:
      return constant(line, take().integer);
    case TokenKind::kFloat:
      return constant(line, take().number);
    default:
      break;
  }
  if (at_op("(")) return parenthesized();
  if (at_op("[")) return list();
  if (at_op("{")) return dict();
  error(line, "expected an expression, found '{}'",
        at(TokenKind::kVariableEnd) ? "}}"
        : at(TokenKind::kBlockEnd)  ? "%}"
                                    : peek().text);
}

ExprPtr ExpressionParser::name() {
  const Token token = take();
  const std::string& n = token.text;
  if (n == "true" || n == "True") return constant(token.line, true);
  if (n == "false" || n == "False") return constant(token.line, false);
  if (n == "none" || n == "None") return constant(token.line, None{});
  if (is_one_of(n, {"and", "or", "in", "is", "if", "else"}))
    error(token.line, "expected an expression, found '{}'", n);
  if (n == "caller" || n == "varargs" || n == "kwargs")
    error(token.line, "'{}' of macros is not supported", n);
  if (n == "loop") {
    // Kept to its attributes, so that no value can refer to a running loop.
    if (!skip_op(".")) error(token.line, "'loop' can only be used as loop.<attribute>");
    const Token attr = peek();
    expect(TokenKind::kName);
    if (std::find(kLoopAttributes.begin(), kLoopAttributes.end(), attr.text) ==
        kLoopAttributes.end())
      error(attr.line, "unknown attribute loop.{}", attr.text);
    return make(ExprKind::kLoop, token.line, attr.text);
  }
  if (!at_op("("))
    mention(n);
  else
    called_.try_emplace(n, token.line);
  return make(ExprKind::kName, token.line, n);
}

void ExpressionParser::check_called_names() const {
  for (const auto& [called, line] : called_)
    if (!mentioned_.contains(called) && !find_function(called))
      error(line, "unknown function '{}'", called);
}

ExprPtr ExpressionParser::parenthesized() {
  const Nest nest(*this);
  const int line = peek().line;
  expect_op("(");
  if (skip_op(")")) return make(ExprKind::kTuple, line, "");
  ExprPtr e = tuple();
  expect_op(")");
  return e;
}

ExprPtr ExpressionParser::list() {
  const Nest nest(*this);
  const int line = peek().line;
  expect_op("[");
  std::vector<ExprPtr> items;
  while (!at_op("]")) {
    items.push_back(expression());
    if (!at_op("]")) expect_op(",");
  }
  expect_op("]");
  return make(ExprKind::kList, line, "", std::move(items));
}

ExprPtr ExpressionParser::dict() {
  const Nest nest(*this);
  const int line = peek().line;
  expect_op("{");
  std::vector<ExprPtr> items;
  while (!at_op("}")) {
    items.push_back(expression());
    expect_op(":");
    items.push_back(expression());
    if (!at_op("}")) expect_op(",");
  }
  expect_op("}");
  return make(ExprKind::kDict, line, "", std::move(items));
}

ExprPtr ExpressionParser::postfix(ExprPtr e) {
  while (true) {
    if (skip_op("."))
      e = attribute(std::move(e));
    else if (at_op("["))
      e = subscript(std::move(e));
    else if (at_op("("))
      e = call(std::move(e));
    else
      return e;
  }
}

ExprPtr ExpressionParser::filter_chain(ExprPtr e) {
  while (true) {
    if (skip_op("|"))
      e = filter(std::move(e));
    else if (at_name("is"))
      e = test(std::move(e));
    else if (at_op("("))
      e = call(std::move(e));
    else
      return e;
  }
}

ExprPtr ExpressionParser::filters_only() {
  ExprPtr e;
  while (skip_op("|")) e = filter(std::move(e));
  return e;
}

ExprPtr ExpressionParser::attribute(ExprPtr e) {
  const Token token = take();
  if (token.kind == TokenKind::kInt)
    return make(ExprKind::kItem, token.line, "", std::move(e), constant(token.line, token.integer));
  if (token.kind != TokenKind::kName)
    error(token.line, "expected a name after '.', found '{}'", token.text);
  if (at_op("(") && !is_method(token.text)) error(token.line, "unknown method '{}'", token.text);
  return make(ExprKind::kAttr, token.line, token.text, std::move(e));
}

ExprPtr ExpressionParser::subscript(ExprPtr e) {
  const Nest nest(*this);
  const int line = peek().line;
  expect_op("[");
  std::vector<ExprPtr> parts;
  parts.push_back(std::move(e));
  bool slice = false;
  parts.push_back(at_op(":") ? nullptr : expression());
  while (skip_op(":")) {
    slice = true;
    parts.push_back(at_op(":") || at_op("]") ? nullptr : expression());
  }
  if (parts.size() > 4) error(line, "a slice has more than three parts");
  expect_op("]");
  if (slice) parts.resize(4);
  return make(slice ? ExprKind::kSlice : ExprKind::kItem, line, "", std::move(parts));
}

// (a, b, key=c); keywords come last.
void ExpressionParser::arguments(Expr& into) {
  const Nest nest(*this);
  expect_op("(");
  while (!at_op(")")) {
    if (at_op("*") || at_op("**"))
      error(peek().line, "'{}' arguments are not supported", peek().text);
    if (at(TokenKind::kName) && tokens_[pos_ + 1].kind == TokenKind::kOperator &&
        tokens_[pos_ + 1].text == "=") {
      into.names.push_back(take().text);
      take();
    } else if (!into.names.empty()) {
      error(peek().line, "a positional argument follows a keyword argument");
    }
    into.args.push_back(expression());
    into.depth = std::max(into.depth, into.args.back()->depth + 1);
    if (!at_op(")")) expect_op(",");
  }
  expect_op(")");
}

ExprPtr ExpressionParser::call(ExprPtr e) {
  auto result = make(ExprKind::kCall, peek().line, "", std::move(e));
  arguments(*result);
  return result;
}

ExprPtr ExpressionParser::filter(ExprPtr e) {
  const Token token = peek();
  expect(TokenKind::kName);
  if (!find_filter(token.text)) error(token.line, "unknown filter '{}'", token.text);
  auto result = make(ExprKind::kFilter, token.line, token.text, std::move(e));
  if (at_op("(")) arguments(*result);
  check_named_filter(*result);
  return result;
}

// map("upper"), select("string"), selectattr("role", "equalto", ...): names in strings.
void ExpressionParser::check_named_filter(const Expr& e) const {
  const bool by_attribute = e.name == "selectattr" || e.name == "rejectattr";
  const size_t at = by_attribute ? 2 : 1;
  if (e.args.size() <= at || e.args.size() - e.names.size() <= at) return;
  const Expr& arg = *e.args[at];
  if (arg.kind != ExprKind::kConst || !arg.value.is(Kind::kString)) return;
  const std::string& n = arg.value.string();
  if (e.name == "map" && !find_filter(n)) error(e.line, "unknown filter '{}'", n);
  if ((by_attribute || e.name == "select" || e.name == "reject") && !find_test(n))
    error(e.line, "unknown test '{}'", n);
}

ExprPtr ExpressionParser::test(ExprPtr e) {
  const int line = take().line;
  const bool negated = skip_name("not");
  const Token token = peek();
  expect(TokenKind::kName);
  if (!find_test(token.text)) error(token.line, "unknown test '{}'", token.text);
  auto result = make(ExprKind::kTest, line, token.text, std::move(e));
  const bool operand = (at(TokenKind::kName) && !is_one_of(peek().text, {"else", "or", "and"})) ||
                       at(TokenKind::kString) || at(TokenKind::kInt) || at(TokenKind::kFloat) ||
                       at_op("[") || at_op("{");
  if (at_op("(")) {
    arguments(*result);
  } else if (operand && at_name("is")) {
    error(line, "tests can't be chained with 'is'");
  } else if (operand && !at_name("if") && !at_name("in") && !at_name("not")) {
    result->args.push_back(postfix(primary()));
    result->depth = std::max(result->depth, result->args.back()->depth + 1);
  }
  if (negated) return make(ExprKind::kUnary, line, "not", std::move(result));
  return result;
}

}  // namespace nibble::jinja
