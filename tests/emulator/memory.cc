// Loads, stores, and registers packed into others: what has as many operands as its name says.
#include <algorithm>
#include <utility>

#include "tests/emulator/machine.h"

namespace nibble::emulator {
namespace {

enum class Space { kGlobal, kShared, kParameter, kFrame };

template <Space kSpace>
uint8_t* place(Warp& w, const Instruction& i, const Operand& o, int lane, size_t bytes) {
  if constexpr (kSpace == Space::kFrame) {
    return w.registers.data() + o.at + lane * i.extra + o.offset;
  } else {
    const uint64_t address = w.address(o, lane);
    if constexpr (kSpace == Space::kGlobal) return w.global(address, bytes);
    if constexpr (kSpace == Space::kShared) return w.shared(address, bytes);
    if (address + bytes > w.launch->parameters.size()) throw Fault("no such parameter");
    return const_cast<uint8_t*>(w.launch->parameters.data()) + address;
  }
}

// Elements of type T, registers of kWidth bytes: narrower ones are widened.
template <class T, int kWidth, Space kSpace>
void load(Warp& w, const Instruction& i, uint32_t lanes) {
  const int count = static_cast<int>(i.operands.size()) - 1;
  uint8_t* to[4];
  for (int k = 0; k < count; ++k) to[k] = w.values<uint8_t>(i.operands[k]);
  for_lanes(lanes, [&](int l) {
    const uint8_t* from = place<kSpace>(w, i, i.operands[count], l, sizeof(T) * count);
    for (int k = 0; k < count; ++k) {
      T value;
      std::memcpy(&value, from + k * sizeof(T), sizeof(T));
      const auto wide = static_cast<int64_t>(value);
      std::memcpy(to[k] + l * kWidth, &wide, kWidth);
    }
  });
}

template <class T, int kWidth, Space kSpace>
void store(Warp& w, const Instruction& i, uint32_t lanes) {
  const int count = static_cast<int>(i.operands.size()) - 1;
  for_lanes(lanes, [&](int l) {
    uint8_t* to = place<kSpace>(w, i, i.operands[0], l, sizeof(T) * count);
    for (int k = 0; k < count; ++k) {
      std::memcpy(to + k * sizeof(T), w.values<uint8_t>(i.operands[k + 1]) + l * kWidth, sizeof(T));
    }
  });
  ++events;
}

// Spinning on memory: others run in between.
template <Run kLoad>
void acquire(Warp& w, const Instruction& i, uint32_t lanes) {
  kLoad(w, i, lanes);
  w.yield = true;
}

template <int kBytes>
void put_bytes(Warp& w, const Operand& o, const uint8_t* from, uint32_t lanes) {
  struct Value {
    uint8_t bytes[kBytes];
  };
  w.put(o, reinterpret_cast<const Value*>(from), lanes);
}
// A register's pieces and back. kCount of kBytes each.
template <int kCount, int kBytes>
void unpack(Warp& w, const Instruction& i, uint32_t lanes) {
  const uint8_t* from = w.values<uint8_t>(i.operands[kCount]);
  for (int k = 0; k < kCount; ++k) {
    uint8_t pieces[kLanes * kBytes];
    for (int l = 0; l < kLanes; ++l) {
      std::memcpy(pieces + l * kBytes, from + (l * kCount + k) * kBytes, kBytes);
    }
    put_bytes<kBytes>(w, i.operands[k], pieces, lanes);
  }
}
template <int kCount, int kBytes>
void pack(Warp& w, const Instruction& i, uint32_t lanes) {
  uint8_t whole[kLanes * kCount * kBytes];
  for (int k = 0; k < kCount; ++k) {
    const uint8_t* from = w.values<uint8_t>(i.operands[k + 1]);
    for (int l = 0; l < kLanes; ++l) {
      std::memcpy(whole + (l * kCount + k) * kBytes, from + l * kBytes, kBytes);
    }
  }
  put_bytes<kCount * kBytes>(w, i.operands[0], whole, lanes);
}

std::vector<std::string> split(const std::string& name) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= name.size();) {
    const size_t dot = std::min(name.find('.', at), name.size());
    parts.push_back(name.substr(at, dot - at));
    at = dot + 1;
  }
  return parts;
}

template <class T, int kWidth>
Operation access(bool is_load, Space space, bool is_acquire) {
  Operation o;
  switch (space) {
    case Space::kGlobal:
      o.run = !is_load     ? &store<T, kWidth, Space::kGlobal>
              : is_acquire ? &acquire<load<T, kWidth, Space::kGlobal>>
                           : &load<T, kWidth, Space::kGlobal>;
      break;
    case Space::kShared:
      o.run = is_load ? &load<T, kWidth, Space::kShared> : &store<T, kWidth, Space::kShared>;
      break;
    case Space::kParameter:
      o.run = &load<T, kWidth, Space::kParameter>;
      break;
    case Space::kFrame:
      o.run = is_load ? &load<T, kWidth, Space::kFrame> : &store<T, kWidth, Space::kFrame>;
      break;
  }
  o.widths = {kWidth};
  return o;
}

