#include "text/jinja/parser.h"

#include <algorithm>

#include "text/jinja/expression_parser.h"
#include "text/jinja/lexer.h"

namespace nibble::jinja {
namespace {

class Parser {
 public:
  Parser(std::vector<Token> tokens, std::string_view name) : e_(std::move(tokens), name) {}

  Block run() {
    Block block = body({});
    e_.check_called_names();
    return block;
  }

 private:
  using Ends = std::initializer_list<std::string_view>;
  using StmtPtr = std::unique_ptr<Stmt>;

  static StmtPtr make(StmtKind kind, int line) {
    auto s = std::make_unique<Stmt>();
    s->kind = kind;
    s->line = line;
    return s;
  }

  // Statements up to {% one of ends; that word is taken. No ends: up to the end of the template.
  Block body(Ends ends) {
    const ExpressionParser::Nest nest(e_);
    Block block;
    while (true) {
      const Token token = e_.take();
      switch (token.kind) {
        case TokenKind::kText: {
          auto s = make(StmtKind::kText, token.line);
          s->text = token.text;
          block.push_back(std::move(s));
          break;
        }
        case TokenKind::kVariableBegin: {
          auto s = make(StmtKind::kOutput, token.line);
          s->expr = e_.tuple();
          e_.expect(TokenKind::kVariableEnd);
          block.push_back(std::move(s));
          break;
        }
        case TokenKind::kBlockBegin:
          if (e_.at(TokenKind::kName) &&
              std::find(ends.begin(), ends.end(), e_.peek().text) != ends.end()) {
            end_ = e_.take().text;
            return block;
          }
          block.push_back(statement());
          break;
        default:
          if (ends.size() != 0)
            e_.error(token.line, "the template ends where {{% {} %}} is due", *(ends.end() - 1));
          return block;
      }
    }
  }

  void end_tag() { e_.expect(TokenKind::kBlockEnd); }

  StmtPtr statement() {
    const Token token = e_.peek();
    e_.expect(TokenKind::kName);
    const std::string& word = token.text;
    if (word == "if") return if_statement(token.line);
    if (word == "for") return for_statement(token.line);
    if (word == "set") return set_statement(token.line);
    if (word == "macro") return macro_statement(token.line);
    if (word == "generation") return generation_statement(token.line);
    if (word == "break" || word == "continue") {
      if (loops_ == 0) e_.error(token.line, "'{}' outside of a for loop", word);
      end_tag();
      return make(word == "break" ? StmtKind::kBreak : StmtKind::kContinue, token.line);
    }
    e_.error(token.line, "unknown statement '{}'", word);
  }

  StmtPtr if_statement(int line) {
    auto s = make(StmtKind::kIf, line);
    do {
      ExprPtr condition = e_.tuple(false);
      end_tag();
      Block block = body({"elif", "else", "endif"});
      s->branches.push_back({std::move(condition), std::move(block)});
    } while (end_ == "elif");
    if (end_ == "else") {
      end_tag();
      s->body = body({"endif"});
    }
    end_tag();
    return s;
  }

  StmtPtr for_statement(int line) {
    auto s = make(StmtKind::kFor, line);
    s->target = e_.target(false);
    if (!e_.skip_name("in")) e_.error(line, "a for loop has no 'in'");
    s->expr = e_.tuple(false);
    if (e_.skip_name("if")) s->condition = e_.expression();
    if (e_.at_name("recursive")) e_.error(line, "recursive for loops are not supported");
    end_tag();
    ++loops_;
    s->branches.push_back({nullptr, body({"else", "endfor"})});
    --loops_;
    if (end_ == "else") {
      end_tag();
      s->body = body({"endfor"});
    }
    end_tag();
    return s;
  }

  StmtPtr set_statement(int line) {
    ExprPtr target = e_.target(true);
    if (e_.skip_op("=")) {
      auto s = make(StmtKind::kSet, line);
      s->target = std::move(target);
      s->expr = e_.tuple();
      end_tag();
      return s;
    }
    auto s = make(StmtKind::kSetBlock, line);
    s->target = std::move(target);
    s->expr = e_.filters_only();
    end_tag();
    s->body = body({"endset"});
    end_tag();
    return s;
  }

  StmtPtr macro_statement(int line) {
    auto s = make(StmtKind::kMacro, line);
    s->text = e_.identifier();
    e_.expect_op("(");
    while (!e_.at_op(")")) {
      Param param{e_.identifier(), nullptr};
      if (e_.skip_op("="))
        param.fallback = e_.expression();
      else if (!s->params.empty() && s->params.back().fallback)
        e_.error(line, "a parameter without a default follows one with a default");
      for (const Param& other : s->params)
        if (other.name == param.name) e_.error(line, "the parameter '{}' comes twice", param.name);
      s->params.push_back(std::move(param));
      if (!e_.at_op(")")) e_.expect_op(",");
    }
    e_.expect_op(")");
    end_tag();
    s->body = detached_body("endmacro");
    return s;
  }

  // transformers marks the assistant's text this way for training; for rendering it is a scope.
  StmtPtr generation_statement(int line) {
    end_tag();
    auto s = make(StmtKind::kScope, line);
    s->body = detached_body("endgeneration");
    return s;
  }

  // A body that a break can't leave.
  Block detached_body(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Block block = body({end});
    loops_ = loops;
    end_tag();
    return block;
  }

  ExpressionParser e_;
  std::string end_;  // the word that ended the last body
  int loops_ = 0;
};

}  // namespace

Block parse(std::string_view source, std::string_view name) {
  return Parser(tokenize(source, name), name).run();
}

}  // namespace nibble::jinja
