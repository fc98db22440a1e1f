#include "dispatch/tuning.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/env.h"
#include "base/log.h"

namespace nibble {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormatVersion = 1;

constexpr std::pair<const char*, int KernelConfig::*> kConfigFields[] = {
    {"tile_m", &KernelConfig::tile_m},      {"tile_n", &KernelConfig::tile_n},
    {"tile_k", &KernelConfig::tile_k},      {"stages", &KernelConfig::stages},
    {"split_k", &KernelConfig::split_k},    {"cluster", &KernelConfig::cluster},
    {"rest_m", &KernelConfig::rest_m},      {"rest_n", &KernelConfig::rest_n},
    {"algorithm", &KernelConfig::algorithm}};

Json to_json(const TunedChoice& c) {
  Json config = Json::object();
  for (const auto& [name, member] : kConfigFields) {
    if (c.config.*member != 0) config[name] = c.config.*member;
  }
  return {{"op", c.op}, {"desc", c.desc},         {"impl", c.impl},   {"config", config},
          {"us", c.us}, {"model_us", c.model_us}, {"noise", c.noise}, {"used", c.pays()}};
}

TunedChoice choice_from(const Json& json) {
  TunedChoice c{json.at("op"), json.at("desc"),     json.at("impl"), {},
                json.at("us"), json.at("model_us"), json.at("noise")};
  const Json& config = json.at("config");
  for (const auto& [name, member] : kConfigFields) c.config.*member = config.value(name, 0);
  return c;
}

Json to_json(const TuningKey& key) {
  return {{"device", key.device}, {"driver", key.driver}, {"version", key.version}};
}

[[noreturn]] void fail_io(const std::filesystem::path& path, const char* what) {
  fail(ErrorCode::kIo, "{}: can't {}: {}", path.string(), what, std::strerror(errno));
}

}  // namespace

TuningKey tuning_key(const DeviceInfo& device) {
  if (device.kind == DeviceKind::kCuda) return {device.name, device.driver, NIBBLE_VERSION};
  return {fmt::format("{}, {} threads", device.name, device.threads), device.driver,
          NIBBLE_VERSION};
}

TuningTable TuningTable::read(const std::filesystem::path& path, const TuningKey& key) {
  TuningTable table(key);
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    if (std::error_code error; !std::filesystem::exists(path, error)) return table;
    fail_io(path, "open");
  }
  try {
    const Json json = Json::parse(file);
    NIBBLE_CHECK(json.at("nibble_tuning") == kFormatVersion, ErrorCode::kInvalidArgument,
                 "{}: expected nibble_tuning {}, found {}; delete it or run `nibble tune --fresh`",
                 path.string(), kFormatVersion, json.at("nibble_tuning").dump());
    if (json.at("key") != to_json(key)) {
      log(LogLevel::kInfo, "{}: left aside: it is of {}, this is {}", path.string(),
          json.at("key").dump(), to_json(key).dump());
      return table;
    }
    for (const Json& row : json.at("choices")) table.put(choice_from(row));
  } catch (const Json::exception& e) {
    fail(ErrorCode::kInvalidArgument,
         "{}: expected a tuning table, found: {}; delete it or run `nibble tune --fresh`",
         path.string(), e.what());
  }
  return table;
}

void TuningTable::write(const std::filesystem::path& path) const {
  Json json = {
      {"nibble_tuning", kFormatVersion}, {"key", to_json(key_)}, {"choices", Json::array()}};
  for (const TunedChoice& c : choices_) json["choices"].push_back(to_json(c));
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  const std::filesystem::path next = path.string() + ".tmp";
  {
    std::ofstream file(next, std::ios::binary | std::ios::trunc);
    file << json.dump(1, ' ', false, Json::error_handler_t::replace) << '\n';
    file.close();
    if (!file) fail_io(next, "write");
  }
  std::filesystem::rename(next, path, error);
  if (error) {
    errno = error.value();
    fail_io(path, "rename the finished table to this name");
  }
}

void TuningTable::put(TunedChoice choice) {
  for (TunedChoice& c : choices_) {
    if (c.op != choice.op || c.desc != choice.desc) continue;
    c = std::move(choice);
    return;
  }
  choices_.push_back(std::move(choice));
}

const TunedChoice* TuningTable::find(std::string_view op, std::string_view desc) const {
  const auto it = std::ranges::find_if(
      choices_, [&](const TunedChoice& c) { return c.desc == desc && c.op == op; });
  return it == choices_.end() ? nullptr : &*it;
}

std::optional<std::filesystem::path> tuning_path(const DeviceInfo& device) {
  std::filesystem::path folder;
  if (const auto cache = env("NIBBLE_CACHE_DIR")) {
    folder = *cache;
  } else if (const auto xdg = env("XDG_CACHE_HOME")) {
    folder = std::filesystem::path(*xdg) / "nibble";
  } else if (const auto home = env("HOME")) {
    folder = std::filesystem::path(*home) / ".cache" / "nibble";
  } else {
    return std::nullopt;
  }
  std::string slug;
  for (const char c : tuning_key(device).device) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte)) {
      slug += static_cast<char>(std::tolower(byte));
    } else if (!slug.empty() && slug.back() != '-') {
      slug += '-';
    }
  }
  while (!slug.empty() && slug.back() == '-') slug.pop_back();
  return folder / ("tuning-" + slug + ".json");
}

}  // namespace nibble
