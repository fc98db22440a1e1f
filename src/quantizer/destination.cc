#include "quantizer/destination.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace nibble {
namespace fs = std::filesystem;
namespace {

bool lies_in(const fs::path& inner, const fs::path& outer) {
  const fs::path a = fs::weakly_canonical(inner), b = fs::weakly_canonical(outer);
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).second == b.end();
}

}  // namespace

Destination::Destination(const fs::path& src, fs::path dst, bool overwrite) : dst_(std::move(dst)) {
  constexpr auto kBad = ErrorCode::kInvalidArgument;
  if (!dst_.has_filename()) dst_ = dst_.parent_path();  // "out/"
  target_ = dst_;
  std::error_code error;
  if (!fs::exists(fs::symlink_status(dst_, error))) return;
  NIBBLE_CHECK(!lies_in(src, dst_), kBad, "{}: holds the source {}; expected another folder",
               dst_.string(), src.string());
  NIBBLE_CHECK(fs::is_directory(fs::symlink_status(dst_, error)), kBad, "{}: is not a folder",
               dst_.string());
  const bool empty = fs::is_empty(dst_, error);
  NIBBLE_CHECK(!error, ErrorCode::kIo, "{}: can't list: {}", dst_.string(), error.message());
  if (empty) {
    fs::remove(dst_, error);
    NIBBLE_CHECK(!error, ErrorCode::kIo, "{}: can't replace: {}", dst_.string(), error.message());
    return;
  }
  NIBBLE_CHECK(overwrite, kBad, "{}: exists and is not empty; remove it or allow overwriting",
               dst_.string());
  NIBBLE_CHECK(fs::exists(dst_ / "config.json", error), kBad,
               "{}: is not a model folder (it has no config.json), so it is not overwritten",
               dst_.string());
  target_ += ".replacement";
  fs::remove_all(target_, error);  // of a process that died after finishing it
  NIBBLE_CHECK(!error, ErrorCode::kIo, "{}: can't remove: {}", target_.string(), error.message());
}

void Destination::commit() const {
  if (target_ == dst_) return;
  NIBBLE_CHECK(::renameat2(AT_FDCWD, target_.c_str(), AT_FDCWD, dst_.c_str(), RENAME_EXCHANGE) == 0,
               ErrorCode::kIo, "{}: can't exchange with the finished {}: {}", dst_.string(),
               target_.string(), std::strerror(errno));
  std::error_code error;
  fs::remove_all(target_, error);
  NIBBLE_CHECK(!error, ErrorCode::kIo, "{}: can't remove the old model: {}", target_.string(),
               error.message());
}

}  // namespace nibble
