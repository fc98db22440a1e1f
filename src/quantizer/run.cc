#include "quantizer/run.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <limits>
#include <mutex>
#include <utility>

#include "base/check.h"
#include "base/thread_pool.h"
#include "checkpoint/convention.h"
#include "quantizer/weight_quantizer.h"

namespace nibble {
namespace {

// A piece of a weight is read, quantized and written by one thread. Small enough that threads end
// together, large enough that the page cache takes what is written in large pages: twice as fast
// as in calls of 64 KB.
constexpr int64_t kPieceElements = 1 << 19;
constexpr int64_t kCopiedPieceBytes = 1 << 20;
// Groups up to this size stay mapped between their amax and their codes. Larger ones are read again
// from the page cache: mapped together, they could be more than memory may hold.
constexpr int64_t kMappedGroupBytes = 16 << 20;

double relative(const SquaredErrors& e) { return e.norm > 0 ? std::sqrt(e.error / e.norm) : 0.0; }

double decibels(double relative_error) {
  return relative_error > 0 ? -20.0 * std::log10(relative_error)
                            : std::numeric_limits<double>::infinity();
}

int64_t pieces(int64_t total, int64_t step) { return (total + step - 1) / step; }

enum class Work : uint8_t { kAmax, kQuantize, kCopy };

struct Piece {
  Work work;
  size_t tensor;  // of Run::weights_, or of plan.copied
  int64_t number;
};

// Pieces of tensors in a fixed order.
class Line {
 public:
  void add(Work work, size_t tensor, int64_t count) { lots_.push_back({{work, tensor, 0}, count}); }
  bool take(Piece& piece) {
    while (lot_ < lots_.size() && lots_[lot_].next.number == lots_[lot_].count) ++lot_;
    if (lot_ == lots_.size()) return false;
    piece = lots_[lot_].next;
    ++lots_[lot_].next.number;
    return true;
  }

 private:
  struct Lot {
    Piece next;
    int64_t count;
  };
  std::vector<Lot> lots_;
  size_t lot_ = 0;
};

// One hand-out of pieces to the end, without a barrier between tensors: most are too small to keep
// many threads busy alone. A group's amax is taken while the group before is quantized.
class Run {
 public:
  Run(const Checkpoint& source, const QuantizePlan& plan, const QuantizeOptions& options,
      const Device& device, CheckpointWriter& writer, const QuantizeProgressFn& progress)
      : source_(source),
        plan_(plan),
        options_(options),
        pool_(device.pool()),
        writer_(writer),
        progress_(progress),
        quantizer_(options, device) {
    groups_.resize(plan.groups.size());
    for (size_t g = 0; g < groups_.size(); ++g) {
      groups_[g].first = weights_.size();
      for (const auto& weight : plan.groups[g].weights) {
        const int64_t rows = std::max<int64_t>(1, kPieceElements / std::max<int64_t>(1, weight.k));
        weights_.push_back({.plan = weight,
                            .group = g,
                            .bytes = source.bytes(weight.tensor),
                            .rows = rows,
                            .pieces = std::max<int64_t>(1, pieces(weight.n, rows))});
        groups_[g].bytes += static_cast<int64_t>(weights_.back().bytes.size());
      }
      groups_[g].end = weights_.size();
      add_amax(g);
      if (g > 0) add_quantize(g - 1);
    }
    if (!groups_.empty()) add_quantize(groups_.size() - 1);
    for (size_t i = 0; i < plan.copied.size(); ++i) {
      const auto bytes = static_cast<int64_t>(source.bytes(plan.copied[i]).size());
      copies_.add(Work::kCopy, i, pieces(bytes, kCopiedPieceBytes));
      copied_left_.push_back(pieces(bytes, kCopiedPieceBytes));
    }
  }

