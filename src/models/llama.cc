#include "models/llama.h"

namespace nibble {
namespace {

void forward_layer(const DecoderLayer& layer, int64_t index, DecoderPass& pass) {
  pass.normalize(layer.input_norm);
  pass.project_qkv(layer.qkv);
  pass.rotate();
  pass.attend(index);
  pass.project_attention(layer.o);
  pass.normalize(layer.post_norm);
  pass.feed_forward(layer.gate_up, layer.down);
}

}  // namespace

const Architecture kLlama = {
    .name = "LlamaForCausalLM",
    .load_layer = load_decoder_layer,
    .forward_layer = forward_layer,
};

}  // namespace nibble
