// Llama 2, 3 and 3.1, and what shares their form (SmolLM2).
#pragma once

#include "models/registry.h"

namespace nibble {

extern const Architecture kLlama;

}  // namespace nibble
