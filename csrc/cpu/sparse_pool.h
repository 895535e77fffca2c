// The candidates of one query in one thread while windows are scanned.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/dispatch.h"

namespace pyengine {

// A score below which nothing matters: it only rises. It starts at what no document that is not listed exceeds.
class ScoreFloor {
 public:
  explicit ScoreFloor(double start) : value_(start) {}
  ScoreFloor(ScoreFloor&& other) noexcept : value_(other.get()) {}

  double get() const { return value_.load(std::memory_order_relaxed); }
  void raise(double to) {
    double now = get();
    while (to > now && !value_.compare_exchange_weak(now, to, std::memory_order_relaxed)) {
    }
  }

 private:
  std::atomic<double> value_;
};

struct ScoredRow {
  double lower, upper;  // of its score
  int64_t row;
};

// So far below a score that float32 tells them apart.
inline double surely_below(double score) { return score - std::fabs(score) * 0x1p-22 - 0x1p-147; }

// A float32 that is not above it.
inline float float_below(double x) {
  constexpr double LARGEST = std::numeric_limits<float>::max();
  const float near = static_cast<float>(std::min(std::max(x, -LARGEST), LARGEST));
  return near - std::fabs(near) * 0x1p-23f - std::numeric_limits<float>::denorm_min();
}

class SparsePool {
 public:
  std::vector<ScoredRow>& items() { return items_; }

  void add(const ScoredRow& row, int64_t k, int64_t most, ScoreFloor& floor) {
    items_.push_back(row);
    if (size() < std::max(limit_, k + k / 2 + 64)) return;
    thin(k, floor);
    if (size() > most) cut(most / 2, floor);
    limit_ = size() + size() / 2 + 64;
  }

  // Raise the floor to what k rows surely exceed, and drop what lies below it.
  void thin(int64_t k, ScoreFloor& floor) {
    if (size() >= k) {
      lowers_.resize(items_.size());
      std::transform(items_.begin(), items_.end(), lowers_.begin(), [](const ScoredRow& each) { return float_below(each.lower); });
      floor.raise(surely_below(kernels().kth_largest(lowers_.data(), static_cast<int>(size()), static_cast<int>(k))));
    }
    const double least = floor.get();
    items_.erase(std::remove_if(items_.begin(), items_.end(), [&](const ScoredRow& each) { return each.upper < least; }), items_.end());
  }

  void take(SparsePool& other) {
    items_.insert(items_.end(), other.items_.begin(), other.items_.end());
    other = SparsePool();
  }

 private:
  int64_t size() const { return static_cast<int64_t>(items_.size()); }

  // Too many to keep: the floor rises above the bounds of what goes, so that it still bounds all that was dropped.
  void cut(int64_t kept, ScoreFloor& floor) {
    std::nth_element(items_.begin(), items_.begin() + kept, items_.end(),
                     [](const ScoredRow& a, const ScoredRow& b) { return a.upper > b.upper; });
    floor.raise(std::nextafter(items_[kept].upper, std::numeric_limits<double>::infinity()));
    items_.resize(kept);
  }

  std::vector<ScoredRow> items_;
  std::vector<float> lowers_;
  int64_t limit_ = 0;
};

}  // namespace pyengine
