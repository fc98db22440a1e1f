#include "text/jinja/interpreter.h"

#include <utility>

#include "text/jinja/builtins.h"
#include "text/jinja/operations.h"

namespace nibble::jinja {
namespace {

// Statements, expressions and macro calls in one another: bounds the C++ stack.
constexpr int kMaxDepth = 500;

class Interpreter {
 public:
  Interpreter(std::string_view name, const Variables& variables)
      : rt_(name), variables_(variables), scopes_(1) {}

  std::string run(const Block& block) {
    std::string out;
    out_ = &out;
    execute(block);
    return out;
  }

 private:
  enum class Flow { kNext, kBreak, kContinue };

  class Depth {
   public:
    Depth(Interpreter& in, int line) : in_(in) {
      in.rt_.step();
      in.rt_.set_line(line);
      if (in.depth_ >= kMaxDepth) in.rt_.error("the template nests deeper than {}", kMaxDepth);
      ++in.depth_;
    }
    ~Depth() { --in_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    Interpreter& in_;
  };

  struct Loop {
    const std::vector<Value>* items;
    size_t index;
  };

  // --- names ---

  const Value* find(const std::string& name) const {
    for (size_t i = scopes_.size(); i-- > base_;)
      if (const auto it = scopes_[i].find(name); it != scopes_[i].end()) return &it->second;
    if (base_ > 0)
      if (const auto it = scopes_[0].find(name); it != scopes_[0].end()) return &it->second;
    const auto it = variables_.find(name);
    return it == variables_.end() ? nullptr : &it->second;
  }

  Value lookup(const std::string& name) const {
    if (const Value* v = find(name)) return *v;
    if (const GlobalFunction* f = find_function(name)) return Value(f);
    return Value::undefined(fmt::format("'{}' is undefined", name));
  }

  void bind(const std::string& name, Value v) {
    rt_.make_bytes(sizeof(Value));
    scopes_.back().insert_or_assign(name, std::move(v));
  }

  void assign(const Expr& target, const Value& v) {
    if (target.kind == ExprKind::kName) return bind(target.name, v);
    if (target.kind == ExprKind::kAttr) {
      const Value object = lookup(target.args[0]->name);
      if (!object.is(Kind::kNamespace))
        rt_.error("can't set an attribute of '{}': it is a {}, not a namespace",
                  target.args[0]->name, type_name(object));
      return rt_.set(object.ns().attributes, Value(target.name), v);
    }
    const std::vector<Value> items = iterate(rt_, v);
    if (items.size() != target.args.size())
      rt_.error("{} names for {} values", target.args.size(), items.size());
    for (size_t i = 0; i < items.size(); ++i) assign(*target.args[i], items[i]);
  }

  // --- statements ---

  void emit(std::string_view text) {
    rt_.visit_bytes(text.size());
    if (text.size() > Runtime::kMaxOutput - out_->size())
      rt_.error("the text is longer than {} bytes", Runtime::kMaxOutput);
    out_->append(text);
  }

  Flow execute(const Block& block) {
    for (const auto& s : block)
      if (const Flow flow = execute(*s); flow != Flow::kNext) return flow;
    return Flow::kNext;
  }

