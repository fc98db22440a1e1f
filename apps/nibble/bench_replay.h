// `nibble bench replay`: how well the cost model chooses on published timings.
#pragma once

#include "nibble/bench.h"

namespace CLI {
class App;
}

namespace nibble::app {

void add_replay(CLI::App& bench, ReplayOptions& options);
int run_replay(const ReplayOptions& options, bool json);

}  // namespace nibble::app
