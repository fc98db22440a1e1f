#include "base/host_arena.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>

#include "nibble/error.h"

namespace nibble {
namespace {

TEST(HostArena, PiecesFollowEachOtherZeroedAndAligned) {
  HostArena arena;
  const auto first = arena.allocate(100);
  const auto second = arena.allocate(1);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first.get()) % 64, 0u);
  EXPECT_EQ(second.get() - first.get(), 128);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(first.get()[i], 0);
}

TEST(HostArena, APieceLargerThanAChunkGetsItsOwn) {
  HostArena arena;
  constexpr size_t kBytes = size_t{300} << 20;
  const auto small = arena.allocate(1);
  const auto large = arena.allocate(kBytes);
  large.get()[0] = 1;
  large.get()[kBytes - 1] = 2;
  EXPECT_EQ(arena.allocate(0).use_count() > 0, true);
  EXPECT_THROW(arena.allocate(SIZE_MAX), Error);
}

TEST(HostArena, MemoryOutlivesTheArena) {
  std::shared_ptr<uint8_t> piece;
  {
    HostArena arena;
    piece = arena.allocate(1000);
  }
  std::memset(piece.get(), 7, 1000);
  EXPECT_EQ(piece.get()[999], 7);
}

}  // namespace
}  // namespace nibble
