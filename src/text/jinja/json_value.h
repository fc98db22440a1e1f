// JSON text to template values.
#pragma once

#include <string_view>

#include "nibble/error.h"
#include "text/jinja/value.h"

namespace nibble::jinja {

// Keeps the order of keys; a key that comes twice has its last value, as in Python. Throws `code`,
// naming `what`, for anything that is not JSON, nests deeper than kMaxValueDepth or has an integer
// beyond 64 bits.
Value parse_json(std::string_view json, std::string_view what, ErrorCode code);

}  // namespace nibble::jinja
