#include "nibble/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "nibble/error.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

std::string render(std::string_view source, std::string_view variables = "{}") {
  return ChatTemplate::parse(source, "t.jinja").render_json(variables);
}

struct Failure {
  ErrorCode code;
  std::string message;
};

template <class Fn>
Failure failure_of(Fn&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    return {e.code(), e.what()};
  }
  ADD_FAILURE() << "no error";
  return {ErrorCode::kInternal, ""};
}

std::string parse_error(std::string_view source) {
  const Failure f = failure_of([&] { ChatTemplate::parse(source, "t.jinja"); });
  EXPECT_EQ(f.code, ErrorCode::kTemplate);
  return f.message;
}

std::string render_error(std::string_view source, std::string_view variables = "{}") {
  const ChatTemplate t = ChatTemplate::parse(source, "t.jinja");
  const Failure f = failure_of([&] { t.render_json(variables); });
  EXPECT_EQ(f.code, ErrorCode::kTemplate);
  return f.message;
}

TEST(ChatTemplate, RendersMessages) {
  const ChatTemplate t = ChatTemplate::parse(
      "{% for m in messages %}\n<{{ m.role }}>{{ m['content'] }}\n{% endfor %}\n"
      "{% if add_generation_prompt %}<bot>{% endif %}{{ bos_token }}{{ tools is none }}{{ x }}",
      "t.jinja");
  const ChatMessage messages[] = {{"system", "a"}, {"user", "{{ b }}"}};
  EXPECT_EQ(t.render(messages), "<system>a\n<user>{{ b }}\n<bot>True");
  EXPECT_EQ(t.render(messages, {.add_generation_prompt = false, .extra_json = R"({"x": [1]})"}),
            "<system>a\n<user>{{ b }}\nTrue[1]");
}

TEST(ChatTemplate, KeepsTheOrderOfKeys) {
  EXPECT_EQ(render("{{ d | tojson }}{{ d }}", R"({"d": {"z": 1, "a": {"y": null, "b": 1.0}}})"),
            R"({"z": 1, "a": {"y": null, "b": 1.0}}{'z': 1, 'a': {'y': None, 'b': 1.0}})");
}

TEST(ChatTemplate, RefusesTheUnknownByNameWhenParsing) {
  EXPECT_EQ(parse_error("a\n{{ x | nosuch }}"), "t.jinja:2: unknown filter 'nosuch'");
  EXPECT_EQ(parse_error("{{ x is nosuch }}"), "t.jinja:1: unknown test 'nosuch'");
  EXPECT_EQ(parse_error("{{ xs | map('nosuch') }}"), "t.jinja:1: unknown filter 'nosuch'");
  EXPECT_EQ(parse_error("{{ xs | selectattr('a', 'nosuch') }}"),
            "t.jinja:1: unknown test 'nosuch'");
  EXPECT_EQ(parse_error("\n\n{{ nosuch(1) }}"), "t.jinja:3: unknown function 'nosuch'");
  EXPECT_EQ(parse_error("{{ x.nosuch() }}"), "t.jinja:1: unknown method 'nosuch'");
  EXPECT_EQ(parse_error("{% include 'x' %}"), "t.jinja:1: unknown statement 'include'");
  EXPECT_EQ(parse_error("{% for x in xs %}{{ loop.cycle }}{% endfor %}"),
            "t.jinja:1: unknown attribute loop.cycle");
  EXPECT_THAT(parse_error("{% for x in xs recursive %}{% endfor %}"), HasSubstr("recursive"));
}

TEST(ChatTemplate, AGuardedUnknownFunctionIsNotAnError) {
  EXPECT_EQ(render("{% if f is defined %}{{ f() }}{% else %}none{% endif %}"), "none");
  EXPECT_EQ(render_error("{% if f is defined %}{% endif %}\n{{ f() }}"),
            "t.jinja:2: unknown function 'f'");
}

TEST(ChatTemplate, NamesTheLineOfMalformedSource) {
  for (const auto& [source, line, what] :
       std::initializer_list<std::tuple<std::string_view, std::string_view, std::string_view>>{
           {"\n{{ 1", "t.jinja:2:", "no end"},
           {"{# x", "t.jinja:1:", "comment"},
           {"{% if x %}\n", "t.jinja:1:", "endif"},
           {"{% endif %}", "t.jinja:1:", "endif"},
           {"{{ 'abc }}", "t.jinja:1:", "closing"},
           {"{{ 1 + }}", "t.jinja:1:", "'}}'"},
           {"{{ (1 }}", "t.jinja:1:", "unexpected '}'"},
           {"{{ a ? b }}", "t.jinja:1:", "'?'"},
           {"{% break %}", "t.jinja:1:", "outside"},
           {"{{ 99999999999999999999 }}", "t.jinja:1:", "64 bits"},
           {"{% set loop = 1 %}", "t.jinja:1:", "loop"},
           {"{{ '\\ud800' }}", "t.jinja:1:", "escape"},
           {"{{ f(*x) }}", "t.jinja:1:", "'*'"},
           {"\xff", "t.jinja:1:", "UTF-8"}})
    EXPECT_THAT(parse_error(source), AllOf(HasSubstr(line), HasSubstr(what))) << source;
}

