// PTX statements to instructions.
#include <cctype>
#include <unordered_map>

#include "tests/emulator/machine.h"
#include "tests/emulator/text.h"

namespace nibble::emulator {

// Decodes one kernel; functions that it calls are written out in their places.
class Decoder {
 public:
  Decoder(Module& module, const std::string& name) : module_(module) {
    out_.name = name;
    out_.register_bytes = kFirstRegister;
    scopes_.emplace_back();
    for (const std::string& text : module.variables_) module_variable(variable(text));
    const Module::Body& body = module.bodies_.at(name);
    out_.most_threads = most_threads(body.head);
    parameters(body.head);
    statements(body.code);
    instruction("exit");
    for (const auto& [instruction, label] : jumps_) {
      const auto found = labels_.find(label);
      if (found == labels_.end()) throw Fault("no label " + label);
      out_.code[instruction].target = found->second;
    }
    align_shared(dynamic_align_);
    for (const Fixup& f : dynamic_) put_constant(f.at, f.width, out_.shared_bytes + kSharedBase);
  }

  Function take() { return std::move(out_); }

 private:
  enum class Space { kRegister, kParameter, kFrame, kShared, kDynamicShared, kLocal, kGlobal };
  struct Symbol {
    Space space;
    uint64_t at;  // a register's offset, or an address in its space
    size_t bytes;
  };
  struct Fixup {
    uint32_t at;
    uint8_t width;
  };
  using Scope = std::unordered_map<std::string, Symbol>;

  void module_variable(const Variable& v) {
    if (v.space == "shared" && v.is_extern) {
      dynamic_align_ = std::max(dynamic_align_, v.align);
      scopes_[0][v.name] = {Space::kDynamicShared, 0, 0};
    } else if (v.space == "shared") {
      declare_shared(v);
    } else {
      auto& memory = module_.globals_[v.name];
      if (memory == nullptr) {
        memory = std::make_unique<uint8_t[]>(v.bytes + v.align);
        const std::vector<std::string> values =
            v.values.empty() ? std::vector<std::string>()
                             : split(v.values.substr(1, v.values.size() - 2));
        const size_t width = values.empty() ? 1 : v.bytes / values.size();
        for (size_t i = 0; i < values.size(); ++i) {
          const uint64_t value = std::stoull(values[i], nullptr, 0);
          std::memcpy(memory.get() + i * width, &value, width);
        }
      }
      scopes_[0][v.name] = {Space::kGlobal, reinterpret_cast<uint64_t>(memory.get()), v.bytes};
    }
  }

  // ptxas counts from kSharedBase, and says nothing where an address is then aligned less.
  void align_shared(size_t align) {
    if (align > kSharedBase) throw Fault("shared memory not aligned to " + std::to_string(align));
    out_.shared_bytes = round_up(out_.shared_bytes, align);
  }

  void declare_shared(const Variable& v) {
    align_shared(v.align);
    scopes_[0][v.name] = {Space::kShared, kSharedBase + out_.shared_bytes, v.bytes};
    out_.shared_bytes += v.bytes;
  }

  void parameters(const std::string& head) {
    const size_t open = head.find('(');
    if (open == std::string::npos) return;
    for (const std::string& text : split(head.substr(open + 1, head.rfind(')') - open - 1))) {
      const Variable v = variable(text);
      out_.parameter_bytes = round_up(out_.parameter_bytes, v.align);
      scopes_.back()[v.name] = {Space::kParameter, out_.parameter_bytes, v.bytes};
      out_.parameters.push_back({out_.parameter_bytes, v.bytes});
      out_.parameter_bytes += v.bytes;
    }
  }

