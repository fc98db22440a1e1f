// Renders what chat_template_oracle_test.py sends: a JSON object {"template", "variables"} per line
// in, {"text"} or {"error"} per line out. "variables" is JSON text.
#include <iostream>
#include <nlohmann/json.hpp>

#include "nibble/chat_template.h"
#include "nibble/error.h"

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto request = nlohmann::json::parse(line);
    nlohmann::json reply;
    try {
      const auto chat_template =
          nibble::ChatTemplate::parse(request.at("template").get_ref<const std::string&>(), "case");
      reply["text"] =
          chat_template.render_json(request.at("variables").get_ref<const std::string&>());
    } catch (const nibble::Error& e) {
      reply["error"] = e.what();
    }
    std::cout << reply.dump() << "\n" << std::flush;
  }
}
