// str(), repr() and json.dumps().
#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja/operations.h"
#include "text/jinja/unicode.h"
#include "text/utf8.h"

namespace nibble::jinja {
namespace {

// Appends to one string and charges it as it grows: shared values in values can make a text
// exponentially larger than they are.
class Writer {
 public:
  explicit Writer(Runtime& rt) : rt_(rt) {}
  std::string take() { return std::move(out_); }

  void put(std::string_view s) {
    rt_.make_bytes(s.size());
    out_ += s;
  }

  void repr(const Value& v) {
    switch (v.kind()) {
      case Kind::kUndefined:
        return put("Undefined");
      case Kind::kNone:
        return put("None");
      case Kind::kBool:
        return put(v.boolean() ? "True" : "False");
      case Kind::kInt:
        return put(fmt::to_string(v.integer()));
      case Kind::kFloat:
        return put(float_repr(v.number()));
      case Kind::kString:
        return repr_string(v.string());
      case Kind::kSequence:
        return repr_sequence(v.sequence());
      case Kind::kDict:
        return repr_dict(v.dict());
      case Kind::kNamespace:
        if (++namespaces_ > kMaxValueDepth) rt_.error("a namespace that holds itself is printed");
        put("<Namespace ");
        repr_dict(v.ns().attributes);
        put(">");
        --namespaces_;
        return;
      case Kind::kMacro:
        put("<Macro ");
        repr_string(v.macro().definition->text);
        return put(">");
      case Kind::kBound:
      case Kind::kFunction:
        rt_.error("a {} can't be printed", type_name(v));
    }
  }

  void json(const Value& v, const JsonFormat& format, int64_t level) {
    switch (v.kind()) {
      case Kind::kNone:
        return put("null");
      case Kind::kBool:
        return put(v.boolean() ? "true" : "false");
      case Kind::kInt:
        return put(fmt::to_string(v.integer()));
      case Kind::kFloat:
        return put(json_float(v.number()));
      case Kind::kString:
        return json_string(v.string());
      case Kind::kSequence:
        if (v.sequence().kind == SequenceKind::kList || v.sequence().kind == SequenceKind::kTuple)
          return json_array(v.sequence().items, format, level);
        break;
      case Kind::kDict:
        return json_object(v.dict(), format, level);
      default:
        break;
    }
    rt_.error("tojson: a {} is not JSON", type_name(v));
  }

 private:
  void repr_string(const std::string& s) {
    const char quote = s.find('\'') != s.npos && s.find('"') == s.npos ? '"' : '\'';
    std::string out(1, quote);
    for (size_t pos = 0; pos < s.size();) {
      const size_t begin = pos;
      const char32_t c = utf8::next(s, pos);
      if (c == static_cast<unsigned char>(quote) || c == '\\')
        (out += '\\') += static_cast<char>(c);
      else if (c == '\n')
        out += "\\n";
      else if (c == '\r')
        out += "\\r";
      else if (c == '\t')
        out += "\\t";
      else if (is_printable(c))
        out.append(s, begin, pos - begin);
      else if (c <= 0xFF)
        out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
      else if (c <= 0xFFFF)
        out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
      else
        out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
    put(out += quote);
  }

  void repr_sequence(const Sequence& s) {
    if (s.kind == SequenceKind::kGenerator) rt_.error("a generator can't be printed; use |list");
    if (s.kind == SequenceKind::kRange) return put(s.text);
    const bool tuple = s.kind == SequenceKind::kTuple;
    if (s.kind == SequenceKind::kView) put(s.text + "(");
    put(tuple ? "(" : "[");
    for (size_t i = 0; i < s.items.size(); ++i) {
      if (i > 0) put(", ");
      repr(s.items[i]);
    }
    put(!tuple ? "]" : s.items.size() == 1 ? ",)" : ")");
    if (s.kind == SequenceKind::kView) put(")");
  }

  void repr_dict(const Dict& d) {
    put("{");
    bool first = true;
    for (const auto& [key, value] : d.entries()) {
      if (!std::exchange(first, false)) put(", ");
      repr(key);
      put(": ");
      repr(value);
    }
    put("}");
  }

  static std::string json_float(double d) {
    return std::isnan(d) ? "NaN" : std::isinf(d) ? d > 0 ? "Infinity" : "-Infinity" : float_repr(d);
  }

  void json_string(const std::string& s) {
    std::string out = "\"";
    for (const char c : s) {
      static constexpr std::string_view kFrom = "\"\\\n\r\t\f\b", kTo = "\"\\nrtfb";
      if (const size_t i = kFrom.find(c); i != kFrom.npos)
        (out += '\\') += kTo[i];
      else if (static_cast<unsigned char>(c) < 0x20)
        out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
      else
        out += c;
    }
    put(out += '"');
  }

  void line_break(const JsonFormat& format, int64_t level) {
    if (format.indent < 0) return;
    const int64_t width = format.indent * level;
    if (width > 10'000) rt_.error("tojson: an indent of {} is too wide", format.indent);
    put("\n");
    put(std::string(static_cast<size_t>(width), ' '));
  }

  void json_array(const std::vector<Value>& items, const JsonFormat& format, int64_t level) {
    if (items.empty()) return put("[]");
    put("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) put(format.item_separator);
      line_break(format, level + 1);
      json(items[i], format, level + 1);
    }
    line_break(format, level);
    put("]");
  }

  void json_key(const Value& key) {
    if (key.is(Kind::kString)) return json_string(key.string());
    put("\"");
    json(key, {}, 0);
    put("\"");
  }

  void json_object(const Dict& d, const JsonFormat& format, int64_t level) {
    if (d.entries().empty()) return put("{}");
    std::vector<Dict::Entry> entries = d.entries();
    if (format.sort_keys)
      std::sort(entries.begin(), entries.end(),
                [&](const auto& a, const auto& b) { return less(rt_, a.key, b.key); });
    put("{");
    bool first = true;
    for (const auto& [key, value] : entries) {
      if (!std::exchange(first, false)) put(format.item_separator);
      line_break(format, level + 1);
      json_key(key);
      put(format.key_separator);
      json(value, format, level + 1);
    }
    line_break(format, level);
    put("}");
  }

  Runtime& rt_;
  std::string out_;
  int namespaces_ = 0;  // that stand in one another
};

}  // namespace

// Python's repr: the shortest digits that read back the same, scientific from 1e16 and below 1e-4.
std::string float_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  char buffer[64];
  auto end = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific).ptr;
  const std::string_view scientific(buffer, static_cast<size_t>(end - buffer));
  const size_t e = scientific.find('e');
  const int exponent = std::atoi(std::string(scientific.substr(e + 1)).c_str());
  if (d != 0 && (exponent < -4 || exponent >= 16))
    return fmt::format("{}e{}{:02}", scientific.substr(0, e), exponent < 0 ? '-' : '+',
                       std::abs(exponent));
  end = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::fixed).ptr;
  std::string fixed(buffer, end);
  if (fixed.find('.') == fixed.npos) fixed += ".0";
  return fixed;
}

std::string repr(Runtime& rt, const Value& v) {
  Writer writer(rt);
  writer.repr(v);
  return writer.take();
}

std::string to_text(Runtime& rt, const Value& v) {
  if (v.is(Kind::kUndefined)) return {};
  if (!v.is(Kind::kString)) return repr(rt, v);
  rt.make_bytes(v.string().size());
  return v.string();
}

std::string to_json(Runtime& rt, const Value& v, const JsonFormat& format) {
  Writer writer(rt);
  writer.json(v, format, 0);
  return writer.take();
}

}  // namespace nibble::jinja
