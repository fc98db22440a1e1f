#include "text/jinja/runtime.h"

#include <algorithm>

namespace nibble::jinja {

void Runtime::step(size_t n) {
  steps_ += n;
  if (steps_ > kMaxSteps) error("the template takes more than {} steps", kMaxSteps);
}

void Runtime::make_bytes(size_t n) {
  visit_bytes(n);
  bytes_ += n;
  if (bytes_ > kMaxBytes) error("the template's values take more than {} bytes", kMaxBytes);
}

Value Runtime::text(std::string s) {
  make_bytes(s.size());
  return Value(std::move(s));
}

Value Runtime::sequence(SequenceKind kind, std::vector<Value> items, std::string text) {
  make_bytes(sizeof(Sequence) + items.size() * sizeof(Value));
  auto s = std::make_shared<Sequence>();
  s->kind = kind;
  for (const Value& item : items) s->depth = std::max(s->depth, 1 + item.depth());
  if (s->depth > kMaxValueDepth) error("a value nests deeper than {} levels", kMaxValueDepth);
  s->items = std::move(items);
  s->text = std::move(text);
  return Value(std::shared_ptr<const Sequence>(std::move(s)));
}

void Runtime::set(Dict& dict, const Value& key, Value value) {
  if (!Dict::is_key(key)) error("a {} can't be the key of a dict", type_name(key));
  make_bytes(128 + (key.is(Kind::kString) ? key.string().size() : 0));
  dict.set(key, std::move(value));
  if (dict.depth() > kMaxValueDepth) error("a value nests deeper than {} levels", kMaxValueDepth);
}

Value Runtime::dict(Dict d) {
  make_bytes(sizeof(Dict));
  return Value(std::make_shared<const Dict>(std::move(d)));
}

Value Runtime::bound(const Value& self, std::string_view name) {
  make_bytes(sizeof(Bound));
  Value v(std::make_shared<const Bound>(Bound{self, std::string(name)}));
  if (v.depth() > kMaxValueDepth) error("a value nests deeper than {} levels", kMaxValueDepth);
  return v;
}

Namespace* Runtime::make_namespace() {
  make_bytes(sizeof(Namespace));
  return &namespaces_.emplace_back();
}

const Macro* Runtime::make_macro(const Stmt& definition, Variables captured) {
  make_bytes(sizeof(Macro) + captured.size() * 2 * sizeof(Value));
  return &macros_.emplace_back(Macro{&definition, std::move(captured)});
}

}  // namespace nibble::jinja
