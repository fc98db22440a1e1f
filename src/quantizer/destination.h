// Where a new model folder may go, and how it takes the place of an old one.
#pragma once

#include <filesystem>

namespace nibble {

class Destination {
 public:
  // Throws kInvalidArgument if dst is something other than a missing or empty folder, unless
  // `overwrite` is set and it is a model folder that src is not a part of.
  Destination(const std::filesystem::path& src, std::filesystem::path dst, bool overwrite);

  // What to write: dst itself, or a folder beside it.
  const std::filesystem::path& target() const { return target_; }

  // To be called when target() is complete: exchanges it with the old dst in one step, and removes
  // the old one.
  void commit() const;

 private:
  std::filesystem::path dst_;
  std::filesystem::path target_;
};

}  // namespace nibble
