#include "text/pre_tokenizer.h"

#include <algorithm>

#include "text/utf8.h"

namespace nibble::text {
namespace {

// GPT-2's pattern (openai/gpt-2, src/encoder.py), which "ByteLevel" stands for.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace

PreTokenizer::PreTokenizer(const std::optional<JsonView>& json) {
  if (json) add(*json);
}

void PreTokenizer::add(const JsonView& json) {
  if (byte_level_) json.fail("a pre-tokenizer behind ByteLevel is not supported");
  const std::string& type = json.at("type").string();
  if (type == "Sequence") {
    for (const JsonView& item : json.at("pretokenizers").items()) add(item);
  } else if (type == "Split") {
    add_split(json);
  } else if (type == "Digits") {
    const bool each = json.boolean_or("individual_digits", false);
    stages_.emplace_back(Split{Pattern(Regex("\\p{N}", json.where())),
                               each ? Behavior::kIsolated : Behavior::kContiguous});
  } else if (type == "ByteLevel") {
    if (json.boolean_or("add_prefix_space", true)) {
      stages_.emplace_back(Mark{Mark::Where::kAlways, " "});
    }
    if (json.boolean_or("use_regex", true)) {
      stages_.emplace_back(Split{Pattern(Regex::from_tokenizer_json(kGpt2Pattern, json.where()))});
    }
    byte_level_ = true;
  } else if (type == "Metaspace") {
    add_metaspace(json);
  } else if (type == "Whitespace") {
    const std::string pattern = fmt::format("[{0}]+|[^{0}\\p{{White_Space}}]+", kRustWord);
    stages_.emplace_back(Split{Pattern(Regex(pattern, json.where())), Behavior::kRemoved, true});
  } else if (type == "WhitespaceSplit") {
    stages_.emplace_back(
        Split{Pattern(Regex("\\p{White_Space}", json.where())), Behavior::kRemoved});
  } else {
    json.fail("unknown pre-tokenizer \"{}\"", type);
  }
}

void PreTokenizer::add_split(const JsonView& json) {
  constexpr std::pair<std::string_view, Behavior> kBehaviors[] = {
      {"Isolated", Behavior::kIsolated},
      {"Removed", Behavior::kRemoved},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  const std::string& name = json.at("behavior").string();
  const auto* it = std::find_if(std::begin(kBehaviors), std::end(kBehaviors),
                                [&](const auto& b) { return b.first == name; });
  if (it == std::end(kBehaviors)) json.fail("unknown behavior \"{}\"", name);
  stages_.emplace_back(
      Split{Pattern(json.at("pattern")), it->second, json.boolean_or("invert", false)});
}

void PreTokenizer::add_metaspace(const JsonView& json) {
  const std::string& replacement = json.at("replacement").string();
  size_t length = 0;
  if (!replacement.empty()) utf8::next(replacement, length);
  if (replacement.empty() || length != replacement.size()) {
    json.fail("replacement is \"{}\", expected one character", replacement);
  }
  const auto scheme = json.find("prepend_scheme");
  const std::string& name = scheme ? scheme->string() : "always";
  Mark mark{Mark::Where::kAlways, replacement};
  if (name == "never") {
    mark.where = Mark::Where::kNever;
  } else if (name == "first") {
    mark.where = Mark::Where::kFirst;
  } else if (name != "always") {
    json.fail("unknown prepend_scheme \"{}\"", name);
  }
  if (name != "never" && !json.boolean_or("add_prefix_space", true)) {
    json.fail("add_prefix_space is false, but prepend_scheme is \"{}\"", name);
  }
  stages_.emplace_back(std::move(mark));
  if (json.boolean_or("split", true)) {
    stages_.emplace_back(Split{Pattern(replacement), Behavior::kMergedWithNext});
  }
}

Words PreTokenizer::split(Words in, const Split& stage) {
  std::vector<Words::Word> out;
  out.reserve(in.words.size());
  for (const Words::Word& word : in.words) {
    auto parts = stage.pattern.cut(in.view(word));
    for (auto& part : parts) part.is_match ^= stage.invert;

    // Joins parts[i] to the part that came before it in this direction.
    const size_t first = out.size();
    const auto join = [&](const Pattern::Part& part) {
      out.back().begin = std::min(out.back().begin, word.begin + part.begin);
      out.back().end = std::max(out.back().end, word.begin + part.end);
    };
    const auto push = [&](const Pattern::Part& part) {
      out.push_back({word.begin + part.begin, word.begin + part.end});
    };
    const auto push_or_join = [&](auto begin, auto end, auto joins) {
      bool previous = false;
      for (auto it = begin; it != end; ++it) {
        if (joins(it->is_match, previous) && out.size() > first) {
          join(*it);
        } else {
          push(*it);
        }
        previous = it->is_match;
      }
    };
    const auto match_behind_other = [](bool match, bool previous) { return match && !previous; };
    switch (stage.behavior) {
      case Behavior::kIsolated:
        for (const auto& part : parts) push(part);
        break;
      case Behavior::kRemoved:
        for (const auto& part : parts) {
          if (!part.is_match) push(part);
        }
        break;
      case Behavior::kContiguous:
        push_or_join(parts.begin(), parts.end(), std::equal_to<bool>());
        break;
      case Behavior::kMergedWithPrevious:
        push_or_join(parts.begin(), parts.end(), match_behind_other);
        break;
      case Behavior::kMergedWithNext:
        push_or_join(parts.rbegin(), parts.rend(), match_behind_other);
        std::reverse(out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
        break;
    }
    const auto kept = std::remove_if(out.begin() + static_cast<std::ptrdiff_t>(first), out.end(),
                                     [](const Words::Word& w) { return w.begin == w.end; });
    out.erase(kept, out.end());
    if (out.size() > first) {
      out[first].at_start = word.at_start && out[first].begin == word.begin;
    }
  }
  in.words = std::move(out);
  return in;
}

Words PreTokenizer::mark(const Words& in, const Mark& stage) {
  Words out;
  out.text.reserve(in.text.size() + in.text.size() / 4);
  out.words.reserve(in.words.size());
  for (const Words::Word& word : in.words) {
    const size_t begin = out.text.size();
    for (const char c : in.view(word)) {
      if (c == ' ') {
        out.text += stage.mark;
      } else {
        out.text += c;
      }
    }
    const bool wanted = stage.where == Mark::Where::kAlways ||
                        (stage.where == Mark::Where::kFirst && word.at_start);
    if (wanted && out.text.compare(begin, stage.mark.size(), stage.mark) != 0) {
      out.text.insert(begin, stage.mark);
    }
    out.words.push_back({begin, out.text.size(), word.at_start});
  }
  return out;
}

Words PreTokenizer::run(std::string text, bool at_start) const {
  Words words;
  words.words.push_back({0, text.size(), at_start});
  if (text.empty()) words.words.clear();
  words.text = std::move(text);
  for (const Stage& stage : stages_) {
    if (const auto* s = std::get_if<Split>(&stage)) {
      words = split(std::move(words), *s);
    } else {
      words = mark(words, std::get<Mark>(stage));
    }
  }
  return words;
}

}  // namespace nibble::text
