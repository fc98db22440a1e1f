#include "kernels/vendor/cublaslt/library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <vector>

#include "base/check.h"
#include "base/env.h"

namespace nibble::cublaslt {
namespace {

// CUDA 12.8's, the first with 4-bit floats.
constexpr size_t kSinceVersion = 120800;

std::string version_text(size_t version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

// The name of a function that is missing, or null.
const char* bind(void* handle, Library& library) {
#define NIBBLE_BIND(name)                                                                   \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(handle, "cublasLt" #name)); \
  if (library.name == nullptr) return "cublasLt" #name;
  NIBBLE_CUBLASLT_FUNCTIONS(NIBBLE_BIND)
#undef NIBBLE_BIND
  return nullptr;
}

}  // namespace

void Library::check(cublasStatus_t status, const char* call) const {
  NIBBLE_CHECK(status == CUBLAS_STATUS_SUCCESS, ErrorCode::kDevice, "cublasLt{}: {}", call,
               GetStatusName(status));
}

OpenedLibrary open_library(std::span<const std::string> files) {
  std::string reasons;
  for (const std::string& file : files) {
    void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      const char* const why = dlerror();
      reasons += fmt::format("{}{}", reasons.empty() ? "" : "; ", why != nullptr ? why : file);
      continue;
    }
    auto library = std::make_shared<Library>();
    if (const char* const missing = bind(handle, *library)) {
      return {nullptr, fmt::format("{} has no {}", file, missing)};
    }
    if (const size_t version = library->GetVersion(); version < kSinceVersion) {
      return {nullptr, fmt::format("{} must be cuBLASLt {} or newer, found {}", file,
                                   version_text(kSinceVersion), version_text(version))};
    }
    return {std::move(library), {}};
  }
  return {nullptr, fmt::format("needs cuBLASLt: {}", reasons)};
}

std::span<const std::string> library_files() {
  static const std::vector<std::string> files = [] {
    if (const auto named = env("NIBBLE_CUBLASLT")) return std::vector<std::string>{*named};
    return std::vector<std::string>{"libcublasLt.so.13", "libcublasLt.so.12"};
  }();
  return files;
}

}  // namespace nibble::cublaslt
