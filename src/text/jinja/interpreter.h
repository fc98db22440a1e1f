// Runs a parsed template.
#pragma once

#include <string>
#include <string_view>

#include "text/jinja/ast.h"
#include "text/jinja/runtime.h"

namespace nibble::jinja {

// The rendered text. Throws kTemplate with "name:line".
std::string render(const Block& block, std::string_view name, const Variables& variables);

}  // namespace nibble::jinja
