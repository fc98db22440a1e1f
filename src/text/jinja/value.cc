#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace nibble::jinja {
namespace {

std::string tagged(char tag, std::string_view text) {
  std::string out(1, tag);
  out += text;
  return out;
}

std::string canonical(const Value& key) {
  if (key.is(Kind::kString)) return tagged('s', key.string());
  if (key.is(Kind::kNone)) return "n";
  if (key.is_integral()) return tagged('i', std::to_string(key.integer()));
  const double d = key.number();
  if (d == std::floor(d) && std::abs(d) < 9e18)
    return tagged('i', std::to_string(static_cast<int64_t>(d)));
  char bytes[sizeof d];
  std::memcpy(bytes, &d, sizeof d);
  return tagged('f', std::string_view(bytes, sizeof d));
}

}  // namespace

std::string Value::undefined_message() const {
  const auto& what = std::get<Undefined>(data_).what;
  return what ? *what : "the value is undefined";
}

int Value::depth() const {
  switch (kind()) {
    case Kind::kSequence:
      return sequence().depth;
    case Kind::kDict:
      return dict().depth();
    case Kind::kBound:
      return 1 + bound().self.depth();
    default:
      return 0;
  }
}

bool Dict::is_key(const Value& v) {
  return v.is(Kind::kString) || v.is(Kind::kNone) || v.is_number();
}

void Dict::set(const Value& key, Value value) {
  depth_ = std::max(depth_, 1 + value.depth());
  const auto [it, fresh] = index_.try_emplace(canonical(key), entries_.size());
  if (fresh)
    entries_.push_back({key, std::move(value)});
  else
    entries_[it->second].value = std::move(value);
}

const Value* Dict::find(const Value& key) const {
  const auto it = index_.find(canonical(key));
  return it == index_.end() ? nullptr : &entries_[it->second].value;
}

const Value* Dict::find_text(std::string_view key) const {
  const auto it = index_.find(tagged('s', key));
  return it == index_.end() ? nullptr : &entries_[it->second].value;
}

const char* type_name(const Value& v) {
  switch (v.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kSequence:
      switch (v.sequence().kind) {
        case SequenceKind::kList:
          return "list";
        case SequenceKind::kTuple:
          return "tuple";
        case SequenceKind::kRange:
          return "range";
        case SequenceKind::kView:
          return "dict view";
        case SequenceKind::kGenerator:
          return "generator";
      }
      break;
    case Kind::kDict:
      return "dict";
    case Kind::kBound:
      return "method";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kMacro:
      return "Macro";
    case Kind::kFunction:
      return "function";
  }
  return "value";
}

}  // namespace nibble::jinja
