// Qwen3, the dense models: Llama with a norm on every head of q and k.
#pragma once

#include "models/registry.h"

namespace nibble {

extern const Architecture kQwen3;

}  // namespace nibble
