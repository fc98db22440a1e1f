// Options that several commands share, and small things about the process.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>

#include "nibble/engine.h"

namespace CLI {
class App;
}

namespace nibble::app {

// An option that takes the word of an activation mode; "auto" leaves the mode unset.
void add_activation(CLI::App& command, const char* name, std::optional<ActivationMode>& activation,
                    const char* help);
inline constexpr const char* kActivationHelp =
    "What GEMMs do to activations; auto is the device's default";

struct ModelOptions {
  std::string model;
  std::optional<ActivationMode> activation;
  int threads = 0;
  int64_t context = 0;
  bool json = false;

  void add_to(CLI::App& command);
  Device device() const { return Device::cpu(threads); }
  EngineOptions engine() const;
};

// "cpu", "cuda" or "cuda:1". Throws kInvalidArgument for any other name, kDevice where it is
// missing.
Device open_device(const std::string& name, int threads);

// n and k of a --shape like "18432x7168". Throws kInvalidArgument for anything else.
std::pair<int64_t, int64_t> parse_shape(const std::string& text);

double seconds_now();      // monotonic
double peak_memory_mib();  // resident, mapped file pages included
bool is_terminal(int fd);
std::string read_file(const std::string& path);                     // throws kIo
void write_file(const std::string& path, const std::string& text);  // throws kIo

// True once Ctrl-C was pressed. The second one ends the process.
void catch_interrupts();
bool interrupted();
void clear_interrupt();

// One JSON value on stdout, strings that are not UTF-8 repaired.
void print_json(const nlohmann::ordered_json& value);

}  // namespace nibble::app
