#include "nibble/error.h"

namespace nibble {

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid argument";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kCheckpoint:
      return "checkpoint";
    case ErrorCode::kTokenizer:
      return "tokenizer";
    case ErrorCode::kTemplate:
      return "chat template";
    case ErrorCode::kContextFull:
      return "context full";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kDevice:
      return "device";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "unknown";
}

}  // namespace nibble