  void statements(const std::string& code) {
    size_t at = 0;
    while (at < code.size()) {
      if (is_space(code[at])) {
        ++at;
      } else if (code[at] == '{') {
        scopes_.emplace_back();
        ++at;
      } else if (code[at] == '}') {
        scopes_.pop_back();
        ++at;
      } else {
        size_t end = at;
        while (end < code.size() && is_name(code[end])) ++end;
        if (end > at && code[end] == ':' && code.compare(end, 2, "::") != 0) {
          labels_[prefix_ + code.substr(at, end - at)] = static_cast<uint32_t>(out_.code.size());
          at = end + 1;
          continue;
        }
        end = code.find(';', at);
        statement(trim(std::string_view(code).substr(at, end - at)));
        at = end + 1;
      }
    }
  }

  void statement(const std::string& text) {
    if (text.empty()) return;
    if (text.starts_with(".reg")) return declare_registers(text);
    if (text.starts_with(".pragma") || text.starts_with(".loc ") || text.starts_with(".loc\t"))
      return;
    if (text[0] == '.') {
      const Variable v = variable(text);
      if (v.space == "shared") return declare_shared(v);
      if (v.space == "local") {
        out_.local_bytes = round_up(out_.local_bytes, 16);
        scopes_.back()[v.name] = {Space::kLocal, out_.local_bytes, v.bytes};
        out_.local_bytes = round_up(out_.local_bytes + v.bytes, 16);
        return;
      }
      if (v.space == "param") {
        scopes_.back()[v.name] = {Space::kFrame, new_register(round_up(v.bytes, 8)), v.bytes};
        return;
      }
      throw Fault("unknown declaration: " + text);
    }
    instruction(text);
  }

  uint32_t new_register(size_t bytes) {
    const auto at = static_cast<uint32_t>(out_.register_bytes);
    out_.register_bytes += round_up(bytes == 0 ? 4 : bytes * kLanes, 32);
    return at;
  }

  void declare_registers(const std::string& text) {
    const std::vector<std::string> all = words(text);
    const size_t bytes = bytes_of_type(all[1]);
    std::string names;
    for (size_t i = 2; i < all.size(); ++i) names += all[i];
    for (const std::string& name : split(names)) {
      const size_t open = name.find('<');
      if (open == std::string::npos) {
        scopes_.back()[name] = {Space::kRegister, new_register(bytes), bytes};
        continue;
      }
      const int count = std::stoi(name.substr(open + 1));
      for (int i = 0; i < count; ++i) {
        scopes_.back()[name.substr(0, open) + std::to_string(i)] = {Space::kRegister,
                                                                    new_register(bytes), bytes};
      }
    }
  }

  const Symbol* find(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      if (const auto found = scope->find(name); found != scope->end()) return &found->second;
    }
    return nullptr;
  }

  void put_constant(uint32_t at, uint8_t width, uint64_t value) {
    uint8_t* to = out_.constants.data() + at;
    if (width == 0) {
      std::memcpy(to, &value, 4);
      return;
    }
    for (int l = 0; l < kLanes; ++l) std::memcpy(to + l * width, &value, width);
  }

  Operand constant(uint64_t value, uint8_t width, bool shared = false) {
    const auto key = std::pair(value, width);
    auto found = constants_.find(key);
    if (shared || found == constants_.end()) {
      const auto at = static_cast<uint32_t>(out_.constants.size());
      out_.constants.resize(at + (width == 0 ? 32 : kLanes * width));
      put_constant(at, width, value);
      if (shared) return {at | kConstant, 0, width};
      found = constants_.emplace(key, at).first;
    }
    return {found->second | kConstant, 0, width};
  }

  Operand symbol_value(const Symbol& s, uint8_t width) {
    switch (s.space) {
      case Space::kRegister:
        if (s.bytes != width) throw Fault("a register of another width");
        return {static_cast<uint32_t>(s.at), 0, width};
      case Space::kDynamicShared: {
        const Operand o = constant(0, width, true);
        dynamic_.push_back({o.at & ~kConstant, width});
        return o;
      }
      case Space::kLocal:
        return {kLocalBase, static_cast<int32_t>(s.at), 8};
      case Space::kFrame:
        return {static_cast<uint32_t>(s.at), 0, width};
      default:
        return constant(s.at, width);
    }
  }

