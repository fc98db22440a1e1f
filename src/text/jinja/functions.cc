// The global functions: Jinja's, and the two that transformers adds.
#include <sys/time.h>

#include <algorithm>
#include <ctime>
#include <iterator>

#include "text/jinja/builtins.h"
#include "text/jinja/operations.h"
#include "text/utf8.h"

namespace nibble::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // Jinja's sandbox has the same

Value range(Runtime& rt, const Args& args) {
  const Bindings b(rt, "range", args, {"start", "stop", "step"}, 1);
  if (!args.named.empty()) rt.error("'range' takes no keyword arguments");
  const bool one = !b.has(1);
  const int64_t start = one ? 0 : b.integer(0, 0);
  const int64_t stop = one ? b.integer(0, 0) : b.integer(1, 0);
  const int64_t step = b.integer(2, 1);
  if (step == 0) rt.error("the step of a range can't be zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) == kMaxRange)
      rt.error("a range has more than {} items", kMaxRange);
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  std::string text = step == 1 ? fmt::format("range({}, {})", start, stop)
                               : fmt::format("range({}, {}, {})", start, stop, step);
  return rt.sequence(SequenceKind::kRange, std::move(items), std::move(text));
}

// dict(mapping or pairs, key=value, ...)
Dict make_dict(Runtime& rt, std::string_view callee, const Args& args) {
  Dict d;
  if (args.positional.size() > 1)
    rt.error("'{}' takes at most 1 positional argument, found {}", callee, args.positional.size());
  for (const Value& source : args.positional) {
    if (source.is(Kind::kDict)) {
      for (const auto& [key, v] : source.dict().entries()) rt.set(d, key, v);
      continue;
    }
    for (const Value& pair : iterate(rt, source)) {
      const std::vector<Value> parts = iterate(rt, pair);
      if (parts.size() != 2) rt.error("'{}' needs pairs, found {} values", callee, parts.size());
      rt.set(d, parts[0], parts[1]);
    }
  }
  for (const auto& [name, v] : args.named) rt.set(d, Value(name), v);
  return d;
}

Value dict(Runtime& rt, const Args& args) { return rt.dict(make_dict(rt, "dict", args)); }

Value make_namespace(Runtime& rt, const Args& args) {
  Dict d = make_dict(rt, "namespace", args);
  Namespace* n = rt.make_namespace();
  n->attributes = std::move(d);
  return Value(n);
}

Value raise_exception(Runtime& rt, const Args& args) {
  const Bindings b(rt, "raise_exception", args, {"message"}, 1);
  rt.error("{}", b.text(0, ""));
}

// What datetime.now().strftime() adds to the C library's: a time without a zone, microseconds.
std::string python_format(std::string_view format, int64_t microseconds) {
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    const char next = format[i] == '%' && i + 1 < format.size() ? format[i + 1] : '\0';
    if (next == 'f')
      out += fmt::format("{:06}", microseconds);
    else if (next != 'z' && next != 'Z')
      out.append(format, i, next == '\0' ? 1 : 2);
    if (next != '\0') ++i;
  }
  return out;
}

Value strftime_now(Runtime& rt, const Args& args) {
  const Bindings b(rt, "strftime_now", args, {"format"}, 1);
  if (!b[0].is(Kind::kString)) rt.error("'strftime_now' needs a string");
  timeval now{};
  gettimeofday(&now, nullptr);
  tm local{};
  localtime_r(&now.tv_sec, &local);
  // The blank tells an empty result from one that does not fit.
  const std::string format = python_format(b[0].string(), now.tv_usec) + ' ';
  if (format.find('\0') != format.npos) rt.error("'strftime_now': a NUL in the format");
  std::string out(1024, '\0');
  out.resize(std::strftime(out.data(), out.size(), format.c_str(), &local));
  if (out.empty()) rt.error("'strftime_now': the text is too long");
  out.pop_back();
  std::string valid;
  utf8::append_valid(valid, out);  // a locale may use another encoding
  return rt.text(std::move(valid));
}

constexpr GlobalFunction kFunctions[] = {
    {"dict", dict},   {"namespace", make_namespace},  {"raise_exception", raise_exception},
    {"range", range}, {"strftime_now", strftime_now},
};

}  // namespace

const GlobalFunction* find_function(std::string_view name) {
  const auto* it = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                [&](const GlobalFunction& f) { return f.name == name; });
  return it == std::end(kFunctions) ? nullptr : it;
}

}  // namespace nibble::jinja
