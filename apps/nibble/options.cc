#include "nibble/options.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "nibble/error.h"

namespace nibble::app {
namespace {

volatile std::sig_atomic_t interrupts = 0;

}  // namespace

void add_activation(CLI::App& command, const char* name, std::optional<ActivationMode>& activation,
                    const char* help) {
  std::vector<std::string> words = {"auto"};
  for (const ActivationMode mode : kActivationModes) words.emplace_back(to_string(mode));
  command
      .add_option_function<std::string>(
          name,
          [&activation](const std::string& word) {
            for (const ActivationMode mode : kActivationModes) {
              if (word == to_string(mode)) activation = mode;
            }
          },
          help)
      ->check(CLI::IsMember(words));
}

void ModelOptions::add_to(CLI::App& command) {
  command.add_option("model", model, "Model folder (config.json, *.safetensors)")->required();
  command.add_option("--threads", threads, "CPU threads (0: every core this process may use)")
      ->check(CLI::Range(0, 1024));
  add_activation(command, "--activation", activation, kActivationHelp);
  command.add_option("--context", context, "Context length (0: the model's)")
      ->check(CLI::NonNegativeNumber);
  command.add_flag("--json", json, "Print one JSON object on stdout");
}

EngineOptions ModelOptions::engine() const {
  return {.activation = activation, .context = context};
}

Device open_device(const std::string& name, int threads) {
  if (name == "cpu") return Device::cpu(threads);
  constexpr std::string_view kCuda = "cuda";
  if (name == kCuda) return Device::cuda(0);
  int index = 0;
  if (name.starts_with("cuda:")) {
    const char* end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data() + kCuda.size() + 1, end, index);
    if (error == std::errc() && rest == end && index >= 0) return Device::cuda(index);
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("--device: expected cpu, cuda or cuda:N, found '{}'", name));
}

std::pair<int64_t, int64_t> parse_shape(const std::string& text) {
  const char* const end = text.data() + text.size();
  std::pair<int64_t, int64_t> shape;
  const auto n = std::from_chars(text.data(), end, shape.first);
  if (n.ec == std::errc() && n.ptr != end && *n.ptr == 'x') {
    const auto k = std::from_chars(n.ptr + 1, end, shape.second);
    if (k.ec == std::errc() && k.ptr == end) return shape;
  }
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("--shape: expected NxK, such as 4096x4096, found '{}'", text));
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double peak_memory_mib() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;  // Linux counts in KiB
}

bool is_terminal(int fd) { return ::isatty(fd) == 1; }

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.good() && !file.eof()) {
    throw Error(ErrorCode::kIo, fmt::format("{}: can't read: {}", path, std::strerror(errno)));
  }
  return text;
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  if (!(file << text << std::flush)) {
    throw Error(ErrorCode::kIo, fmt::format("{}: can't write: {}", path, std::strerror(errno)));
  }
}

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = [](int) {
    if (interrupts != 0) ::_exit(130);
    interrupts = 1;
  };
  // No SA_RESTART: a read from the terminal ends with EINTR.
  ::sigaction(SIGINT, &action, nullptr);
}

bool interrupted() { return interrupts != 0; }
void clear_interrupt() { interrupts = 0; }

void print_json(const nlohmann::ordered_json& value) {
  fmt::print("{}\n", value.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace nibble::app
