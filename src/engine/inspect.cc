#include "nibble/inspect.h"

#include <chrono>
#include <map>
#include <tuple>

#include "base/check.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/config.h"
#include "models/config.h"
#include "models/linear.h"
#include "models/model.h"
#include "models/registry.h"

namespace nibble {
namespace {

// "model.layers.12.mlp.up_proj" -> "model.layers.*.mlp.up_proj"
std::string without_numbers(const std::string& name) {
  std::string out;
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('.', at), name.size());
    const std::string part = name.substr(at, end - at);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    out += (at > 0 ? "." : "") + (number ? "*" : part);
    at = end + 1;
  }
  return out;
}

std::vector<std::pair<std::string, std::string>> describe(const ModelConfig& c) {
  constexpr std::string_view kRopeTypes[] = {"default", "linear", "llama3", "yarn"};
  return {{"hidden_size", fmt::format("{}", c.hidden_size)},
          {"intermediate_size", fmt::format("{}", c.intermediate_size)},
          {"layers", fmt::format("{}", c.num_layers)},
          {"heads", fmt::format("{} ({} for keys and values)", c.num_heads, c.num_kv_heads)},
          {"head_dim", fmt::format("{}", c.head_dim)},
          {"vocab_size", fmt::format("{}", c.vocab_size)},
          {"context", fmt::format("{}", c.context_length)},
          {"rope",
           fmt::format("{}, theta {}", kRopeTypes[static_cast<int>(c.rope.type)], c.rope.theta)},
          {"tied_embeddings", c.tied_embeddings ? "yes" : "no"}};
}

std::string describe(const QuantConfig& c) {
  if (c.method == QuantConfig::Method::kNone) return "none";
  std::string text = c.method == QuantConfig::Method::kModelOpt ? "modelopt" : "compressed-tensors";
  for (const ModuleScheme& scheme : c.schemes) text += " " + scheme.name;
  return text;
}

}  // namespace

ModelReport inspect(const std::filesystem::path& dir, const Device& device,
                    const EngineOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const Checkpoint checkpoint = Checkpoint::open(dir);
  const ModelConfig config = parse_model_config(checkpoint.config_json(), dir / "config.json");
  ModelReport report;
  report.open_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  find_architecture(config.architecture);  // refuses what would not load
  report.architecture = config.architecture;
  report.config = describe(config);
  report.quantization = describe(checkpoint.quant_config());

  for (const TensorSummary& t : checkpoint.tensors()) {
    report.tensors.push_back({t.name, std::string(to_string(t.dtype)), t.file, t.shape, t.bytes});
    report.bytes += t.bytes;
  }
  const ActivationMode activation = options.activation.value_or(
      default_activation(device.info(), !checkpoint.quant_config().quantizes_activations()));
  std::map<std::tuple<std::string, WeightFormat, std::string, int64_t, int64_t>, size_t> groups;
  for (const ModuleSummary& m : checkpoint.modules()) {
    report.parameters += m.n * m.k;
    const std::string modules = without_numbers(m.name);
    const auto [it, is_new] =
        groups.try_emplace({modules, m.format, m.scheme, m.n, m.k}, report.linears.size());
    if (is_new) {
      GemmOptions gemm{.max_m = Model::kMaxRows,
                       .activation = activation_for(m.format, activation)};
      report.linears.push_back(
          {.modules = modules,
           .format = m.format,
           .scheme = m.scheme,
           .n = m.n,
           .k = m.k,
           .decode = choose_gemm(m.format, m.n, m.k, 1, device, gemm),
           .prompt = choose_gemm(m.format, m.n, m.k, Model::kMaxRows, device, gemm)});
    }
    report.linears[it->second].count += 1;
    report.linears[it->second].bytes += m.bytes;
  }
  return report;
}

}  // namespace nibble
