// What a model's configs say about how its modules are stored.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/pattern.h"
#include "nibble/types.h"

namespace nibble {

struct ModuleScheme {
  WeightFormat format;  // kNvfp4, kMxfp4 or kF8
  // The stored activation scale is one for 4-bit activations. False for weight-only schemes and for
  // those with 8-bit activations, whose input scale means something else.
  bool static_input;
  bool fp4_input;    // it also says to quantize activations to 4 bits
  std::string name;  // as in the config, for messages
};

// A list of module names and patterns.
class ModuleRules {
 public:
  std::set<std::string, std::less<>>
      names;                       // exact; or class names, where matches_class() is asked
  std::vector<std::string> globs;  // ModelOpt's patterns
  std::vector<Regex> regexes;      // compressed-tensors' "re:" entries
};

struct QuantConfig {
  enum class Method { kNone, kModelOpt, kCompressedTensors };

  Method method = Method::kNone;
  std::vector<ModuleScheme> schemes;
  std::vector<std::pair<ModuleRules, size_t>> targets;  // rules, index into schemes
  ModuleRules ignore;

  // Reads the text of config.json and, where the folder has one, hf_quant_config.json (else empty).
  // `what` names the folder in messages. Throws kCheckpoint, or kUnsupported for an algorithm that
  // Nibble doesn't know, by name.
  static QuantConfig parse(std::string_view config_json, std::string_view hf_quant_config_json,
                           std::string_view what);

  // The scheme of "model.layers.0.mlp.up_proj"; null: stored plain.
  const ModuleScheme* find(std::string_view module) const;

  // There are 4-bit weights, and whoever made them meant 4-bit activations for all of them.
  bool quantizes_activations() const;

  // Whether a module with a scheme may be stored plain all the same, where configs are loose: the
  // lm_head, vision towers, and names that an old export's list matches only as a substring.
  bool may_be_plain(std::string_view module) const;
};

}  // namespace nibble
