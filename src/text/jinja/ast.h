// A parsed template.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/jinja/value.h"

namespace nibble::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind {
  kConst,    // value
  kName,     // name
  kLoop,     // loop.<name>
  kAttr,     // args[0].name
  kItem,     // args[0][args[1]]
  kSlice,    // args[0][args[1]:args[2]:args[3]], null where left out
  kCall,     // args[0](args[1...])
  kFilter,   // args[0] | name(args[1...])
  kTest,     // args[0] is name(args[1...])
  kUnary,    // name: - + not
  kBinary,   // name: + - * / // % **
  kCompare,  // args[0] names[0] args[1] names[1] args[2] ...
  kAnd,
  kOr,
  kConcat,  // args joined by ~
  kCond,    // args[0] if args[1] else args[2] (null where left out)
  kList,
  kTuple,
  kDict,  // key, value, key, value, ...
};

struct Expr {
  ExprKind kind;
  int line;
  std::string name;
  Value value;
  std::vector<ExprPtr> args;
  // kCompare: the operators. kCall, kFilter, kTest: the keywords of the last names.size() args.
  std::vector<std::string> names;
  int depth = 1;
};

struct Stmt;
using Block = std::vector<std::unique_ptr<Stmt>>;

enum class StmtKind {
  kText,      // text
  kOutput,    // {{ expr }}
  kIf,        // branches, body (else)
  kFor,       // for target in expr if condition: branches[0].body; else: body
  kSet,       // target = expr
  kSetBlock,  // target = body, through the filter expr (whose innermost args[0] is null) if any
  kMacro,     // text: name; params; body
  kScope,     // body in a scope of its own: {% generation %}
  kBreak,
  kContinue,
};

struct Branch {
  ExprPtr condition;
  Block body;
};

struct Param {
  std::string name;
  ExprPtr fallback;  // null: none
};

struct Stmt {
  StmtKind kind;
  int line;
  std::string text;
  ExprPtr expr, target, condition;
  std::vector<Branch> branches;
  std::vector<Param> params;
  Block body;
};

}  // namespace nibble::jinja