  Operand operand(const std::string& text, uint8_t width) {
    if (text == "_") return {new_register(width), 0, width};
    if (const auto special = specials_.find(text); special != specials_.end()) {
      if (width != 4) throw Fault("a special register of another width");
      return {special->second * kSpecialBytes, 0, 4};
    }
    if (const Symbol* s = find(text)) {
      const Operand o = symbol_value(*s, width);
      if (o.offset != 0) throw Fault("an address inside of local memory");
      return o;
    }
    if (text.starts_with("0f") || text.starts_with("0F") || text.starts_with("0d") ||
        text.starts_with("0D")) {
      return constant(std::stoull(text.substr(2), nullptr, 16), width);
    }
    if (std::isdigit(static_cast<unsigned char>(text[0])) != 0) {
      return constant(std::stoull(text, nullptr, 0), width);
    }
    if (text[0] == '-') return constant(-std::stoull(text.substr(1), nullptr, 0), width);
    throw Fault("unknown name " + text);
  }

  // [register + offset], or [symbol + offset].
  Operand address(const std::string& text) {
    const size_t plus = text.find('+');
    const std::string name = trim(std::string_view(text).substr(0, plus));
    const int32_t offset = plus == std::string::npos ? 0 : std::stoi(text.substr(plus + 1));
    const Symbol* s = find(name);
    if (s == nullptr) throw Fault("unknown address " + text);
    Operand o = symbol_value(*s, static_cast<uint8_t>(s->space == Space::kRegister ? s->bytes : 8));
    o.offset += offset;
    return o;
  }

  void instruction(const std::string& whole) {
    Instruction i;
    i.text = whole;
    std::string text = whole;
    if (text[0] == '@') {
      const size_t end = text.find_first_of(" \t");
      std::string guard = text.substr(1, end - 1);
      if ((i.negated = guard[0] == '!')) guard.erase(0, 1);
      i.guard = operand(guard, 0).at;
      text = trim(std::string_view(text).substr(end));
    }
    const size_t end = std::min(text.find_first_of(" \t\n"), text.size());
    const std::string name = text.substr(0, end);
    std::vector<std::string> parts = split(std::string_view(text).substr(end));
    if (name == "bra" || name == "bra.uni") return emit_jump(std::move(i), prefix_ + parts[0]);
    if (name.starts_with("call")) return call(parts);
    if (name == "ret" || name == "exit") {
      if (!return_label_.empty()) return emit_jump(std::move(i), return_label_);
      i.kind = Kind::kExit;
      out_.code.push_back(std::move(i));
      return;
    }
    // Braces and p|q become operands of their own.
    Shape shape;
    std::vector<std::string> flat;
    for (size_t p = 0; p < parts.size(); ++p) {
      std::string part = parts[p];
      std::vector<std::string> inner = {part};
      if (part[0] == '{') {
        inner = split(part.substr(1, part.size() - 2));
        if (p < 2) shape.braced[p] = static_cast<int>(inner.size());
      } else if (const size_t bar = part.find('|'); bar != std::string::npos) {
        inner = {trim(std::string_view(part).substr(0, bar)),
                 trim(std::string_view(part).substr(bar + 1))};
        if (p < 2) shape.braced[p] = 2;
      } else if (part[0] == '[') {
        const std::vector<std::string> inside = split(part.substr(1, part.size() - 2));
        inner = {"[" + inside[0]};
        for (size_t k = 1; k < inside.size(); ++k) {
          for (std::string& s : split(inside[k].substr(1, inside[k].size() - 2))) {
            inner.push_back(std::move(s));
          }
        }
      }
      for (std::string& s : inner) flat.push_back(std::move(s));
    }
    shape.operands = static_cast<int>(flat.size());
    for (const std::string& part : flat) {
      const Symbol* s = find(part);
      if (s == nullptr || s->space != Space::kRegister || s->bytes == 0) continue;
      shape.register_width = static_cast<int>(s->bytes);
      break;
    }
    try {
      Operation operation = emulator::operation(in_frame(name, flat), shape);
      if (flat.size() != operation.widths.size()) throw Fault("another number of operands");
      for (size_t k = 0; k < flat.size(); ++k) {
        const uint8_t width = operation.widths[k];
        if (width == kAddress) {
          i.operands.push_back(address(flat[k].substr(1)));
        } else if (flat[k][0] == '!') {
          throw Fault("a negated predicate");
        } else {
          i.operands.push_back(operand(flat[k], width));
        }
      }
      i.run = operation.run;
      i.kind = operation.kind;
      i.members = operation.members;
      i.extra = operation.extra;
    } catch (const Fault& e) {
      throw Fault(std::string(e.what()) + ": " + whole);
    }
    out_.code.push_back(std::move(i));
  }

