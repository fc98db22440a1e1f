#include "dispatch/tuning.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "dispatch/gemm_plan.h"
#include "nibble/error.h"
#include "nibble/tune.h"

namespace nibble {
namespace {

using testing::HasSubstr;

const TuningKey kKey{"chip", "1.2", "3"};

TunedChoice choice(std::string desc, std::string impl, double us, double model_us) {
  return {"gemm", std::move(desc), std::move(impl), {.tile_m = 8, .cluster = 2}, us, model_us,
          0.05};
}

// A cache folder of its own for every test.
class Tuning : public testing::Test {
 protected:
  Tuning()
      : folder_(testing::TempDir() + "/" +
                testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(folder_);
    ::setenv("NIBBLE_CACHE_DIR", folder_.c_str(), 1);
  }
  ~Tuning() override { ::unsetenv("NIBBLE_CACHE_DIR"); }

  void write(const std::string& text) const {
    std::filesystem::create_directories(folder_);
    std::ofstream(path()) << text;
  }
  std::filesystem::path path() const { return folder_ / "table.json"; }

  std::string error_of_read() const {
    try {
      TuningTable::read(path(), kKey);
      return "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      return e.what();
    }
  }

  std::filesystem::path folder_;
};

TEST_F(Tuning, ReadsWhatItWrote) {
  TuningTable table(kKey);
  table.put(choice("m=1", "a", 1.0, 2.0));
  table.put(choice("m=2", "b", 1.0, 1.01));
  table.put(choice("m=1", "c", 3.0, 4.0));  // replaces
  table.write(path());
  const TuningTable read = TuningTable::read(path(), kKey);
  ASSERT_EQ(read.choices().size(), 2u);
  const TunedChoice* one = read.find("gemm", "m=1");
  ASSERT_NE(one, nullptr);
  EXPECT_EQ(one->impl, "c");
  EXPECT_EQ(one->config, (KernelConfig{.tile_m = 8, .cluster = 2}));
  EXPECT_DOUBLE_EQ(one->us, 3.0);
  EXPECT_TRUE(one->pays());
  EXPECT_FALSE(read.find("gemm", "m=2")->pays());  // within its noise
  EXPECT_EQ(read.find("quantize", "m=1"), nullptr);
}

TEST_F(Tuning, ATableOfAnotherDriverIsLeftAside) {
  TuningTable table(kKey);
  table.put(choice("m=1", "a", 1.0, 2.0));
  table.write(path());
  for (const TuningKey& other : {TuningKey{"chip", "1.3", "3"}, TuningKey{"chip", "1.2", "4"},
                                 TuningKey{"chop", "1.2", "3"}}) {
    EXPECT_TRUE(TuningTable::read(path(), other).empty());
  }
  EXPECT_TRUE(TuningTable::read(folder_ / "missing", kKey).empty());
}

TEST_F(Tuning, ABrokenTableIsATypedErrorThatNamesIt) {
  write("{");
  EXPECT_THAT(error_of_read(), HasSubstr("table.json: expected a tuning table"));
  write("{}");
  EXPECT_THAT(error_of_read(), HasSubstr("expected a tuning table"));
  write(R"({"nibble_tuning": 7})");
  EXPECT_THAT(error_of_read(), HasSubstr("expected nibble_tuning 1, found 7"));
  write(R"({"nibble_tuning": 1, "key": {"device": "chip", "driver": "1.2", "version": "3"},
            "choices": [{"op": 5}]})");
  EXPECT_THAT(error_of_read(), HasSubstr("expected a tuning table"));
}

GemmDesc desc_of_one_row(const Device& device) {
  PreparedWeight header;
  header.format = WeightFormat::kNvfp4;
  header.n = 64;
  header.k = 64;
  header.layout = choose_layout(header, device, ActivationMode::k16Bit).layout;
  return planned_descs(header, {}, device.info())[0];
}

KernelChoice choice_of_one_row(const Device& device) {
  return choose_gemm(WeightFormat::kNvfp4, 64, 64, 1, device, {});
}

TEST_F(Tuning, ADeviceTakesWhatPaysAndSaysSo) {
  const Device plain = Device::cpu(1);
  EXPECT_EQ(plain.tuning(), nullptr);
  const KernelChoice before = choice_of_one_row(plain);
  ASSERT_NE(before.impl, "ref_gemm");

  TuningTable table(tuning_key(plain.info()));
  TunedChoice tuned{"gemm", to_string(desc_of_one_row(plain)), "ref_gemm", {}, 1.0, 2.0, 0.05};
  table.put(tuned);
  table.write(*tuning_path(plain.info()));
  const KernelChoice after = choice_of_one_row(Device::cpu(1));
  EXPECT_EQ(after.impl, "ref_gemm");
  EXPECT_THAT(after.reason, HasSubstr("tuned on this device: 1.0 us, by the cost model 2.0"));
  EXPECT_EQ(choice_of_one_row(Device::cpu(2)).impl, before.impl);  // another key
  EXPECT_EQ(choice_of_one_row(Device::cpu(1, "gemm=" + before.impl)).impl, before.impl);

  tuned.us = 1.95;  // 5 % of noise
  table.put(tuned);
  table.write(*tuning_path(plain.info()));
  EXPECT_EQ(choice_of_one_row(Device::cpu(1)).impl, before.impl);

  tuned.us = 1.0;
  tuned.impl = "gone_gemm";
  table.put(tuned);
  table.write(*tuning_path(plain.info()));
  EXPECT_EQ(choice_of_one_row(Device::cpu(1)).impl, before.impl);
}

TuneOptions small(const Device& device) {
  TuneOptions options;
  options.shapes = {{WeightFormat::kNvfp4, 64, 64}};
  options.max_m = 2;
  options.path = default_tuning_path(device);
  return options;
}

TEST_F(Tuning, TuneTimesOnceAndResumes) {
  const Device device = Device::cpu(1);
  std::vector<std::string> descs;
  const auto note = [&](const TuneStep& s) {
    EXPECT_EQ(s.total, 2);
    EXPECT_EQ(s.done, std::ssize(descs) + 1);
    EXPECT_GT(s.us, 0);
    EXPECT_GT(s.model_us, 0);
    descs.emplace_back(s.desc);
  };
  const TuneReport first = tune(device, small(device), note);
  EXPECT_EQ(first.timed, 2);
  EXPECT_EQ(first.resumed, 0);
  EXPECT_GE(first.geomean_gain, 1.0);
  ASSERT_EQ(descs.size(), 2u);
  EXPECT_THAT(descs[0], HasSubstr("m=1 n=64 k=64 nvfp4"));
  const TuningTable table =
      TuningTable::read(default_tuning_path(device), tuning_key(device.info()));
  EXPECT_EQ(table.choices().size(), 2u);

  descs.clear();
  const TuneReport again = tune(device, small(device), note);
  EXPECT_EQ(again.timed, 0);
  EXPECT_EQ(again.resumed, 2);

  descs.clear();
  TuneOptions fresh = small(device);
  fresh.fresh = true;
  EXPECT_EQ(tune(device, fresh, note).timed, 2);
}

TEST_F(Tuning, TuneRefusesWhatItDoesNotKnow) {
  const Device device = Device::cpu(1);
  const auto error_of = [&](const TuneOptions& options) -> std::string {
    try {
      tune(device, options, [](const TuneStep&) {});
      return "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      return e.what();
    }
  };
  TuneOptions options = small(device);
  options.skip_ops = {"gem"};
  EXPECT_THAT(error_of(options), HasSubstr("unknown op 'gem'; known: gemm, quantize"));
  options = small(device);
  options.shapes[0].k = 0;
  EXPECT_THAT(error_of(options), HasSubstr("found 64 x 0"));
  options = small(device);
  options.max_m = 0;
  EXPECT_THAT(error_of(options), HasSubstr("max_m must be at least 1"));

  options = small(device);
  options.skip_ops = {"gemm"};
  EXPECT_EQ(tune(device, options, [](const TuneStep&) { FAIL(); }).timed, 0);
  EXPECT_FALSE(std::filesystem::exists(options.path));
}

}  // namespace
}  // namespace nibble
