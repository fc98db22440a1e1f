#include "text/post_processor.h"

namespace nibble::text {

PostProcessor::PostProcessor(const std::optional<JsonView>& json, int32_t end_id) {
  if (json) add(*json, end_id);
}

void PostProcessor::add(const JsonView& json, int32_t end_id) {
  const std::string& type = json.at("type").string();
  if (type == "Sequence") {
    for (const JsonView& item : json.at("processors").items()) add(item, end_id);
  } else if (type == "TemplateProcessing") {
    add_template(json, end_id);
  } else if (type != "ByteLevel") {  // which changes offsets only
    json.fail("unknown post-processor \"{}\"", type);
  }
}

void PostProcessor::add_template(const JsonView& json, int32_t end_id) {
  std::vector<int32_t> left, right;
  bool seen = false;
  for (const JsonView& piece : json.at("single").items()) {
    if (const auto sequence = piece.find("Sequence")) {
      if (sequence->at("id").string() != "A" || seen) piece.fail("expected one sequence, A");
      seen = true;
      continue;
    }
    const std::string& name = piece.at("SpecialToken").at("id").string();
    for (const JsonView& id : json.at("special_tokens").at(name).at("ids").items()) {
      (seen ? right : left).push_back(static_cast<int32_t>(id.unsigned_integer(end_id - 1)));
    }
  }
  if (!seen) json.at("single").fail("expected one sequence, A");
  before.insert(before.begin(), left.begin(), left.end());
  after.insert(after.end(), right.begin(), right.end());
}

}  // namespace nibble::text