  // Parameters of calls are memory of each lane.
  std::string in_frame(const std::string& name, const std::vector<std::string>& flat) const {
    if (!name.starts_with("ld.param") && !name.starts_with("st.param")) return name;
    for (const std::string& part : flat) {
      if (part[0] != '[') continue;
      const Symbol* s = find(trim(part.substr(1, part.find('+') - 1)));
      if (s != nullptr && s->space == Space::kFrame) {
        const size_t stride = round_up(s->bytes, 8);
        return name.substr(0, 2) + ".frame" + std::to_string(stride) + name.substr(8);
      }
    }
    return name;
  }

  void emit_jump(Instruction i, const std::string& label) {
    i.kind = Kind::kBranch;
    jumps_.emplace_back(out_.code.size(), label);
    out_.code.push_back(std::move(i));
  }

  // (results), function, (arguments)
  void call(const std::vector<std::string>& parts) {
    const bool has_result = parts[0][0] == '(';
    const std::string name = parts[has_result ? 1 : 0];
    const auto body = module_.bodies_.find(name);
    if (body == module_.bodies_.end()) throw Fault("no function " + name);
    Scope scope;
    const std::string& head = body->second.head;
    size_t from = 0;
    const auto bind = [&](const std::string& actual) {
      const size_t open = head.find('(', from), close = head.find(')', open);
      from = close + 1;
      const std::vector<std::string> formal = split(head.substr(open + 1, close - open - 1));
      const std::vector<std::string> given = split(actual.substr(1, actual.size() - 2));
      for (size_t k = 0; k < formal.size(); ++k) {
        const Symbol* s = find(given[k]);
        if (s == nullptr) throw Fault("unknown argument " + given[k]);
        scope[variable(formal[k]).name] = *s;
      }
    };
    if (has_result) bind(parts[0]);
    if (parts.size() > (has_result ? 2u : 1u)) bind(parts.back());
    const std::string prefix = prefix_, return_label = return_label_;
    prefix_ = "call" + std::to_string(calls_++) + ":";
    return_label_ = prefix_ + "end";
    scopes_.push_back(std::move(scope));
    statements(body->second.code);
    scopes_.pop_back();
    labels_[return_label_] = static_cast<uint32_t>(out_.code.size());
    prefix_ = prefix;
    return_label_ = return_label;
  }

  Module& module_;
  Function out_;
  std::vector<Scope> scopes_;
  std::map<std::string, Special, std::less<>> specials_ = special_registers();
  std::map<std::pair<uint64_t, uint8_t>, uint32_t> constants_;
  std::vector<Fixup> dynamic_;
  size_t dynamic_align_ = 1;
  std::unordered_map<std::string, uint32_t> labels_;
  std::vector<std::pair<size_t, std::string>> jumps_;
  std::string prefix_, return_label_;
  int calls_ = 0;
};

const Function& Module::kernel(const std::string& name) {
  if (!text_.empty()) read();
  auto& decoded = decoded_[name];
  if (decoded == nullptr) decoded = std::make_unique<Function>(Decoder(*this, name).take());
  return *decoded;
}

}  // namespace nibble::emulator
