#include "checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <unordered_set>

#include "base/check.h"

namespace nibble {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit

DType parse_dtype(const std::string& text, std::string_view what, const std::string& tensor) {
  for (int i = 0; i <= static_cast<int>(DType::kBool); ++i) {
    if (to_string(static_cast<DType>(i)) == text) return static_cast<DType>(i);
  }
  // torch's own type for ue8m0 scales; the same bytes as the U8 that others write.
  if (text == "F8_E8M0") return DType::kU8;
  for (const char* known : {"F64", "I16", "U16", "U32", "U64", "C64", "F4", "F6_E2M3", "F6_E3M2"}) {
    NIBBLE_CHECK(text != known, ErrorCode::kUnsupported,
                 "{}: tensor {} has dtype {}, which Nibble does not read", what, tensor, text);
  }
  fail(ErrorCode::kCheckpoint, "{}: tensor {} has the unknown dtype \"{}\"", what, tensor, text);
}

// Takes the events of the parser, so that a header with a million tensors builds no tree and
// doubled names are seen. Anything out of place throws at once.
class HeaderReader : public nlohmann::json_sax<Json> {
 public:
  HeaderReader(std::string_view what, std::vector<TensorInfo>& tensors)
      : what_(what), tensors_(tensors) {}

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override {
    unexpected(fmt::format("the negative number {}", value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    unexpected(fmt::format("the number {}", text));
  }
  bool binary(binary_t&) override { unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
    if (place_ == Place::kShape) {
      NIBBLE_CHECK(value <= kMax, ErrorCode::kCheckpoint,
                   "{}: tensor {} has a dimension of {}, expected at most {}", what_, name_, value,
                   kMax);
      shape_->push_back(static_cast<int64_t>(value));
    } else if (place_ == Place::kOffsets) {
      offsets_->push_back(value);
    } else {
      unexpected(fmt::format("the number {}", value));
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != "dtype") unexpected("a string");
    NIBBLE_CHECK(!dtype_, ErrorCode::kCheckpoint, "{}: tensor {} has two dtypes", what_, name_);
    dtype_ = parse_dtype(value, what_, name_);
    return true;
  }

  bool start_object(size_t) override {
    if (place_ == Place::kStart) {
      place_ = Place::kRoot;
    } else if (place_ == Place::kRoot) {
      place_ = name_ == "__metadata__" ? Place::kMetadata : Place::kTensor;
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) finish_tensor();
    place_ = place_ == Place::kRoot ? Place::kEnd : Place::kRoot;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::kTensor) unexpected("an array");
    if (field_ == "shape" && !shape_) {
      place_ = Place::kShape;
      shape_.emplace();
    } else if (field_ == "data_offsets" && !offsets_) {
      place_ = Place::kOffsets;
      offsets_.emplace();
    } else {
      unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool key(string_t& value) override {
    if (place_ == Place::kRoot) {
      NIBBLE_CHECK(names_.insert(value).second, ErrorCode::kCheckpoint,
                   "{}: the tensor {} is listed twice", what_, value);
      name_ = value;
    } else if (place_ == Place::kTensor) {
      NIBBLE_CHECK(value == "dtype" || value == "shape" || value == "data_offsets",
                   ErrorCode::kCheckpoint, "{}: tensor {} has the unknown field \"{}\"", what_,
                   name_, value);
      field_ = value;
    }
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& e) override {
    fail(ErrorCode::kCheckpoint, "{}: the header is not JSON: {}", what_, e.what());
  }

 private:
  enum class Place { kStart, kRoot, kMetadata, kTensor, kShape, kOffsets, kEnd };

  [[noreturn]] void unexpected(const std::string& found) {
    if (place_ == Place::kStart) {
      fail(ErrorCode::kCheckpoint, "{}: the header is not a JSON object but {}", what_, found);
    }
    fail(ErrorCode::kCheckpoint, "{}: unexpected {} in the header at {}{}{}", what_, found, name_,
         field_.empty() ? "" : ".", field_);
  }

  void finish_tensor() {
    NIBBLE_CHECK(dtype_ && shape_ && offsets_, ErrorCode::kCheckpoint, "{}: tensor {} has no {}",
                 what_, name_,
                 !dtype_   ? "dtype"
                 : !shape_ ? "shape"
                           : "data_offsets");
    NIBBLE_CHECK(offsets_->size() == 2 && (*offsets_)[0] <= (*offsets_)[1], ErrorCode::kCheckpoint,
                 "{}: tensor {} has data_offsets [{}], expected [begin, end]", what_, name_,
                 fmt::join(*offsets_, ", "));
    tensors_.push_back({name_, *dtype_, std::move(*shape_), (*offsets_)[0], (*offsets_)[1]});
    dtype_.reset();
    shape_.reset();
    offsets_.reset();
    field_.clear();
  }

  std::string_view what_;
  std::vector<TensorInfo>& tensors_;
  std::unordered_set<std::string> names_;
  Place place_ = Place::kStart;
  std::string name_, field_;
  std::optional<DType> dtype_;
  std::optional<std::vector<int64_t>> shape_;
  std::optional<std::vector<uint64_t>> offsets_;
};

// Bytes that dtype and shape ask for; nothing on overflow.
std::optional<uint64_t> tensor_bytes(const TensorInfo& t) {
  int64_t bytes = static_cast<int64_t>(size_of(t.dtype));
  for (int64_t dim : t.shape) {
    if (__builtin_mul_overflow(bytes, dim, &bytes)) return std::nullopt;
  }
  return static_cast<uint64_t>(bytes);
}

}  // namespace

int64_t TensorInfo::numel() const { return static_cast<int64_t>((end - begin) / size_of(dtype)); }

std::string shape_string(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::vector<TensorInfo> parse_safetensors(std::span<const uint8_t> file, std::string_view what) {
  NIBBLE_CHECK(file.size() >= 8, ErrorCode::kCheckpoint,
               "{}: {} bytes, too short for a safetensors header", what, file.size());
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | file[i];
  NIBBLE_CHECK(header_bytes <= kMaxHeaderBytes, ErrorCode::kCheckpoint,
               "{}: a header of {} bytes, expected at most {}: not a safetensors file?", what,
               header_bytes, kMaxHeaderBytes);
  NIBBLE_CHECK(header_bytes <= file.size() - 8, ErrorCode::kCheckpoint,
               "{}: truncated: a header of {} bytes, but {} follow", what, header_bytes,
               file.size() - 8);
  const auto header = file.subspan(8, header_bytes);
  const uint64_t data_bytes = file.size() - 8 - header_bytes;

  std::vector<TensorInfo> tensors;
  HeaderReader reader(what, tensors);
  Json::sax_parse(header.begin(), header.end(), &reader);

  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  uint64_t covered = 0;
  for (TensorInfo& t : tensors) {
    NIBBLE_CHECK(t.end <= data_bytes, ErrorCode::kCheckpoint,
                 "{}: tensor {} lies at bytes {} to {} of the data, outside the file, which has {}",
                 what, t.name, t.begin, t.end, data_bytes);
    NIBBLE_CHECK(t.begin >= covered, ErrorCode::kCheckpoint,
                 "{}: tensor {} starts at byte {} of the data and overlaps the one before, which "
                 "ends at {}",
                 what, t.name, t.begin, covered);
    NIBBLE_CHECK(t.begin == covered, ErrorCode::kCheckpoint,
                 "{}: bytes {} to {} of the data, before tensor {}, belong to no tensor", what,
                 covered, t.begin, t.name);
    const auto bytes = tensor_bytes(t);
    NIBBLE_CHECK(bytes && *bytes == t.end - t.begin, ErrorCode::kCheckpoint,
                 "{}: tensor {} is {} {}, expected {} bytes, found {}", what, t.name,
                 to_string(t.dtype), shape_string(t.shape),
                 bytes ? std::to_string(*bytes) : "more than 2^63", t.end - t.begin);
    covered = t.end;
    t.begin += 8 + header_bytes;
    t.end += 8 + header_bytes;
  }
  NIBBLE_CHECK(covered == data_bytes, ErrorCode::kCheckpoint,
               "{}: the tensors end at byte {} of the data, but {} are there", what, covered,
               data_bytes);
  return tensors;
}

}  // namespace nibble