  QuantizeReport run() {
    // Not a range to divide: whoever comes takes pieces from the lines until none is left.
    pool_.share(pool_.size(), 1, [&](int worker, ThreadPool::Parts&) {
      try {
        work(worker);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
        ready_.notify_all();
      }
    });
    if (error_) std::rethrow_exception(error_);
    report_progress();
    QuantizeReport report;
    SquaredErrors total;
    for (const Weight& w : weights_) {
      const double error = relative(w.sum);
      report.tensors.push_back({w.plan.module, w.plan.n, w.plan.k, w.plan.format,
                                groups_[w.group].scale, error, decibels(error)});
      total += w.sum;
    }
    std::sort(report.tensors.begin(), report.tensors.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    report.relative_error = relative(total);
    report.snr_db = decibels(report.relative_error);
    return report;
  }

 private:
  struct Weight {
    const QuantizePlan::Weight& plan;
    size_t group;
    std::span<const uint8_t> bytes;
    int64_t rows;    // of a piece
    int64_t pieces;  // one at least: it writes what there is one of
    // Of each piece: summed in their order, so that a report does not depend on who came first.
    std::vector<SquaredErrors> errors = {};
    SquaredErrors sum = {};
    int64_t amax_left = 0;
    int64_t left = 0;  // pieces to quantize
  };
  struct Group {
    size_t first = 0, end = 0;  // of weights_
    int64_t bytes = 0;
    int64_t amax_left = 0;  // pieces
    float amax = 0.0f;
    float scale = 1.0f;
  };

  void add_amax(size_t g) {
    for (size_t i = groups_[g].first; i < groups_[g].end; ++i) {
      Weight& w = weights_[i];
      if (w.plan.format != WeightFormat::kNvfp4) continue;
      w.amax_left = w.pieces;
      groups_[g].amax_left += w.amax_left;
      weights_line_.add(Work::kAmax, i, w.amax_left);
    }
  }

  void add_quantize(size_t g) {
    for (size_t i = groups_[g].first; i < groups_[g].end; ++i) {
      Weight& w = weights_[i];
      w.left = w.pieces;
      // What waits for no amax may run at any time.
      Line& line = w.plan.copied && groups_[g].amax_left == 0 ? copies_ : weights_line_;
      line.add(Work::kQuantize, i, w.left);
    }
  }

  // Copying goes to one thread as long as there is something to quantize: two that write the same
  // file without computing would wait for each other.
  bool take(int worker, Piece& piece) {
    const std::lock_guard lock(mutex_);
    if (error_) return false;
    const bool copies_first = worker == pool_.size() - 1;
    Line& first = copies_first ? copies_ : weights_line_;
    Line& second = copies_first ? weights_line_ : copies_;
    return first.take(piece) || second.take(piece);
  }

  void work(int worker) {
    Piece piece;
    while (take(worker, piece)) {
      switch (piece.work) {
        case Work::kAmax:
          find_amax(weights_[piece.tensor], piece.number);
          break;
        case Work::kQuantize:
          quantize(worker, weights_[piece.tensor], piece.number);
          break;
        case Work::kCopy:
          copy(piece.tensor, piece.number);
          break;
      }
      if (worker == 0) report_progress();  // the caller
    }
  }

  SourceWeight rows_of(const Weight& w, int64_t number) const {
    const int64_t row = number * w.rows;
    const int64_t n = std::min(w.rows, w.plan.n - row);
    const int64_t row_size = w.plan.k * static_cast<int64_t>(size_of(w.plan.dtype));
    return {w.bytes.subspan(static_cast<size_t>(row * row_size), static_cast<size_t>(n * row_size)),
            w.plan.dtype, n, w.plan.k};
  }

  void check_finite(const Weight& w, double value) const {
    NIBBLE_CHECK(std::isfinite(value), ErrorCode::kCheckpoint, "{}: tensor {} holds NaN or Inf",
                 source_.dir().string(), w.plan.tensor);
  }

  void find_amax(Weight& w, int64_t number) {
    const float amax = quantizer_.amax(rows_of(w, number));
    check_finite(w, amax);
    Group& group = groups_[w.group];
    bool release = false;
    {
      const std::lock_guard lock(mutex_);
      release = --w.amax_left == 0 && group.bytes > kMappedGroupBytes;
      group.amax = std::max(group.amax, amax);
      if (--group.amax_left == 0) {
        group.scale = quantizer_.global_decode_scale(w.plan.format, group.amax);
        ready_.notify_all();
      }
    }
    if (release) source_.release(w.plan.tensor);
  }

  void quantize(int worker, Weight& w, int64_t number) {
    const Group& group = groups_[w.group];
    {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [&] { return group.amax_left == 0 || error_; });
      if (error_) return;
    }
    const SourceWeight rows = rows_of(w, number);
    const auto made = quantizer_.quantize(worker, rows, w.plan.format, group.scale);
    check_finite(w, made.errors.error);

    WeightTensor part;
    part.name = w.plan.module;
    part.format = w.plan.format;
    part.n = rows.n;
    part.k = rows.k;
    part.codes = made.codes;
    part.scales = made.scales;
    part.row_scales = made.row_scales;
    if (w.plan.format == WeightFormat::kNvfp4) part.segments = {{0, group.scale}};
    write_linear(writer_, part.name, part, options_.convention, number * w.rows);
    if (w.plan.copied) writer_.write(w.plan.tensor, rows.bytes, rows.bytes.data() - w.bytes.data());

    {
      const std::lock_guard lock(mutex_);
      w.errors.resize(static_cast<size_t>(w.pieces));
      w.errors[static_cast<size_t>(number)] = made.errors;
      if (--w.left > 0) return;
      for (const SquaredErrors& e : w.errors) w.sum += e;
      w.errors = {};
      done_bytes_ += static_cast<int64_t>(w.bytes.size());
      done_.push_back(&w.plan.tensor);
    }
    source_.release(w.plan.tensor);
  }

