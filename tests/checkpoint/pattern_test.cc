#include "checkpoint/pattern.h"

#include "tests/checkpoint/model_folder.h"

namespace nibble {
namespace {

using test::expect_error;

// Expectations are those of Python 3.11's fnmatch.fnmatchcase and re.match.
TEST(Pattern, GlobsFollowFnmatch) {
  EXPECT_TRUE(glob_match("lm_head", "lm_head"));
  EXPECT_FALSE(glob_match("lm_head", "lm_head2"));
  EXPECT_FALSE(glob_match("lm_head", "model.lm_head"));
  EXPECT_TRUE(glob_match("*", ""));
  EXPECT_TRUE(glob_match("model.*.gate", "model.layers.3.mlp.gate"));  // crosses dots
  EXPECT_FALSE(glob_match("model.*.gate", "model.layers.3.mlp.gate_proj"));
  EXPECT_TRUE(glob_match("*.gate*", "model.layers.3.mlp.gate_proj"));
  EXPECT_TRUE(glob_match("a.b*", "a.b2"));
  EXPECT_FALSE(glob_match("a.b.*", "a.b2.c"));
  EXPECT_TRUE(glob_match("layers.?.x", "layers.1.x"));
  EXPECT_FALSE(glob_match("layers.?.x", "layers.11.x"));
  EXPECT_TRUE(glob_match("layers.[0-3].x", "layers.2.x"));
  EXPECT_FALSE(glob_match("layers.[0-3].x", "layers.4.x"));
  EXPECT_TRUE(glob_match("layers.[!0-3].x", "layers.4.x"));
  EXPECT_FALSE(glob_match("layers.[!0-3].x", "layers.2.x"));
  EXPECT_TRUE(glob_match("[abc]", "b"));
  EXPECT_TRUE(glob_match("[]x]", "]"));
  EXPECT_TRUE(glob_match("[!]x]", "a"));
  EXPECT_TRUE(glob_match("[x", "[x"));  // no closing bracket: literal
  EXPECT_TRUE(glob_match("a[", "a["));
  EXPECT_TRUE(glob_match("[!", "[!"));
  EXPECT_FALSE(glob_match("", "a"));
  EXPECT_TRUE(glob_match("", ""));
  EXPECT_TRUE(glob_match("a*b*c", "aXbYbZc"));
  EXPECT_FALSE(glob_match("a*b*c", "aXbYbZ"));
}

TEST(Pattern, GlobsTakeNoExponentialTime) {
  std::string pattern;
  for (int i = 0; i < 200; ++i) pattern += "*a";
  EXPECT_FALSE(glob_match(pattern + "b", std::string(5000, 'a')));
}

TEST(Pattern, RegexesAreAnchoredAtTheStartOnly) {
  const Regex regex("model\\.layers\\.[0-3]\\.mlp", "c");
  EXPECT_TRUE(regex.match("model.layers.2.mlp.up_proj"));
  EXPECT_FALSE(regex.match("x.model.layers.2.mlp"));
  EXPECT_FALSE(regex.match("model.layers.5.mlp"));
  EXPECT_TRUE(Regex(".*lm_head", "c").match("model.lm_head.x"));
  EXPECT_TRUE(Regex(".*self_attn.(q|k|v)_proj$", "c").match("model.layers.0.self_attn.k_proj"));
  EXPECT_FALSE(Regex("b|^c", "c").match("ab"));
  EXPECT_TRUE(Regex("(?P<x>a)(?P=x)", "c").match("aab"));
  EXPECT_TRUE(Regex("", "c").match("anything"));
  EXPECT_TRUE(Regex("(a)(b)(c)(d)", "c").match("abcd"));
}

TEST(Pattern, BadRegexesAreErrors) {
  expect_error(ErrorCode::kCheckpoint, {"here", "\"a(b\"", "malformed"},
               [] { Regex("a(b", "here"); });
  expect_error(ErrorCode::kCheckpoint, {"20000 bytes"}, [] { Regex(std::string(20000, 'a'), ""); });
  const Regex slow("(x+x+)+y", "c");
  expect_error(ErrorCode::kCheckpoint, {"too many steps"},
               [&] { slow.match(std::string(200, 'x') + "zy"); });
}

}  // namespace
}  // namespace nibble