  Flow execute(const Stmt& s) {
    const Depth depth(*this, s.line);
    switch (s.kind) {
      case StmtKind::kText:
        emit(s.text);
        return Flow::kNext;
      case StmtKind::kOutput:
        emit_value(eval(*s.expr));
        return Flow::kNext;
      case StmtKind::kIf:
        for (const Branch& branch : s.branches)
          if (truthy(eval(*branch.condition))) return execute(branch.body);
        return execute(s.body);
      case StmtKind::kFor:
        return execute_for(s);
      case StmtKind::kSet:
        assign(*s.target, eval(*s.expr));
        return Flow::kNext;
      case StmtKind::kSetBlock:
        execute_set_block(s);
        return Flow::kNext;
      case StmtKind::kMacro:
        define_macro(s);
        return Flow::kNext;
      case StmtKind::kScope: {
        scopes_.emplace_back();
        execute(s.body);
        scopes_.pop_back();
        return Flow::kNext;
      }
      case StmtKind::kBreak:
        return Flow::kBreak;
      case StmtKind::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  void emit_value(const Value& v) {
    if (v.is(Kind::kString))
      emit(v.string());
    else
      emit(to_text(rt_, v));
  }

  Flow execute_for(const Stmt& s) {
    std::vector<Value> items = iterate(rt_, eval(*s.expr));
    if (s.condition) {
      std::vector<Value> kept;
      for (Value& v : items) {
        scopes_.emplace_back();
        assign(*s.target, v);
        if (truthy(eval(*s.condition))) kept.push_back(std::move(v));
        scopes_.pop_back();
      }
      items = std::move(kept);
    }
    if (items.empty()) {
      scopes_.emplace_back();
      const Flow flow = execute(s.body);
      scopes_.pop_back();
      return flow;
    }
    const Loop* outer = loop_;
    Loop loop{&items, 0};
    loop_ = &loop;
    for (; loop.index < items.size(); ++loop.index) {
      scopes_.emplace_back();
      assign(*s.target, items[loop.index]);
      const Flow flow = execute(s.branches[0].body);
      scopes_.pop_back();
      if (flow == Flow::kBreak) break;
    }
    loop_ = outer;
    return Flow::kNext;
  }

  // What a body writes, as a value.
  Value capture(const Block& body) {
    std::string text;
    std::string* outer = std::exchange(out_, &text);
    execute(body);
    out_ = outer;
    return rt_.text(std::move(text));
  }

  void execute_set_block(const Stmt& s) {
    scopes_.emplace_back();
    Value v = capture(s.body);
    scopes_.pop_back();
    if (s.expr) v = eval_filter(*s.expr, &v);
    assign(*s.target, v);
  }

  void define_macro(const Stmt& s) {
    Variables captured;
    for (size_t i = base_ > 0 ? base_ : 1; i < scopes_.size(); ++i)
      for (const auto& [name, v] : scopes_[i]) captured.insert_or_assign(name, v);
    rt_.step(captured.size());
    bind(s.text, Value(rt_.make_macro(s, std::move(captured))));
  }

  Value call_macro(const Value& callee, const Args& args) {
    const Macro& macro = callee.macro();
    const Stmt& s = *macro.definition;
    if (args.positional.size() > s.params.size())
      rt_.error("macro '{}' takes {} arguments, found {}", s.text, s.params.size(),
                args.positional.size());
    std::vector<const Value*> given(s.params.size());
    for (size_t i = 0; i < args.positional.size(); ++i) given[i] = &args.positional[i];
    for (const auto& [name, v] : args.named) {
      size_t i = 0;
      while (i < s.params.size() && s.params[i].name != name) ++i;
      if (i == s.params.size()) rt_.error("macro '{}' has no argument '{}'", s.text, name);
      if (given[i]) rt_.error("macro '{}' gets the argument '{}' twice", s.text, name);
      given[i] = &v;
    }
    const size_t outer_base = std::exchange(base_, scopes_.size());
    const Loop* outer_loop = std::exchange(loop_, nullptr);
    rt_.step(macro.captured.size());
    scopes_.push_back(macro.captured);
    if (!macro.captured.empty()) scopes_.back().insert_or_assign(s.text, callee);  // for recursion
    scopes_.emplace_back();
    for (size_t i = 0; i < s.params.size(); ++i) {
      const Param& p = s.params[i];
      bind(p.name, given[i] ? *given[i]
                   : p.fallback
                       ? eval(*p.fallback)
                       : Value::undefined(fmt::format("parameter '{}' was not provided", p.name)));
    }
    Value text = capture(s.body);
    scopes_.resize(base_);
    base_ = outer_base;
    loop_ = outer_loop;
    return text;
  }

  // --- expressions ---

  Value eval(const Expr& e) {
    const Depth depth(*this, e.line);
    switch (e.kind) {
      case ExprKind::kConst:
        return e.value;
      case ExprKind::kName:
        return lookup(e.name);
      case ExprKind::kLoop:
        return loop_attribute(e.name);
      case ExprKind::kAttr:
        return attribute(rt_, eval(*e.args[0]), e.name);
      case ExprKind::kItem:
        return eval_item(e);
      case ExprKind::kSlice:
        return eval_slice(e);
      case ExprKind::kCall:
        return eval_call(e);
      case ExprKind::kFilter:
        return eval_filter(e, nullptr);
      case ExprKind::kTest:
        return eval_test(e);
      case ExprKind::kUnary:
        return eval_unary(e);
      case ExprKind::kBinary:
        return eval_binary(e);
      case ExprKind::kCompare:
        return eval_compare(e);
      case ExprKind::kAnd:
      case ExprKind::kOr:
        return eval_logic(e);
      case ExprKind::kConcat:
        return eval_concat(e);
      case ExprKind::kCond:
        return eval_condition(e);
      case ExprKind::kList:
        return rt_.list(eval_all(e));
      case ExprKind::kTuple:
        return rt_.tuple(eval_all(e));
      case ExprKind::kDict:
        return eval_dict(e);
    }
    return {};
  }

  std::vector<Value> eval_all(const Expr& e) {
    std::vector<Value> values;
    for (const ExprPtr& arg : e.args) values.push_back(eval(*arg));
    rt_.set_line(e.line);
    return values;
  }

  Value eval_item(const Expr& e) {
    const Value object = eval(*e.args[0]);
    return item(rt_, object, eval(*e.args[1]));
  }

  Value eval_slice(const Expr& e) {
    Value parts[4];
    for (size_t i = 0; i < 4; ++i) parts[i] = e.args[i] ? eval(*e.args[i]) : Value(None{});
    return slice(rt_, parts[0], parts[1], parts[2], parts[3]);
  }

  Value eval_dict(const Expr& e) {
    Dict d;
    for (size_t i = 0; i + 1 < e.args.size(); i += 2) {
      const Value key = eval(*e.args[i]);
      rt_.set(d, key, eval(*e.args[i + 1]));
    }
    return rt_.dict(std::move(d));
  }

  Value eval_unary(const Expr& e) {
    const Value v = eval(*e.args[0]);
    if (e.name == "not") return !truthy(v);
    return e.name == "-" ? negate(rt_, v) : positive(rt_, v);
  }

  Value eval_binary(const Expr& e) {
    const Value a = eval(*e.args[0]);
    const Value b = eval(*e.args[1]);
    rt_.set_line(e.line);
    return arithmetic(rt_, e.name, a, b);
  }

  Value eval_compare(const Expr& e) {
    Value left = eval(*e.args[0]);
    for (size_t i = 0; i < e.names.size(); ++i) {
      Value right = eval(*e.args[i + 1]);
      rt_.set_line(e.line);
      if (!compare(rt_, e.names[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  Value eval_logic(const Expr& e) {
    Value left = eval(*e.args[0]);
    return truthy(left) == (e.kind == ExprKind::kOr) ? left : eval(*e.args[1]);
  }

  Value eval_concat(const Expr& e) {
    std::string text;
    for (const ExprPtr& arg : e.args) text += to_text(rt_, eval(*arg));
    return rt_.text(std::move(text));
  }

  Value eval_condition(const Expr& e) {
    if (truthy(eval(*e.args[1]))) return eval(*e.args[0]);
    if (e.args[2]) return eval(*e.args[2]);
    return Value::undefined("an inline if without an else was false");
  }

  // args[0] is the object; the last names.size() are keywords.
  Args eval_args(const Expr& e) {
    Args args;
    const size_t keywords = e.args.size() - e.names.size();
    for (size_t i = 1; i < e.args.size(); ++i) {
      Value v = eval(*e.args[i]);
      if (i < keywords)
        args.positional.push_back(std::move(v));
      else
        args.named.emplace_back(e.names[i - keywords], std::move(v));
    }
    rt_.set_line(e.line);
    return args;
  }

  Value eval_filter(const Expr& e, const Value* innermost) {
    Value subject;
    if (e.args[0]) {  // the chain of a block set goes down to where there is none
      if (innermost && e.args[0]->kind == ExprKind::kFilter)
        subject = eval_filter(*e.args[0], innermost);
      else
        subject = eval(*e.args[0]);
    } else {
      subject = *innermost;
    }
    const Args args = eval_args(e);
    return find_filter(e.name)(rt_, subject, args);
  }

  Value eval_test(const Expr& e) {
    const Value subject = eval(*e.args[0]);
    const Args args = eval_args(e);
    return find_test(e.name)(rt_, subject, args);
  }

  Value eval_call(const Expr& e) {
    const Expr& target = *e.args[0];
    const Value callee = eval(target);
    const Args args = eval_args(e);
    switch (callee.kind()) {
      case Kind::kFunction:
        return callee.function().call(rt_, args);
      case Kind::kBound:
        return call_method(rt_, callee.bound().self, callee.bound().name, args);
      case Kind::kMacro:
        return call_macro(callee, args);
      case Kind::kUndefined:
        if (target.kind == ExprKind::kName) rt_.error("unknown function '{}'", target.name);
        rt_.error("{}", callee.undefined_message());
      default:
        rt_.error("a {} can't be called", type_name(callee));
    }
  }

  Value loop_attribute(const std::string& name) {
    if (!loop_) rt_.error("loop.{} is used outside of a for loop", name);
    const std::vector<Value>& items = *loop_->items;
    const auto i = static_cast<int64_t>(loop_->index);
    const auto n = static_cast<int64_t>(items.size());
    if (name == "index") return i + 1;
    if (name == "index0") return i;
    if (name == "revindex") return n - i;
    if (name == "revindex0") return n - i - 1;
    if (name == "first") return i == 0;
    if (name == "last") return i == n - 1;
    if (name == "length") return n;
    if (name == "depth") return int64_t{1};
    if (name == "depth0") return int64_t{0};
    const bool previous = name == "previtem";
    if (previous ? i == 0 : i == n - 1)
      return Value::undefined(previous ? "there is no previous item" : "there is no next item");
    return items[loop_->index + (previous ? size_t(-1) : 1)];
  }

  Runtime rt_;
  const Variables& variables_;
  std::vector<Variables> scopes_;  // [0]: the template's own; [base_...]: the running macro's
  size_t base_ = 0;
  const Loop* loop_ = nullptr;
  std::string* out_ = nullptr;
  int depth_ = 0;
};

}  // namespace

std::string render(const Block& block, std::string_view name, const Variables& variables) {
  return Interpreter(name, variables).run(block);
}

}  // namespace nibble::jinja
