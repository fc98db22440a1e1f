// Before a loop over an array of vectors: only when it is unrolled do they stay in registers.
#pragma once

#if defined(__clang__)
#define NIBBLE_UNROLL _Pragma("unroll")
#else
#define NIBBLE_UNROLL _Pragma("GCC unroll 32")
#endif
