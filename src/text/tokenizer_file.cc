#include "text/tokenizer_file.h"

#include <limits>
#include <nlohmann/json.hpp>

namespace nibble::text {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 32;

// nlohmann's SAX events. Inside model.vocab and model.merges they fill the flat arrays (with
// `file`), everywhere else they build a DOM.
class Reader {
 public:
  Reader(TokenizerFile* file, std::string_view source) : file_(file), source_(source) {}

  json take_root() { return std::move(root_); }

  bool null() { return value(nullptr); }
  bool boolean(bool b) { return value(b); }
  bool number_integer(int64_t n) { return value(n); }
  bool number_float(double x, const std::string&) { return value(x); }
  bool binary(json::binary_t&) { return true; }
  bool number_unsigned(uint64_t n) {
    if (where_ != Where::kVocab) return value(n);
    NIBBLE_CHECK(n < std::numeric_limits<int32_t>::max(), ErrorCode::kTokenizer,
                 "{}: model.vocab: the id of \"{}\" is {}, beyond 31 bits", source_,
                 file_->text(token_), n);
    file_->vocab.push_back({token_, static_cast<uint32_t>(n)});
    return true;
  }
  bool string(std::string& s) {
    if (where_ != Where::kMerges) return value(std::move(s));
    if (in_pair_) {
      NIBBLE_CHECK(pair_size_ < 2, ErrorCode::kTokenizer,
                   "{}: model.merges: merge {} has more than two parts", source_,
                   file_->merges.size());
      pair_[pair_size_++] = add_text(s);
      return true;
    }
    // Files converted from merges.txt may keep its first line.
    if (s.starts_with("#version")) return true;
    const size_t space = s.find(' ');
    NIBBLE_CHECK(space != std::string::npos && s.find(' ', space + 1) == std::string::npos,
                 ErrorCode::kTokenizer,
                 "{}: model.merges: merge {} is \"{}\", expected two tokens and one space", source_,
                 file_->merges.size(), s);
    const TokenizerFile::Span all = add_text(s);
    const auto left = static_cast<uint32_t>(space);
    file_->merges.push_back({{all.offset, left}, {all.offset + left + 1, all.length - left - 1}});
    return true;
  }
  bool key(std::string& k) {
    if (where_ == Where::kVocab) {
      token_ = add_text(k);
    } else {
      key_ = std::move(k);
    }
    return true;
  }

  bool start_object(size_t) {
    if (where_ != Where::kRest) bad_type("an object");
    if (file_ != nullptr && at_model_key("vocab")) {
      NIBBLE_CHECK(!file_->has_vocab, ErrorCode::kTokenizer, "{}: model.vocab appears twice",
                   source_);
      file_->has_vocab = true;
      where_ = Where::kVocab;
      return true;
    }
    return open(json::object());
  }
  bool end_object() { return close(); }
  bool start_array(size_t) {
    if (where_ == Where::kMerges && !in_pair_) {
      in_pair_ = true;
      pair_size_ = 0;
      return true;
    }
    if (where_ != Where::kRest) bad_type("an array");
    if (file_ != nullptr && at_model_key("merges")) {
      NIBBLE_CHECK(!file_->has_merges, ErrorCode::kTokenizer, "{}: model.merges appears twice",
                   source_);
      file_->has_merges = true;
      where_ = Where::kMerges;
      return true;
    }
    return open(json::array());
  }
  bool end_array() {
    if (!in_pair_) return close();
    in_pair_ = false;
    NIBBLE_CHECK(pair_size_ == 2, ErrorCode::kTokenizer,
                 "{}: model.merges: merge {} has {} parts, expected 2", source_,
                 file_->merges.size(), pair_size_);
    file_->merges.push_back({pair_[0], pair_[1]});
    return true;
  }

  bool parse_error(size_t position, const std::string&, const json::exception& e) {
    fail(ErrorCode::kTokenizer, "{}: not valid JSON at byte {}: {}", source_, position, e.what());
  }

 private:
  enum class Where { kRest, kVocab, kMerges };

  bool at_model_key(std::string_view key) const {
    return stack_.size() == 2 && model_ == stack_[1] && key_ == key;
  }

  TokenizerFile::Span add_text(std::string_view s) {
    const TokenizerFile::Span span{static_cast<uint32_t>(file_->arena.size()),
                                   static_cast<uint32_t>(s.size())};
    file_->arena.append(s);
    return span;
  }

  [[noreturn]] void bad_type(std::string_view found) const {
    if (where_ == Where::kVocab) {
      fail(ErrorCode::kTokenizer, "{}: model.vocab: \"{}\": expected an id, found {}", source_,
           file_->text(token_), found);
    }
    fail(ErrorCode::kTokenizer, "{}: model.merges: merge {}: expected strings, found {}", source_,
         file_->merges.size(), found);
  }

  json* insert(json v) {
    if (stack_.empty()) {
      root_ = std::move(v);
      return &root_;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(v));
      return &parent.back();
    }
    const auto [it, is_new] = parent.emplace(key_, std::move(v));
    NIBBLE_CHECK(is_new, ErrorCode::kTokenizer, "{}: the key \"{}\" appears twice", source_, key_);
    return &*it;
  }

  bool value(json v) {
    if (where_ != Where::kRest) bad_type(v.type_name());
    insert(std::move(v));
    return true;
  }

  bool open(json container) {
    NIBBLE_CHECK(stack_.size() < kMaxDepth, ErrorCode::kTokenizer,
                 "{}: nested deeper than {} levels", source_, kMaxDepth);
    const bool is_model = stack_.size() == 1 && stack_[0]->is_object() && key_ == "model";
    // A pointer into a parent array stays good while its child is open: nothing is added meanwhile.
    stack_.push_back(insert(std::move(container)));
    if (is_model) model_ = stack_.back();
    return true;
  }

  bool close() {
    if (where_ != Where::kRest) {
      where_ = Where::kRest;
    } else {
      stack_.pop_back();
    }
    return true;
  }

  TokenizerFile* file_;
  std::string_view source_;
  json root_;
  std::vector<json*> stack_;
  const json* model_ = nullptr;
  std::string key_;
  Where where_ = Where::kRest;
  TokenizerFile::Span token_;
  bool in_pair_ = false;
  size_t pair_size_ = 0;
  TokenizerFile::Span pair_[2];
};

}  // namespace

TokenizerFile parse_tokenizer_file(std::string_view text, std::string_view source) {
  NIBBLE_CHECK(text.size() < std::numeric_limits<uint32_t>::max(), ErrorCode::kTokenizer,
               "{}: {} bytes, more than 4 GiB", source, text.size());
  TokenizerFile file;
  file.source = source;
  file.arena.reserve(text.size() / 2);
  Reader reader(&file, source);
  json::sax_parse(text, &reader);
  file.rest = std::make_shared<const json>(reader.take_root());
  NIBBLE_CHECK(file.rest->is_object(), ErrorCode::kTokenizer, "{}: expected an object, found {}",
               source, file.rest->type_name());
  return file;
}

json parse_json(std::string_view text, std::string_view source) {
  Reader reader(nullptr, source);
  json::sax_parse(text, &reader);
  return reader.take_root();
}

}  // namespace nibble::text
