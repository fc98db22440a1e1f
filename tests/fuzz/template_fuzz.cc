// Any bytes as a chat template, rendered with a fixed conversation.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "nibble/chat_template.h"
#include "nibble/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static constexpr std::string_view kVariables = R"({
    "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Gr\u00fc\u00dfe"},
                 {"role": "assistant", "content": "<think>a</think>b",
                  "tool_calls": [{"id": "abcdefghi", "function": {"name": "f", "arguments": {"x": [1.5, null]}}}]},
                 {"role": "tool", "content": "42", "tool_call_id": "abcdefghi"}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>", "xs": [3, 1, 2]})";
  try {
    const auto chat_template = nibble::ChatTemplate::parse(
        std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
    chat_template.render_json(kVariables);
  } catch (const nibble::Error&) {
  }
  return 0;
}
