#include "models/qwen3.h"

namespace nibble {
namespace {

DecoderLayer load_layer(const WeightLoader& loader, const std::string& prefix) {
  DecoderLayer layer = load_decoder_layer(loader, prefix);
  const int64_t head_dim = loader.config().head_dim;
  layer.q_norm = loader.vector(prefix + ".self_attn.q_norm.weight", head_dim);
  layer.k_norm = loader.vector(prefix + ".self_attn.k_norm.weight", head_dim);
  return layer;
}

void forward_layer(const DecoderLayer& layer, int64_t index, DecoderPass& pass) {
  pass.normalize(layer.input_norm);
  pass.project_qkv(layer.qkv);
  pass.normalize_heads(layer.q_norm, layer.k_norm);
  pass.rotate();
  pass.attend(index);
  pass.project_attention(layer.o);
  pass.normalize(layer.post_norm);
  pass.feed_forward(layer.gate_up, layer.down);
}

}  // namespace

const Architecture kQwen3 = {
    .name = "Qwen3ForCausalLM",
    .load_layer = load_layer,
    .forward_layer = forward_layer,
};

}  // namespace nibble
