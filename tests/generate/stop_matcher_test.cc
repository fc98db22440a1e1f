#include "generate/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace nibble {
namespace {

// What a whole text shows when it is pushed in these pieces.
std::string shown(StopMatcher matcher, const std::vector<std::string>& pieces, bool* stopped) {
  std::string out;
  for (const std::string& piece : pieces) out += matcher.push(piece);
  *stopped = matcher.stopped();
  if (!matcher.stopped()) out += matcher.finish();
  return out;
}

TEST(StopMatcher, HoldsBackWhatMayBecomeAStop) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("the E"), "the ");
  EXPECT_EQ(matcher.push("N"), "");
  EXPECT_EQ(matcher.push("tropy E"), "ENtropy ");
  EXPECT_EQ(matcher.push("ND more"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.push("later"), "");
}

TEST(StopMatcher, FinishGivesTheRest) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("EN"), "");
  EXPECT_EQ(matcher.finish(), "EN");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, EmptyStopsAreIgnored) {
  StopMatcher matcher({"", ""});
  EXPECT_EQ(matcher.push("text"), "text");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, AnyCutShowsTheSame) {
  std::mt19937 random(1);
  const std::vector<std::string> stops = {"aab", "ba", "abab"};
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 12; ++i) text += "abc"[random() % 3];
    size_t first = std::string::npos;
    for (const std::string& stop : stops) first = std::min(first, text.find(stop));
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t n = 1 + random() % 4;
      pieces.push_back(text.substr(at, n));
      at += n;
    }
    // A longer stop may begin earlier than a shorter one that ends first: both readings end the
    // text at or before the first stop that is complete.
    bool stopped = false;
    const std::string out = shown(StopMatcher(stops), pieces, &stopped);
    EXPECT_EQ(stopped, first != std::string::npos) << text;
    if (first == std::string::npos) {
      EXPECT_EQ(out, text);
    } else {
      EXPECT_TRUE(text.starts_with(out)) << text << " shown " << out;
      EXPECT_GE(out.size(), first) << text;
      for (const std::string& stop : stops) EXPECT_EQ(out.find(stop), std::string::npos) << out;
    }
  }
}

}  // namespace
}  // namespace nibble
