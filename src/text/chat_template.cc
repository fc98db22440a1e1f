#include "nibble/chat_template.h"

#include <fstream>
#include <iterator>

#include "base/check.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/json_value.h"
#include "text/jinja/parser.h"
#include "text/utf8.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using jinja::Dict;
using jinja::Kind;
using jinja::Value;
using jinja::Variables;

std::optional<std::string> read_file(const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  std::ifstream in(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  NIBBLE_CHECK(in && !fs::is_directory(path), ErrorCode::kIo, "{}: can't be read", path.string());
  return text;
}

Value read_object(const fs::path& path) {
  const auto text = read_file(path);
  if (!text) return Value(std::make_shared<const Dict>());
  Value v = jinja::parse_json(*text, path.string(), ErrorCode::kTokenizer);
  NIBBLE_CHECK(v.is(Kind::kDict), ErrorCode::kTokenizer, "{}: expected a JSON object, found a {}",
               path.string(), jinja::type_name(v));
  return v;
}

// bos_token and its like: a string, or an object with the string as "content".
void add_special_tokens(const Dict& config, Variables& variables) {
  for (const auto& [key, value] : config.entries()) {
    const std::string& name = key.string();
    if (!name.ends_with("_token")) continue;
    const Value* content = value.is(Kind::kDict) ? value.dict().find_text("content") : &value;
    if (content && content->is(Kind::kString)) variables.try_emplace(name, *content);
  }
}

// The template in tokenizer_config.json; null where there is none.
const Value* config_template(const Dict& config, const std::string& path) {
  const Value* found = config.find_text("chat_template");
  if (!found || found->is(Kind::kNone)) return nullptr;
  if (found->is(Kind::kString)) return found;
  NIBBLE_CHECK(found->is(Kind::kSequence), ErrorCode::kTokenizer,
               "{}: chat_template: expected a string or a list, found a {}", path,
               jinja::type_name(*found));
  std::string names;
  for (const Value& entry : found->sequence().items) {
    const Value* name = entry.is(Kind::kDict) ? entry.dict().find_text("name") : nullptr;
    const Value* source = entry.is(Kind::kDict) ? entry.dict().find_text("template") : nullptr;
    NIBBLE_CHECK(name && source && name->is(Kind::kString) && source->is(Kind::kString),
                 ErrorCode::kTokenizer,
                 "{}: chat_template: expected objects with the strings name and template", path);
    if (name->string() == "default") return source;
    names += " " + name->string();
  }
  fail(ErrorCode::kTokenizer, "{}: chat_template: expected one named default, found:{}", path,
       names);
}

void merge(const Value& object, Variables& variables) {
  for (const auto& [key, value] : object.dict().entries())
    variables.insert_or_assign(key.string(), value);
}

Value parse_variables(std::string_view json, std::string_view what) {
  Value v = jinja::parse_json(json, what, ErrorCode::kInvalidArgument);
  NIBBLE_CHECK(v.is(Kind::kDict), ErrorCode::kInvalidArgument,
               "{}: expected a JSON object, found a {}", what, jinja::type_name(v));
  return v;
}

Value message_list(std::span<const ChatMessage> messages) {
  auto list = std::make_shared<jinja::Sequence>();
  for (const ChatMessage& m : messages) {
    NIBBLE_CHECK(utf8::is_valid(m.role) && utf8::is_valid(m.content), ErrorCode::kInvalidArgument,
                 "message {}: expected UTF-8", list->items.size());
    Dict d;
    d.set("role", m.role);
    d.set("content", m.content);
    list->items.emplace_back(std::make_shared<const Dict>(std::move(d)));
  }
  list->depth = 2;
  return Value(std::shared_ptr<const jinja::Sequence>(std::move(list)));
}

}  // namespace

struct ChatTemplate::Impl {
  std::string name;
  jinja::Block block;
  Variables variables;  // what every rendering starts from

  static std::shared_ptr<Impl> parse(std::string_view source, std::string_view source_name) {
    auto impl = std::make_shared<Impl>();
    impl->name = source_name;
    impl->block = jinja::parse(source, source_name);
    impl->variables = {{"tools", jinja::None{}}, {"documents", jinja::None{}}};
    return impl;
  }
};

ChatTemplate ChatTemplate::parse(std::string_view source, std::string_view source_name) {
  return ChatTemplate(Impl::parse(source, source_name));
}

std::optional<ChatTemplate> ChatTemplate::load(const fs::path& model_dir) {
  const fs::path config_path = model_dir / "tokenizer_config.json";
  const Value config = read_object(config_path);
  fs::path path = model_dir / "chat_template.jinja";
  std::optional<std::string> source = read_file(path);
  if (!source) {
    const Value* found = config_template(config.dict(), config_path.string());
    if (!found) return std::nullopt;
    source = found->string();
    path = config_path;
  }
  auto impl = Impl::parse(*source, path.string());
  add_special_tokens(config.dict(), impl->variables);
  add_special_tokens(read_object(model_dir / "special_tokens_map.json").dict(), impl->variables);
  return ChatTemplate(std::move(impl));
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages,
                                 const Options& options) const {
  Variables variables = impl_->variables;
  variables.insert_or_assign("messages", message_list(messages));
  variables.insert_or_assign("add_generation_prompt", options.add_generation_prompt);
  if (!options.extra_json.empty())
    merge(parse_variables(options.extra_json, "extra_json"), variables);
  return jinja::render(impl_->block, impl_->name, variables);
}

std::string ChatTemplate::render_json(std::string_view variables_json) const {
  Variables variables = impl_->variables;
  variables.insert_or_assign("add_generation_prompt", false);
  merge(parse_variables(variables_json, "template variables"), variables);
  return jinja::render(impl_->block, impl_->name, variables);
}

}  // namespace nibble
