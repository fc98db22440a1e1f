#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <queue>

#include "text/utf8.h"

namespace nibble::text {
namespace {

// Below this many symbols, looking for the best pair anew after each merge beats a heap.
constexpr size_t kShortWord = 32;

constexpr uint32_t kNoRank = std::numeric_limits<uint32_t>::max();

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// Fibonacci hashing: the high bits of a product with 2^64 / golden ratio.
size_t hash(uint64_t pair, int shift) {
  return static_cast<size_t>((pair ^ (pair >> 29)) * 0x9E3779B97F4A7C15u >> shift);
}

}  // namespace

Bpe::Bpe(const TokenizerFile& file) {
  const JsonView model = file.root().at("model");
  if (const auto type = model.find("type"); type && type->string() != "BPE") {
    model.fail("unknown model \"{}\", only BPE is supported", type->string());
  }
  if (!file.has_vocab) model.fail("\"vocab\" is missing");
  if (!file.has_merges) model.fail("\"merges\" is missing");
  vocab_ = Vocab(file);
  read_flags(model);
  add_merges(file);
  for (char32_t c = 0; c < char_ids_.size(); ++c) {
    std::string spelled;
    utf8::append(spelled, c);
    char_ids_[c] = vocab_.find(spelled);
  }
  for (size_t b = 0; b < 256; ++b) byte_ids_[b] = vocab_.find(fmt::format("<0x{:02X}>", b));
}

void Bpe::read_flags(const JsonView& model) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const auto affix = model.find(key); affix && !affix->string().empty()) {
      model.fail("{} is \"{}\", which is not supported", key, affix->string());
    }
  }
  if (const auto dropout = model.find("dropout"); dropout && !dropout->is_zero()) {
    model.fail("dropout is not supported: the same text would give other ids each time");
  }
  fuse_unk_ = model.boolean_or("fuse_unk", false);
  byte_fallback_ = model.boolean_or("byte_fallback", false);
  ignore_merges_ = model.boolean_or("ignore_merges", false);
  if (const auto unk = model.find("unk_token")) {
    unk_id_ = vocab_.find(unk->string());
    if (unk_id_ == Vocab::kNone) unk->fail("\"{}\" is not in the vocabulary", unk->string());
  }
}

void Bpe::add_merges(const TokenizerFile& file) {
  const size_t capacity = std::bit_ceil(2 * file.merges.size() + 2);
  merges_.resize(capacity);
  merges_shift_ = 64 - std::countr_zero(capacity);
  std::string whole;
  for (size_t rank = 0; rank < file.merges.size(); ++rank) {
    const auto& merge = file.merges[rank];
    const auto id_of = [&](std::string_view token) {
      const int32_t id = vocab_.find(token);
      NIBBLE_CHECK(
          id != Vocab::kNone, ErrorCode::kTokenizer,
          "{}: model.merges: merge {}, \"{}\" with \"{}\", needs the token \"{}\", which is "
          "not in the vocabulary",
          file.source, rank, file.text(merge.left), file.text(merge.right), token);
      return id;
    };
    whole.assign(file.text(merge.left)).append(file.text(merge.right));
    const uint64_t pair = pair_of(id_of(file.text(merge.left)), id_of(file.text(merge.right)));
    size_t slot = hash(pair, merges_shift_);
    while (merges_[slot].pair != Merge::kEmpty && merges_[slot].pair != pair) {
      slot = (slot + 1) & (capacity - 1);
    }
    // Of a merge that is listed twice, the later rank counts, as in `tokenizers`.
    merges_[slot] = {pair, static_cast<uint32_t>(rank), id_of(whole)};
  }
}

const Bpe::Merge* Bpe::find(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  for (size_t slot = hash(pair, merges_shift_);; slot = (slot + 1) & (merges_.size() - 1)) {
    if (merges_[slot].pair == pair) return &merges_[slot];
    if (merges_[slot].pair == Merge::kEmpty) return nullptr;
  }
}

int32_t Bpe::char_id(std::string_view spelled, char32_t c) const {
  return c < char_ids_.size() ? char_ids_[c] : vocab_.find(spelled);
}