TEST(ChatTemplate, NamesTheLineOfRuntimeErrors) {
  EXPECT_EQ(render_error("a\n{{ raise_exception('no tools here') }}"), "t.jinja:2: no tools here");
  EXPECT_EQ(render_error("{{ x.y }}"), "t.jinja:1: 'x' is undefined");
  EXPECT_EQ(render_error("{{ 'a' + 1 }}"), "t.jinja:1: '+' is not defined for a str and a int");
  EXPECT_EQ(render_error("{% set x = [] %}{{ x.append }}"),
            "t.jinja:1: unknown method 'append' of a list");
  EXPECT_EQ(render_error("{{ ''.__class__ }}"), "t.jinja:1: unknown method '__class__' of a str");
  EXPECT_THAT(render_error("{{ 9223372036854775807 + 1 }}"), HasSubstr("overflow"));
  EXPECT_THAT(render_error("{{ xs | map('odd' ~ 1) | list }}", R"({"xs": [1]})"),
              HasSubstr("unknown filter 'odd1'"));
}

TEST(ChatTemplate, EndsWhatWouldNotEnd) {
  const std::string loops =
      "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
  EXPECT_THAT(render_error(loops), HasSubstr("steps"));
  EXPECT_THAT(render_error("{{ range(10 ** 9) }}"), HasSubstr("100000"));
  EXPECT_THAT(render_error("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), HasSubstr("deeper"));
  EXPECT_THAT(render_error("{{ 'abc' * 10 ** 12 }}"), HasSubstr("too long"));
  EXPECT_THAT(render_error("{% set ns = namespace(s='xxxxxxxx') %}"
                           "{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"),
              HasSubstr("bytes"));
  EXPECT_THAT(render_error("{% set ns = namespace(s=[]) %}"
                           "{% for i in range(999) %}{% set ns.s = [ns.s] %}{% endfor %}"),
              HasSubstr("nests deeper"));
  EXPECT_THAT(render_error("{% set ns = namespace(s=[1]) %}{% for i in range(90) %}"
                           "{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}"),
              HasSubstr("more than"));
  EXPECT_THAT(render_error("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}"),
              HasSubstr("holds itself"));
  EXPECT_THAT(
      render_error("{% set s = 'x' * 1000000 %}{% for i in range(99) %}{{ s }}{% endfor %}"),
      HasSubstr("longer than"));
  const std::string brackets = std::string(100'000, '(') + std::string(100'000, ')');
  EXPECT_THAT(parse_error("{{ " + brackets + " }}"), HasSubstr("nests deeper"));
  std::string sum = "{{ 1";
  for (int i = 0; i < 100'000; ++i) sum += "+1";
  EXPECT_THAT(parse_error(sum + " }}"), HasSubstr("nests deeper"));
  std::string ifs;
  for (int i = 0; i < 100'000; ++i) ifs += "{% if 1 %}";
  EXPECT_THAT(parse_error(ifs), HasSubstr("nests deeper"));
}

TEST(ChatTemplate, RefusesBadVariables) {
  const ChatTemplate t = ChatTemplate::parse("{{ x }}", "t.jinja");
  for (const std::string& json :
       {std::string("{"), std::string("[]"), std::string("{\"x\": 1e999}"),
        std::string("{\"x\": 18446744073709551615}"), "{\"x\": " + std::string(100'000, '[') + "}"})
    EXPECT_EQ(failure_of([&] { t.render_json(json); }).code, ErrorCode::kInvalidArgument) << json;
  const ChatMessage broken[] = {{"user", "\xC3"}};
  EXPECT_EQ(failure_of([&] { t.render(broken); }).code, ErrorCode::kInvalidArgument);
}

class ChatTemplateFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("nibble_chat_template_" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  void write(const char* name, std::string_view text) { std::ofstream(folder_ / name) << text; }
  std::string rendered() { return ChatTemplate::load(folder_).value().render({}); }

  fs::path folder_;
};

TEST_F(ChatTemplateFolder, ReadsTokenizerConfig) {
  EXPECT_FALSE(ChatTemplate::load(folder_).has_value());
  write("tokenizer_config.json", R"({"bos_token": "<s>"})");
  EXPECT_FALSE(ChatTemplate::load(folder_).has_value());
  write("tokenizer_config.json",
        R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": null,
            "chat_template": "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token }}"})");
  EXPECT_EQ(rendered(), "<s></s>");
  write("special_tokens_map.json", R"({"bos_token": "no", "unk_token": "<unk>"})");
  EXPECT_EQ(rendered(), "<s></s><unk>");
  write("chat_template.jinja", "from a file {{ bos_token }}");
  EXPECT_EQ(rendered(), "from a file <s>");
}

TEST_F(ChatTemplateFolder, PicksTheDefaultOfSeveral) {
  write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "tools"},
                                                       {"name": "default", "template": "d"}]})");
  EXPECT_EQ(rendered(), "d");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})");
  EXPECT_THAT(failure_of([&] { ChatTemplate::load(folder_); }).message,
              AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("default"), HasSubstr("rag")));
}

TEST_F(ChatTemplateFolder, RefusesMalformedFiles) {
  for (const char* json : {"{", "[]", R"({"chat_template": 5})", R"({"chat_template": [1]})"}) {
    write("tokenizer_config.json", json);
    const Failure f = failure_of([&] { ChatTemplate::load(folder_); });
    EXPECT_EQ(f.code, ErrorCode::kTokenizer) << json;
    EXPECT_THAT(f.message, HasSubstr("tokenizer_config.json"));
  }
  write("tokenizer_config.json", R"({"chat_template": "{{ x | nosuch }}"})");
  const Failure f = failure_of([&] { ChatTemplate::load(folder_); });
  EXPECT_EQ(f.code, ErrorCode::kTemplate);
  EXPECT_THAT(f.message, HasSubstr("tokenizer_config.json:1: unknown filter 'nosuch'"));
}

}  // namespace
}  // namespace nibble
