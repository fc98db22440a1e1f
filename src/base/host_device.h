// Marks a function that is compiled for host and device alike.
#pragma once

#ifdef __CUDACC__
#define NIBBLE_HD __host__ __device__
#else
#define NIBBLE_HD
#endif
