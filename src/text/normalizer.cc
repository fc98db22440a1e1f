#include "text/normalizer.h"

#include <utf8proc.h>

#include "text/utf8.h"

namespace nibble::text {
namespace {

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = utf8::next(text, pos);
    if (c == 0x130) {  // the one character whose lower case is two
      out += "i\u0307";
    } else {
      utf8::append(out, static_cast<char32_t>(utf8proc_tolower(static_cast<int32_t>(c))));
    }
  }
  return out;
}

}  // namespace

Normalizer::Normalizer(const std::optional<JsonView>& json) {
  if (json) add(*json);
}

void Normalizer::add(const JsonView& json) {
  const std::string& type = json.at("type").string();
  if (type == "Sequence") {
    for (const JsonView& item : json.at("normalizers").items()) add(item);
  } else if (type == "NFC") {
    steps_.emplace_back(UnicodeForm::kNfc);
  } else if (type == "NFD") {
    steps_.emplace_back(UnicodeForm::kNfd);
  } else if (type == "NFKC") {
    steps_.emplace_back(UnicodeForm::kNfkc);
  } else if (type == "NFKD") {
    steps_.emplace_back(UnicodeForm::kNfkd);
  } else if (type == "Prepend") {
    steps_.emplace_back(Prepend{json.at("prepend").string()});
  } else if (type == "Replace") {
    steps_.emplace_back(Replace{Pattern(json.at("pattern")), json.at("content").string()});
  } else if (type == "Lowercase") {
    steps_.emplace_back(Lowercase{});
  } else {
    json.fail("unknown normalizer \"{}\"", type);
  }
}

std::string Normalizer::run(std::string text) const {
  const size_t max_bytes = 64 * text.size() + (1 << 20);
  for (const Step& step : steps_) {
    if (const auto* form = std::get_if<UnicodeForm>(&step)) {
      text = unicode_normalize(std::move(text), *form);
    } else if (const auto* prepend = std::get_if<Prepend>(&step)) {
      if (!text.empty()) text.insert(0, prepend->text);
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
      text = replace->pattern.replace(text, replace->by, max_bytes);
    } else {
      text = lowercase(text);
    }
  }
  return text;
}

}  // namespace nibble::text
