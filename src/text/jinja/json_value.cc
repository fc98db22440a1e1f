#include "text/jinja/json_value.h"

#include <nlohmann/json.hpp>

#include "base/check.h"

namespace nibble::jinja {
namespace {

// Builds values as the parser meets them: nlohmann's own ordered tree looks keys up one by one,
// which takes a minute for a request with 100,000 of them.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder(std::string_view what, ErrorCode code) : what_(what), code_(code) {}
  Value take() { return std::move(root_); }

  bool null() override { return put(None{}); }
  bool boolean(bool b) override { return put(b); }
  bool number_integer(number_integer_t i) override { return put(static_cast<int64_t>(i)); }
  bool number_unsigned(number_unsigned_t u) override {
    NIBBLE_CHECK(u <= INT64_MAX, code_, "{}: the number {} does not fit in 64 bits", what_, u);
    return put(static_cast<int64_t>(u));
  }
  bool number_float(number_float_t d, const string_t&) override { return put(d); }
  bool string(string_t& s) override { return put(std::move(s)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override { return open(true); }
  bool start_array(size_t) override { return open(false); }
  bool key(string_t& k) override {
    open_.back().key = std::move(k);
    return true;
  }
  bool end_object() override {
    Value v(std::make_shared<const Dict>(std::move(open_.back().dict)));
    open_.pop_back();
    return put(std::move(v));
  }
  bool end_array() override {
    auto s = std::make_shared<Sequence>();
    s->items = std::move(open_.back().items);
    for (const Value& v : s->items) s->depth = std::max(s->depth, 1 + v.depth());
    open_.pop_back();
    return put(Value(std::shared_ptr<const Sequence>(std::move(s))));
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& e) override {
    fail(code_, "{}: {}", what_, e.what());
  }

 private:
  struct Open {
    bool is_object;
    Dict dict;
    std::string key;
    std::vector<Value> items;
  };

  bool open(bool is_object) {
    NIBBLE_CHECK(open_.size() < static_cast<size_t>(kMaxValueDepth), code_,
                 "{}: JSON nests deeper than {} levels", what_, kMaxValueDepth);
    open_.push_back({is_object, {}, {}, {}});
    return true;
  }

  bool put(Value v) {
    if (open_.empty())
      root_ = std::move(v);
    else if (open_.back().is_object)
      open_.back().dict.set(Value(open_.back().key), std::move(v));
    else
      open_.back().items.push_back(std::move(v));
    return true;
  }

  std::string_view what_;
  ErrorCode code_;
  Value root_;
  std::vector<Open> open_;
};

}  // namespace

Value parse_json(std::string_view json, std::string_view what, ErrorCode code) {
  Builder builder(what, code);
  nlohmann::json::sax_parse(json, &builder);
  return builder.take();
}

}  // namespace nibble::jinja
