#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>

#include "nibble/commands.h"
#include "nibble/error.h"
#include "nibble/log.h"

namespace {

// NIBBLE_VERBOSE=1 shows the library's messages, the choice of every kernel among them.
void show_log() {
  const char* verbose = std::getenv("NIBBLE_VERBOSE");
  if (verbose == nullptr || *verbose == '\0' || std::string(verbose) == "0") return;
  auto logger = spdlog::stderr_color_mt("nibble");
  logger->set_pattern("[%T.%e] %v");
  logger->set_level(spdlog::level::trace);
  nibble::set_log_sink([logger](nibble::LogLevel level, std::string_view message) {
    logger->log(level == nibble::LogLevel::kWarning ? spdlog::level::warn
                : level == nibble::LogLevel::kInfo  ? spdlog::level::info
                                                    : spdlog::level::trace,
                "{}", message);
  });
}

// Bad input is 1, a wrong command line 2.
int fail(std::string_view kind, std::string_view message) {
  fmt::print(stderr, "nibble: {}: {}\n", kind, message);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Runs, quantizes and examines models with 4-bit block-scaled weights.", "nibble");
  app.set_version_flag("--version", NIBBLE_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Environment: NIBBLE_FORCE_IMPL=op=name,... picks implementations, NIBBLE_VERBOSE=1 shows "
      "every choice.");
  nibble::app::Command run;
  nibble::app::add_run(app, run);
  nibble::app::add_quantize(app, run);
  nibble::app::add_inspect(app, run);
  nibble::app::add_eval(app, run);
  nibble::app::add_bench(app, run);
  nibble::app::add_selftest(app, run);
  nibble::app::add_tune(app, run);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  try {
    show_log();
    return run();
  } catch (const nibble::Error& e) {
    return fail(nibble::to_string(e.code()), e.what());
  } catch (const std::bad_alloc&) {
    return fail("memory", "out of memory");
  } catch (const std::exception& e) {
    return fail("internal", e.what());
  }
}
