// cuBLASLt, opened when it is first needed: Nibble links nothing of it, and a machine without it
// loses this backend only.
#pragma once

#include <cublasLt.h>

#include <memory>
#include <span>
#include <string>

namespace nibble::cublaslt {

#define NIBBLE_CUBLASLT_FUNCTIONS(X) \
  X(GetVersion)                      \
  X(GetStatusName)                   \
  X(Create)                          \
  X(Destroy)                         \
  X(Matmul)                          \
  X(MatmulAlgoGetHeuristic)          \
  X(MatmulDescCreate)                \
  X(MatmulDescDestroy)               \
  X(MatmulDescSetAttribute)          \
  X(MatmulPreferenceCreate)          \
  X(MatmulPreferenceDestroy)         \
  X(MatmulPreferenceSetAttribute)    \
  X(MatrixLayoutCreate)              \
  X(MatrixLayoutDestroy)

// Its functions, without their prefix.
struct Library {
#define NIBBLE_MEMBER(name) decltype(&::cublasLt##name) name = nullptr;
  NIBBLE_CUBLASLT_FUNCTIONS(NIBBLE_MEMBER)
#undef NIBBLE_MEMBER

  // Throws kDevice, naming the call and cuBLAS's own name of the status, unless it is success.
  void check(cublasStatus_t status, const char* call) const;
};

// The first of `files` that the loader finds, or the reason why none can be used: not found, too
// old, or without one of the functions. It is never closed: at exit CUDA may be gone already.
struct OpenedLibrary {
  std::shared_ptr<const Library> library;
  std::string reason;
};
OpenedLibrary open_library(std::span<const std::string> files);

// What NIBBLE_CUBLASLT names, else the names of CUDA 13's and 12's.
std::span<const std::string> library_files();

}  // namespace nibble::cublaslt
