// What a lane works out by itself.
#include <algorithm>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tests/emulator/machine.h"
#include "tests/emulator/numbers.h"

namespace nibble::emulator {
namespace {

// A predicate as an input: in this many lanes' order.
struct Bit {};

template <class T>
struct Input {
  const T* values;
  T operator[](int lane) const { return values[lane]; }
};
template <>
struct Input<Bit> {
  uint32_t bits;
  bool operator[](int lane) const { return bits >> lane & 1; }
};
template <class T>
Input<T> input(Warp& w, const Operand& o) {
  if constexpr (std::is_same_v<T, Bit>) {
    return {w.predicate(o)};
  } else {
    return {w.values<T>(o)};
  }
}
template <class T>
constexpr uint8_t width_of() {
  if constexpr (std::is_same_v<T, Bit>) {
    return 0;
  } else {
    return sizeof(T);
  }
}

// operands[0] = f(operands[1], ...), lane by lane.
template <class F, class D, class... S>
void map_lanes(Warp& w, const Instruction& i, uint32_t lanes) {
  [&]<size_t... k>(std::index_sequence<k...>) {
    const std::tuple in{input<S>(w, i.operands[k + 1])...};
    if constexpr (std::is_same_v<D, Bit>) {
      uint32_t bits = 0;
      for (int l = 0; l < kLanes; ++l) bits |= uint32_t{bool(F{}(std::get<k>(in)[l]...))} << l;
      w.put_predicate(i.operands[0], bits, lanes);
    } else {
      D out[kLanes];
      for (int l = 0; l < kLanes; ++l) out[l] = static_cast<D>(F{}(std::get<k>(in)[l]...));
      w.put(i.operands[0], out, lanes);
    }
  }
  (std::make_index_sequence<sizeof...(S)>());
}
template <class D, class... S, class F>
Operation lanes(F) {
  return {&map_lanes<F, D, S...>, {width_of<D>(), width_of<S>()...}};
}

template <class F>
void for_integers(const F& f) {
  f.template operator()<uint16_t>(".u16");
  f.template operator()<int16_t>(".s16");
  f.template operator()<uint32_t>(".u32");
  f.template operator()<int32_t>(".s32");
  f.template operator()<uint64_t>(".u64");
  f.template operator()<int64_t>(".s64");
}
template <class F>
void for_bits(const F& f) {
  f.template operator()<uint16_t>(".b16");
  f.template operator()<uint32_t>(".b32");
  f.template operator()<uint64_t>(".b64");
}

template <class T>
T high_product(T a, T b) {
  return static_cast<T>((static_cast<__int128>(a) * b) >> (sizeof(T) * 8));
}

void add_integers(Operations& all) {
  for_integers([&]<class T>(const std::string& t) {
    all["add" + t] = lanes<T, T, T>([](T a, T b) { return a + b; });
    all["sub" + t] = lanes<T, T, T>([](T a, T b) { return a - b; });
    all["mul.lo" + t] = lanes<T, T, T>([](T a, T b) { return a * b; });
    all["mul.hi" + t] = lanes<T, T, T>([](T a, T b) { return high_product(a, b); });
    all["mad.lo" + t] = lanes<T, T, T, T>([](T a, T b, T c) { return a * b + c; });
    // What a division by zero gives is not defined.
    all["div" + t] = lanes<T, T, T>([](T a, T b) { return b == 0 ? T(-1) : T(a / b); });
    all["rem" + t] = lanes<T, T, T>([](T a, T b) { return b == 0 ? a : T(a % b); });
    all["min" + t] = lanes<T, T, T>([](T a, T b) { return std::min(a, b); });
    all["max" + t] = lanes<T, T, T>([](T a, T b) { return std::max(a, b); });
    all["neg" + t] = lanes<T, T>([](T a) { return -a; });
    all["abs" + t] = lanes<T, T>([](T a) { return a < 0 ? -a : a; });
    all["shr" + t] = lanes<T, T, uint32_t>([](T a, uint32_t by) {
      constexpr uint32_t kBits = sizeof(T) * 8;
      return by < kBits ? T(a >> by) : T(a < 0 ? -1 : 0);
    });
    if constexpr (sizeof(T) < 8) {
      using Wide = std::conditional_t<sizeof(T) == 4,
                                      std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                                      std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>>;
      all["mul.wide" + t] = lanes<Wide, T, T>([](T a, T b) { return Wide{a} * b; });
      all["mad.wide" + t] =
          lanes<Wide, T, T, Wide>([](T a, T b, Wide c) { return Wide{a} * b + c; });
    }
  });
  for_bits([&]<class T>(const std::string& t) {
    all["and" + t] = lanes<T, T, T>([](T a, T b) { return a & b; });
    all["or" + t] = lanes<T, T, T>([](T a, T b) { return a | b; });
    all["xor" + t] = lanes<T, T, T>([](T a, T b) { return a ^ b; });
    all["not" + t] = lanes<T, T>([](T a) { return ~a; });
    all["shl" + t] = lanes<T, T, uint32_t>(
        [](T a, uint32_t by) { return by < sizeof(T) * 8 ? T(a << by) : T(0); });
    all["shr" + t] = all["shr.u" + t.substr(2)];
  });
  all["and.pred"] = lanes<Bit, Bit, Bit>([](bool a, bool b) { return a && b; });
  all["or.pred"] = lanes<Bit, Bit, Bit>([](bool a, bool b) { return a || b; });
  all["xor.pred"] = lanes<Bit, Bit, Bit>([](bool a, bool b) { return a != b; });
  all["not.pred"] = lanes<Bit, Bit>([](bool a) { return !a; });
  all["mov.pred"] = lanes<Bit, Bit>([](bool a) { return a; });
  all["popc.b32"] = lanes<uint32_t, uint32_t>([](uint32_t a) { return std::popcount(a); });
  all["clz.b32"] = lanes<uint32_t, uint32_t>([](uint32_t a) { return std::countl_zero(a); });
  all["dp4a.s32.s32"] =
      lanes<int32_t, uint32_t, uint32_t, int32_t>([](uint32_t a, uint32_t b, int32_t sum) {
        for (int i = 0; i < 32; i += 8) {
          sum += static_cast<int8_t>(a >> i) * static_cast<int8_t>(b >> i);
        }
        return sum;
      });
  all["prmt.b32"] =
      lanes<uint32_t, uint32_t, uint32_t, uint32_t>([](uint32_t a, uint32_t b, uint32_t selector) {
        const uint64_t bytes = uint64_t{b} << 32 | a;
        uint32_t out = 0;
        for (int i = 0; i < 4; ++i) {
          const uint32_t s = selector >> 4 * i & 15;
          uint32_t byte = bytes >> (s & 7) * 8 & 255;
          if (s & 8) byte = byte & 128 ? 255 : 0;
          out |= byte << 8 * i;
        }
        return out;
      });
  all["lop3.b32"] = lanes<uint32_t, uint32_t, uint32_t, uint32_t, uint32_t>(
      [](uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
        uint32_t out = 0;
        for (int i = 0; i < 8; ++i) {
          if (table >> i & 1) out |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
        }
        return out;
      });
  all["shf.l.wrap.b32"] =
      lanes<uint32_t, uint32_t, uint32_t, uint32_t>([](uint32_t low, uint32_t high, uint32_t by) {
        return (uint64_t{high} << 32 | low) << (by & 31) >> 32;
      });
  all["shf.r.wrap.b32"] =
      lanes<uint32_t, uint32_t, uint32_t, uint32_t>([](uint32_t low, uint32_t high, uint32_t by) {
        return (uint64_t{high} << 32 | low) >> (by & 31);
      });
  const auto bfi = [&]<class T>(const std::string& t) {
    all["bfi" + t] = lanes<T, T, T, uint32_t, uint32_t>([](T a, T b, uint32_t at, uint32_t count) {
      at &= 255, count &= 255;
      constexpr uint32_t kBits = sizeof(T) * 8;
      if (at >= kBits || count == 0) return b;
      const T ones = count >= kBits ? T(-1) : T((T{1} << count) - 1);
      return T((b & ~(ones << at)) | (a & ones) << at);
    });
    all["bfe.u" + t.substr(2)] =
        lanes<T, T, uint32_t, uint32_t>([](T a, uint32_t at, uint32_t count) {
          at &= 255, count &= 255;
          constexpr uint32_t kBits = sizeof(T) * 8;
          const T from = at >= kBits ? T(0) : T(a >> at);
          return count >= kBits ? from : T(from & ((T{1} << count) - 1));
        });
  };
  bfi.operator()<uint32_t>(".b32");
  bfi.operator()<uint64_t>(".b64");
}

float smaller(float a, float b) {
  if (a != a) return canonical(b);
  if (b != b) return a;
  return a < b || (a == b && std::signbit(a)) ? a : b;
}
float larger(float a, float b) {
  if (a != a) return canonical(b);
  if (b != b) return a;
  return a > b || (a == b && std::signbit(b)) ? a : b;
}

// Each half of a pair: f(a, b).
template <class F>
uint32_t halves(uint32_t a, uint32_t b, const F& f) {
  const uint32_t low = f(static_cast<uint16_t>(a), static_cast<uint16_t>(b));
  return low | uint32_t{f(static_cast<uint16_t>(a >> 16), static_cast<uint16_t>(b >> 16))} << 16;
}
template <float (*kFrom)(uint16_t)>
uint16_t larger_half(uint16_t a, uint16_t b) {
  const float x = kFrom(a), y = kFrom(b);
  if (x != x || y != y) return kHalfNan;
  return x > y || (x == y && std::signbit(y)) ? a : b;
}
// The larger magnitude with the product's sign.
template <float (*kFrom)(uint16_t)>
uint16_t largest(uint16_t a, uint16_t b) {
  const float x = std::fabs(kFrom(a)), y = std::fabs(kFrom(b));
  if (x != x || y != y) return kHalfNan;
  return static_cast<uint16_t>(((x > y ? a : b) & 0x7fff) | ((a ^ b) & 0x8000));
}

void add_floats(Operations& all) {
  using F = float;
  for (const std::string rounding : {"", ".rn"}) {
    all["add" + rounding + ".f32"] = lanes<F, F, F>([](F a, F b) { return canonical(a + b); });
    all["sub" + rounding + ".f32"] = lanes<F, F, F>([](F a, F b) { return canonical(a - b); });
    all["mul" + rounding + ".f32"] = lanes<F, F, F>([](F a, F b) { return canonical(a * b); });
  }
  all["fma.rn.f32"] =
      lanes<F, F, F, F>([](F a, F b, F c) { return canonical(__builtin_fmaf(a, b, c)); });
  all["div.rn.f32"] = lanes<F, F, F>([](F a, F b) { return canonical(a / b); });
  all["rcp.rn.f32"] = lanes<F, F>([](F a) { return canonical(1.0f / a); });
  all["min.f32"] = lanes<F, F, F>([](F a, F b) { return smaller(a, b); });
  all["max.f32"] = lanes<F, F, F>([](F a, F b) { return larger(a, b); });
  all["neg.f32"] = lanes<F, F>([](F a) { return -a; });
  all["abs.f32"] = lanes<F, F>([](F a) { return std::fabs(a); });
  // A GPU's approximations are within two units of these.
  all["rcp.approx.ftz.f32"] =
      lanes<F, F>([](F a) { return flushed(canonical(1.0f / flushed(a))); });
  all["rsqrt.approx.ftz.f32"] = lanes<F, F>(
      [](F a) { return flushed(canonical(static_cast<F>(1.0 / std::sqrt(double{flushed(a)})))); });
  all["ex2.approx.ftz.f32"] =
      lanes<F, F>([](F a) { return flushed(canonical(std::exp2(flushed(a)))); });

  using H = uint16_t;
  using P = uint32_t;
  all["mul.rn.f16x2"] = lanes<P, P, P>([](P a, P b) {
    return halves(a, b, [](H x, H y) { return to_half(from_half(x) * from_half(y)); });
  });
  all["mul.rn.bf16x2"] = lanes<P, P, P>([](P a, P b) {
    return halves(a, b, [](H x, H y) { return to_bf16(from_bf16(x) * from_bf16(y)); });
  });
  // A product, with -0 added, or a sum, of the one factor times one: these fp32 rounds harmlessly.
  all["fma.rn.bf16x2"] = lanes<P, P, P, P>([](P a, P b, P c) {
    if (c == 0x80008000) {
      return halves(a, b, [](H x, H y) { return to_bf16(from_bf16(x) * from_bf16(y)); });
    }
    if (b != 0x3F803F80) throw Fault("fma.rn.bf16x2 with a product and a sum");
    return halves(a, c, [](H x, H y) { return to_bf16(from_bf16(x) + from_bf16(y)); });
  });
  all["add.rn.f16x2"] = lanes<P, P, P>([](P a, P b) {
    return halves(a, b, [](H x, H y) { return to_half(from_half(x) + from_half(y)); });
  });
  all["max.NaN.f16x2"] =
      lanes<P, P, P>([](P a, P b) { return halves(a, b, larger_half<from_half>); });
  all["max.NaN.bf16x2"] =
      lanes<P, P, P>([](P a, P b) { return halves(a, b, larger_half<from_bf16>); });
  all["max.NaN.xorsign.abs.f16x2"] =
      lanes<P, P, P>([](P a, P b) { return halves(a, b, largest<from_half>); });
  all["max.NaN.xorsign.abs.bf16x2"] =
      lanes<P, P, P>([](P a, P b) { return halves(a, b, largest<from_bf16>); });
}

void add_moves(Operations& all) {
  const auto of = [&]<class T>(const std::string& t) {
    all["mov" + t] = lanes<T, T>([](T a) { return a; });
    all["selp" + t] = lanes<T, T, T, Bit>([](T a, T b, bool first) { return first ? a : b; });
  };
  for_integers(of);
  for_bits(of);
  of.operator()<float>(".f32");
  // shfl and the like have their own; cvta between spaces that lie in one memory.
  for (const std::string space : {"global", "local"}) {
    for (const std::string to : {"", ".to"})
      all["cvta" + to + "." + space + ".u64"] = all["mov.b64"];
  }
  all["cvta.param.u64"] = {[](Warp& w, const Instruction& i, uint32_t lanes) {
                             uint64_t out[kLanes];
                             const auto base =
                                 reinterpret_cast<uint64_t>(w.launch->parameters.data());
                             for (int l = 0; l < kLanes; ++l) {
                               out[l] = w.values<uint64_t>(i.operands[1])[l] + base;
                             }
                             w.put(i.operands[0], out, lanes);
                           },
                           {8, 8}};
}

void add_comparisons(Operations& all) {
  const auto of = [&]<class T>(const std::string& t) {
    const auto put = [&]<class F>(const std::string& name, F) {
      all["setp." + name + t] = lanes<Bit, T, T>(F{});
    };
    put("eq", [](T a, T b) { return a == b; });
    put("ne", [](T a, T b) { return a < b || a > b; });
    put("lt", [](T a, T b) { return a < b; });
    put("le", [](T a, T b) { return a <= b; });
    put("gt", [](T a, T b) { return a > b; });
    put("ge", [](T a, T b) { return a >= b; });
    put("equ", [](T a, T b) { return !(a < b || a > b); });
    put("neu", [](T a, T b) { return !(a == b); });
    put("ltu", [](T a, T b) { return !(a >= b); });
    put("leu", [](T a, T b) { return !(a > b); });
    put("gtu", [](T a, T b) { return !(a <= b); });
    put("geu", [](T a, T b) { return !(a < b); });
    put("nan", [](T a, T b) { return a != a || b != b; });
    put("num", [](T a, T b) { return a == a && b == b; });
  };
  for_integers(of);
  for_bits(of);
  of.operator()<float>(".f32");
}

// Between integers: the register's lower bits as type S, then as type D, widened to its register.
template <class D, class S>
void add_integer_cast(Operations& all, const std::string& d, const std::string& s) {
  using Narrow = std::conditional_t<std::is_signed_v<S>, int16_t, uint16_t>;
  using From = std::conditional_t<sizeof(S) == 1, Narrow, S>;
  using NarrowTo = std::conditional_t<std::is_signed_v<D>, int16_t, uint16_t>;
  using To = std::conditional_t<sizeof(D) == 1, NarrowTo, D>;
  all["cvt" + d + s] = lanes<To, From>([](From a) { return To(D(S(a))); });
}

void add_conversions(Operations& all) {
  const auto for_all = [](const auto& f) {
    for_integers(f);
    f.template operator()<uint8_t>(".u8");
    f.template operator()<int8_t>(".s8");
  };
  for_all([&]<class D>(const std::string& d) {
    for_all([&]<class S>(const std::string& s) { add_integer_cast<D, S>(all, d, s); });
  });
  for_integers([&]<class S>(const std::string& s) {
    all["cvt.rn.f32" + s] = lanes<float, S>([](S a) { return static_cast<float>(a); });
  });
  using F = float;
  using H = uint16_t;
  using P = uint32_t;
  all["cvt.f32.f16"] = lanes<F, H>([](H a) { return from_half(a); });
  all["cvt.f32.bf16"] = lanes<F, H>([](H a) { return from_bf16(a); });
  all["cvt.rn.f16.f32"] = lanes<H, F>([](F a) { return to_half(a); });
  all["cvt.rn.bf16.f32"] = lanes<H, F>([](F a) { return to_bf16(a); });
  all["cvt.rn.f16x2.f32"] =
      lanes<P, F, F>([](F high, F low) { return P{to_half(high)} << 16 | to_half(low); });
  all["cvt.rn.bf16x2.f32"] =
      lanes<P, F, F>([](F high, F low) { return P{to_bf16(high)} << 16 | to_bf16(low); });
  all["cvt.rn.satfinite.e4m3x2.f32"] = lanes<H, F, F>(
      [](F high, F low) { return to_e4m3_satfinite(high) << 8 | to_e4m3_satfinite(low); });
  all["cvt.rn.satfinite.e2m1x2.f32"] = lanes<uint8_t, F, F>(
      [](F high, F low) { return to_e2m1_satfinite(high) << 4 | to_e2m1_satfinite(low); });
  all["cvt.rn.f16x2.e4m3x2"] = lanes<P, H>([](H codes) {
    const auto half = [](int code) { return P{to_half(from_e4m3(static_cast<uint8_t>(code)))}; };
    return half(codes >> 8) << 16 | half(codes);
  });
}

}  // namespace

void add_arithmetic(Operations& all) {
  add_integers(all);
  add_floats(all);
  add_moves(all);
  add_comparisons(all);
  add_conversions(all);
}

}  // namespace nibble::emulator
