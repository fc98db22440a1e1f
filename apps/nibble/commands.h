// The commands of the `nibble` program. Each add_ function describes one command's options and sets
// `run` to its body when the user picks it; the body returns the exit code.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace nibble::app {

using Command = std::function<int()>;

void add_run(CLI::App& app, Command& run);
void add_quantize(CLI::App& app, Command& run);
void add_inspect(CLI::App& app, Command& run);
void add_eval(CLI::App& app, Command& run);
void add_bench(CLI::App& app, Command& run);
void add_selftest(CLI::App& app, Command& run);
void add_tune(CLI::App& app, Command& run);

}  // namespace nibble::app
