#include "text/pattern.h"

#include "text/utf8.h"

namespace nibble::text {
namespace {

std::variant<std::string, Regex> read(const JsonView& json) {
  if (const auto literal = json.find("String")) {
    if (literal->string().empty()) literal->fail("the pattern is empty");
    return literal->string();
  }
  if (const auto regex = json.find("Regex")) {
    return Regex::from_tokenizer_json(regex->string(), regex->where());
  }
  json.fail("expected {{\"String\": ...}} or {{\"Regex\": ...}}");
}

std::optional<Regex::Match> search(const std::string& literal, std::string_view text, size_t from) {
  const size_t begin = text.find(literal, from);
  if (begin == std::string_view::npos) return std::nullopt;
  return Regex::Match{begin, begin + literal.size()};
}

std::optional<Regex::Match> search(const Regex& regex, std::string_view text, size_t from) {
  return regex.search(text, from);
}

}  // namespace

Pattern::Pattern(const JsonView& json) : what_(read(json)) {}

std::vector<Pattern::Part> Pattern::cut(std::string_view text) const {
  std::vector<Part> parts;
  if (text.empty()) return parts;
  const auto collect = [&](const auto& what) {
    size_t done = 0;
    size_t from = 0;
    while (from <= text.size()) {
      const auto match = search(what, text, from);
      if (!match) break;
      from = match->end;
      if (match->begin == match->end) {
        const bool behind_match = !parts.empty() && match->end == done;
        if (from < text.size() && behind_match) {
          utf8::next(text, from);
          continue;
        }
        if (behind_match) break;
      }
      if (done < match->begin) parts.push_back({done, match->begin, false});
      parts.push_back({match->begin, match->end, true});
      done = match->end;
    }
    if (done < text.size()) parts.push_back({done, text.size(), false});
  };
  std::visit(collect, what_);
  return parts;
}

std::string Pattern::replace(std::string_view text, std::string_view by, size_t max_bytes) const {
  std::string out;
  for (const Part& part : cut(text)) {
    const std::string_view piece =
        part.is_match ? by : text.substr(part.begin, part.end - part.begin);
    NIBBLE_CHECK(piece.size() <= max_bytes - out.size(), ErrorCode::kTokenizer,
                 "replacing by \"{}\" grows a text of {} bytes beyond {}", by.substr(0, 64),
                 text.size(), max_bytes);
    out += piece;
  }
  return out;
}

}  // namespace nibble::text
