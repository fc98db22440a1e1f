// The one exception type that Nibble throws. The library never prints and never aborts.
#pragma once

#include <stdexcept>
#include <string>

namespace nibble {

enum class ErrorCode {
  kInvalidArgument,  // a caller's argument is wrong: shape, pointer, option
  kUnsupported,      // well-formed, but no implementation takes it; the message lists every refusal
  kCheckpoint,       // a model folder is malformed: config, safetensors header, tensor, scales
  kTokenizer,    // tokenizer.json / tokenizer_config.json is malformed or uses an unknown feature
  kTemplate,     // a chat template is malformed, uses an unknown feature, or raised an exception
  kContextFull,  // more tokens than the model's or the cache's context length
  kIo,           // the operating system refused: open, read, write, full disk; message has strerror
  kCancelled,    // the caller asked to stop
  kDevice,       // the accelerator failed or is missing
  kInternal,     // a bug in Nibble
};

// "checkpoint", "io", ... : the word the command line prints before the message.
const char* to_string(ErrorCode code);

// what() names the thing (file, tensor, argument), what was expected and what was found.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace nibble
