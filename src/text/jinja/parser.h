// Tokens to a syntax tree; unknown statements, filters, tests, functions and methods are refused
// here, before anything is rendered.
#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace nibble::jinja {

// Throws kTemplate with "name:line" and the unknown or malformed thing.
Block parse(std::string_view source, std::string_view name);

}  // namespace nibble::jinja