// ld[.space][.order][.scope][.cache][.v2|.v4].type, and st likewise.
Operation load_or_store(const std::string& name, const Shape& shape) {
  const std::vector<std::string> parts = split(name);
  const bool is_load = parts[0] == "ld";
  Space space = Space::kGlobal;
  int count = 1, stride = 0;
  bool is_acquire = false;
  for (size_t k = 1; k + 1 < parts.size(); ++k) {
    const std::string& p = parts[k];
    if (p == "shared" || p == "shared::cta" || p == "shared::cluster") space = Space::kShared;
    if (p == "param") space = Space::kParameter;
    if (p.starts_with("frame")) space = Space::kFrame, stride = std::stoi(p.substr(5));
    if (p == "v2") count = 2;
    if (p == "v4") count = 4;
    is_acquire |= p == "acquire" || p == "volatile" || p == "relaxed";
  }
  if (shape.braced[is_load ? 0 : 1] != count) throw Fault("another number of registers");
  const std::string& type = parts.back();
  Operation o;
  const auto as = [&]<class T, int kWidth>() { o = access<T, kWidth>(is_load, space, is_acquire); };
  const auto of = [&]<class T>() {
    const int natural = std::max<int>(2, sizeof(T));
    const int width = shape.register_width == 0 ? natural : shape.register_width;
    if constexpr (sizeof(T) <= 2) {
      if (width == 2) as.template operator()<T, 2>();
    }
    if constexpr (sizeof(T) <= 4) {
      if (width == 4) as.template operator()<T, 4>();
    }
    if (width == 8) as.template operator()<T, 8>();
  };
  if (type == "u8" || type == "b8") of.operator()<uint8_t>();
  if (type == "s8") of.operator()<int8_t>();
  if (type == "u16" || type == "b16") of.operator()<uint16_t>();
  if (type == "s16") of.operator()<int16_t>();
  if (type == "u32" || type == "b32" || type == "f32") of.operator()<uint32_t>();
  if (type == "s32") of.operator()<int32_t>();
  if (type == "u64" || type == "b64" || type == "s64") of.operator()<uint64_t>();
  if (o.run == nullptr) throw Fault("unknown type of " + name);
  const uint8_t width = o.widths[0];
  o.widths.assign(count, width);
  o.widths.insert(is_load ? o.widths.end() : o.widths.begin(), kAddress);
  o.extra = stride;
  return o;
}

}  // namespace

Operation operation(const std::string& name, const Shape& shape) {
  static const Operations all = [] {
    Operations made;
    add_arithmetic(made);
    add_collectives(made);
    add_asynchronous(made);
    return made;
  }();
  const bool is_access = name.starts_with("ld.") || name.starts_with("st.");
  if (is_access && !name.starts_with("st.async")) return load_or_store(name, shape);
  const auto& braced = shape.braced;
  if (name.starts_with("mov.b") && (braced[0] > 1 || braced[1] > 1)) {
    const bool apart = braced[0] > 1;
    const int count = std::max(braced[0], braced[1]), bytes = std::stoi(name.substr(5)) / 8;
    Operation o;
    if (bytes == 2 && count == 2) o.run = apart ? &unpack<2, 1> : &pack<2, 1>;
    if (bytes == 4 && count == 4) o.run = apart ? &unpack<4, 1> : &pack<4, 1>;
    if (bytes == 4 && count == 2) o.run = apart ? &unpack<2, 2> : &pack<2, 2>;
    if (bytes == 8 && count == 2) o.run = apart ? &unpack<2, 4> : &pack<2, 4>;
    if (bytes == 8 && count == 4) o.run = apart ? &unpack<4, 2> : &pack<4, 2>;
    if (o.run == nullptr) throw Fault("unknown form of " + name);
    o.widths.assign(count, static_cast<uint8_t>(bytes / count));
    o.widths.insert(apart ? o.widths.end() : o.widths.begin(), static_cast<uint8_t>(bytes));
    return o;
  }
  // Some have a form with more operands.
  auto found = all.find(name);
  if (found == all.end() || static_cast<int>(found->second.widths.size()) != shape.operands) {
    found = all.find(name + " " + std::to_string(shape.operands));
  }
  if (found == all.end()) throw Fault("unknown instruction " + name);
  return found->second;
}

}  // namespace nibble::emulator