// One symbol per character that the vocabulary has; for others their bytes, or the unknown token.
std::vector<int32_t> Bpe::symbols(std::string_view word) const {
  std::vector<int32_t> ids;
  ids.reserve(word.size());
  bool unk_waits = false;
  for (size_t pos = 0; pos < word.size();) {
    const size_t begin = pos;
    const char32_t c = utf8::next(word, pos);
    const std::string_view spelled = word.substr(begin, pos - begin);
    const int32_t id = char_id(spelled, c);
    if (id != Vocab::kNone) {
      if (unk_waits) ids.push_back(unk_id_);
      unk_waits = false;
      ids.push_back(id);
      continue;
    }
    const auto byte_id = [&](char b) { return byte_ids_[static_cast<uint8_t>(b)]; };
    if (byte_fallback_ && std::all_of(spelled.begin(), spelled.end(),
                                      [&](char b) { return byte_id(b) != Vocab::kNone; })) {
      // An unknown token that waits stays behind these bytes: `tokenizers` does so.
      for (const char b : spelled) ids.push_back(byte_id(b));
      continue;
    }
    if (unk_id_ == Vocab::kNone) continue;
    if (unk_waits && !fuse_unk_) ids.push_back(unk_id_);
    unk_waits = true;
  }
  if (unk_waits) ids.push_back(unk_id_);
  return ids;
}

void Bpe::merge_short(std::vector<int32_t>& ids) const {
  struct Pair {
    uint32_t rank = kNoRank;
    int32_t id = 0;
  };
  Pair pairs[kShortWord];  // pairs[i] is that of ids[i] and ids[i + 1]
  size_t n = ids.size();
  const auto look_up = [&](size_t i) {
    const Merge* merge = find(ids[i], ids[i + 1]);
    pairs[i] = merge != nullptr ? Pair{merge->rank, merge->id} : Pair{};
  };
  for (size_t i = 0; i + 1 < n; ++i) look_up(i);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == kNoRank) break;
    ids[best] = pairs[best].id;
    for (size_t i = best + 1; i + 1 < n; ++i) {
      ids[i] = ids[i + 1];
      pairs[i] = pairs[i + 1];
    }
    --n;
    if (best > 0) look_up(best - 1);
    if (best + 1 < n) look_up(best);
  }
  ids.resize(n);
}

void Bpe::merge_long(std::vector<int32_t>& ids) const {
  constexpr int32_t kEnd = -1;
  constexpr int32_t kGone = -2;  // as an id: merged into the symbol to its left
  struct Candidate {
    uint32_t rank;
    int32_t id;
    size_t left;
    // std::priority_queue is a max-heap: the lowest rank, then the leftmost, is the greatest.
    bool operator<(const Candidate& o) const {
      return rank != o.rank ? rank > o.rank : left > o.left;
    }
  };
  const size_t n = ids.size();
  NIBBLE_CHECK(n < static_cast<size_t>(std::numeric_limits<int32_t>::max()),
               ErrorCode::kInvalidArgument, "a word of {} symbols is too long to encode", n);
  struct Links {
    int32_t previous, next;
  };
  std::vector<Links> links(n);
  std::vector<Candidate> candidates;
  candidates.reserve(n);
  for (size_t i = 0; i < n; ++i) {
    links[i] = {static_cast<int32_t>(i) - 1, i + 1 < n ? static_cast<int32_t>(i) + 1 : kEnd};
    if (i + 1 == n) break;
    if (const Merge* m = find(ids[i], ids[i + 1])) candidates.push_back({m->rank, m->id, i});
  }
  std::priority_queue queue(std::less<Candidate>(), std::move(candidates));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const int32_t next = links[top.left].next;
    if (ids[top.left] == kGone || next == kEnd) continue;
    const auto right = static_cast<size_t>(next);
    const Merge* merge = find(ids[top.left], ids[right]);
    if (merge == nullptr || merge->id != top.id) continue;  // outdated: a neighbour has merged

    ids[top.left] = top.id;
    ids[right] = kGone;
    const int32_t after = links[right].next;
    const int32_t before = links[top.left].previous;
    links[top.left].next = after;
    if (after != kEnd) {
      links[static_cast<size_t>(after)].previous = static_cast<int32_t>(top.left);
      const Merge* m = find(top.id, ids[static_cast<size_t>(after)]);
      if (m != nullptr) queue.push({m->rank, m->id, top.left});
    }
    if (before != kEnd) {
      const Merge* m = find(ids[static_cast<size_t>(before)], top.id);
      if (m != nullptr) queue.push({m->rank, m->id, static_cast<size_t>(before)});
    }
  }
  std::erase(ids, kGone);
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& out) const {
  if (ignore_merges_) {
    if (const int32_t id = vocab_.find(word); id != Vocab::kNone) {
      out.push_back(id);
      return;
    }
  }
  std::vector<int32_t> ids = symbols(word);
  if (ids.size() <= kShortWord) {
    merge_short(ids);
  } else {
    merge_long(ids);
  }
  out.insert(out.end(), ids.begin(), ids.end());
}

}  // namespace nibble::text
