#include "quantizer/row_loops.h"

namespace nibble {

const RowLoops& row_loops(const CpuFeatures&) { return kPortableRowLoops; }

}  // namespace nibble