  void copy(size_t index, int64_t number) {
    const std::string& name = plan_.copied[index];
    const auto bytes = source_.bytes(name);
    const auto begin = static_cast<size_t>(number * kCopiedPieceBytes);
    const size_t size = std::min<size_t>(kCopiedPieceBytes, bytes.size() - begin);
    writer_.write(name, bytes.subspan(begin, size), static_cast<int64_t>(begin));
    {
      const std::lock_guard lock(mutex_);
      if (--copied_left_[index] > 0) return;
      done_bytes_ += static_cast<int64_t>(bytes.size());
      done_.push_back(&name);
    }
    source_.release(name);
  }

  void report_progress() {
    if (!progress_) return;
    std::vector<const std::string*> done;
    int64_t bytes = 0;
    {
      const std::lock_guard lock(mutex_);
      done.swap(done_);
      bytes = done_bytes_;
    }
    for (const std::string* tensor : done) progress_({bytes, plan_.bytes_in, *tensor});
  }

  const Checkpoint& source_;
  const QuantizePlan& plan_;
  const QuantizeOptions& options_;
  ThreadPool& pool_;
  CheckpointWriter& writer_;
  const QuantizeProgressFn& progress_;
  WeightQuantizer quantizer_;

  std::mutex mutex_;  // of all below, and of what is counted in weights_ and groups_
  std::condition_variable ready_;
  std::vector<Weight> weights_;
  std::vector<Group> groups_;
  Line weights_line_, copies_;
  std::vector<int64_t> copied_left_;      // pieces of each copied tensor
  std::vector<const std::string*> done_;  // tensors that progress was not called for yet
  int64_t done_bytes_ = 0;
  std::exception_ptr error_;
};

}  // namespace

QuantizeReport run_plan(const Checkpoint& source, const QuantizePlan& plan,
                        const QuantizeOptions& options, const Device& device,
                        CheckpointWriter& writer, const QuantizeProgressFn& progress) {
  return Run(source, plan, options, device, writer, progress).run();
}

}  // namespace nibble
