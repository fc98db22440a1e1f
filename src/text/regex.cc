#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>

#include "base/check.h"

namespace nibble::text {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
constexpr size_t kJitStackBytes = 32 << 20;
constexpr uint32_t kHeapKiB = 64 << 10;

// PCRE2's working memory, one per thread: a block and a stack per search would cost more than the
// search.
struct Scratch {
  Scratch()
      : context(pcre2_match_context_create(nullptr)),
        data(pcre2_match_data_create(1, nullptr)),
        stack(pcre2_jit_stack_create(64 << 10, kJitStackBytes, nullptr)) {
    if (context == nullptr || data == nullptr) return;
    pcre2_set_heap_limit(context, kHeapKiB);
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  pcre2_match_context* context;
  pcre2_match_data* data;
  pcre2_jit_stack* stack;
};

std::string message(int code) {
  PCRE2_UCHAR buffer[160];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

Regex::Regex(std::string_view pattern, std::string_view where) : where_(where) {
  NIBBLE_CHECK(pattern.size() <= kMaxPatternBytes, ErrorCode::kTokenizer,
               "{}: the pattern has {} bytes, more than {}", where, pattern.size(),
               kMaxPatternBytes);
  std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  NIBBLE_ASSERT(context != nullptr);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  size_t offset = 0;
  // MULTILINE: in Ruby's syntax ^ and $ always mean lines.
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context.get());
  NIBBLE_CHECK(code != nullptr, ErrorCode::kTokenizer, "{}: bad pattern \"{}\" at byte {}: {}",
               where, pattern, offset, message(error));
  code_ =
      std::shared_ptr<void>(code, [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); });
  // Where there is no JIT (its result is not needed), pcre2_match interprets.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
}

Regex Regex::from_tokenizer_json(std::string_view pattern, std::string_view where) {
  return Regex(translate_pattern(pattern, where), where);
}

std::optional<Regex::Match> Regex::search(std::string_view text, size_t from) const {
  thread_local const Scratch scratch;
  NIBBLE_CHECK(scratch.context != nullptr && scratch.data != nullptr, ErrorCode::kInternal,
               "no memory for a regular expression");
  pcre2_set_match_limit(
      scratch.context, static_cast<uint32_t>(100'000 + 4 * std::min<size_t>(text.size(), 1 << 28)));
  const int rc = pcre2_match(static_cast<const pcre2_code*>(code_.get()),
                             reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                             PCRE2_NO_UTF_CHECK, scratch.data, scratch.context);
  if (rc == PCRE2_ERROR_NOMATCH) return std::nullopt;
  NIBBLE_CHECK(rc >= 0, ErrorCode::kTokenizer,
               "{}: the pattern gave up at byte {} of a text of {} bytes: {}", where_, from,
               text.size(), message(rc));
  const size_t* span = pcre2_get_ovector_pointer(scratch.data);
  return Match{span[0], span[1]};
}

}  // namespace nibble::text
