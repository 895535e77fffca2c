// The candidates of one query in one thread while windows are scanned. Their scores are compared as they are ranked: as
// float32, and where the first rows come first, of equal ones by row.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/sparse.h"

namespace pyengine {

constexpr float LEAST_POSITIVE = std::numeric_limits<float>::denorm_min();

// The largest float64 that is rounded to less than `least`.
inline double rounds_below(float least) {
  const float before = std::nextafter(least, -std::numeric_limits<float>::infinity());
  const double middle = (static_cast<double>(before) + least) / 2;
  return static_cast<float>(middle) < least ? middle : std::nextafter(middle, -std::numeric_limits<double>::infinity());
}

// The largest float32 that is not above it.
inline float at_most(double score) {
  const float near = rounded_score(score);
  return near > score ? std::nextafter(near, -std::numeric_limits<float>::infinity()) : near;
}

struct ScoredRow {
  float lower, upper;  // of its score
  int64_t row;
};

// The last place in a ranking that matters; it only rises.
class ScoreFloor {
 public:
  explicit ScoreFloor(float least) : key_(key(least, ANY_ROW)) {}
  ScoreFloor(ScoreFloor&& other) noexcept : key_(other.get()) {}

  // Whether a document of this score and row may matter.
  bool admits(float score, int64_t row) const { return key(score, row) >= get(); }
  // What scores less does not matter, nor what scores as much in a row behind the last.
  void raise(float least, int64_t last = ANY_ROW) {
    const int64_t to = key(least, last);
    int64_t now = get();
    while (to > now && !key_.compare_exchange_weak(now, to, std::memory_order_relaxed)) {
    }
  }
  float least() const {
    const int32_t order = static_cast<int32_t>(get() >> 32), bits = order ^ (order >> 31 & INT32_MAX);
    float score;
    std::memcpy(&score, &bits, sizeof score);
    return score;
  }
  // Of the scores of what does not matter, but for ties: 0 where all that is above 0 does.
  double bound() const {
    const bool any_row = static_cast<uint32_t>(get()) == 0;
    return least() == LEAST_POSITIVE && any_row ? 0 : rounds_below(least());
  }

  static constexpr int64_t ANY_ROW = UINT32_MAX;

 private:
  // Rises with the score (no NaN), and falls with the row, below 2^32.
  static int64_t key(float score, int64_t row) {
    int32_t bits;
    std::memcpy(&bits, &score, sizeof bits);
    return static_cast<int64_t>(bits ^ (bits >> 31 & INT32_MAX)) * (int64_t{1} << 32) + (ANY_ROW - row);
  }
  int64_t get() const { return key_.load(std::memory_order_relaxed); }

  std::atomic<int64_t> key_;
};

// How many are wanted, at most kept, and whether the first rows come first.
struct SparseRules {
  int64_t k, most;
  bool by_row;
};

class SparsePool {
 public:
  std::vector<ScoredRow>& items() { return items_; }

  void add(const ScoredRow& row, const SparseRules& rules, ScoreFloor& floor) {
    if (!floor.admits(row.upper, row.row)) return;
    items_.push_back(row);
    if (size() < std::max(limit_, rules.k + rules.k / 2 + 64)) return;
    thin(rules, floor);
    if (size() > rules.most) cut(rules.most / 2, floor);
    limit_ = size() + size() / 2 + 64;
  }

  // Raise the floor to what k rows surely reach, and drop what does not.
  void thin(const SparseRules& rules, ScoreFloor& floor) {
    if (size() >= rules.k) {
      const float least = kth_lower(rules.k);
      floor.raise(least, rules.by_row ? last_row(least, rules.k) : ScoreFloor::ANY_ROW);
    }
    const auto beaten = [&](const ScoredRow& each) { return !floor.admits(each.upper, each.row); };
    items_.erase(std::remove_if(items_.begin(), items_.end(), beaten), items_.end());
  }

  void take(SparsePool& other) {
    items_.insert(items_.end(), other.items_.begin(), other.items_.end());
    other = SparsePool();
  }

 private:
  int64_t size() const { return static_cast<int64_t>(items_.size()); }

  float kth_lower(int64_t k) {
    lowers_.resize(items_.size());
    std::transform(items_.begin(), items_.end(), lowers_.begin(), [](const ScoredRow& each) { return each.lower; });
    const float near = kernels().kth_largest(lowers_.data(), static_cast<int>(size()), static_cast<int>(k));
    float least = std::numeric_limits<float>::infinity();  // of those from there on, which are k or tie
    for (const float lower : lowers_) least = lower >= near ? std::min(least, lower) : least;
    return least;
  }

  // The row up to which those that surely score `least`, the k-th largest lower bound, are among k.
  int64_t last_row(float least, int64_t k) {
    rows_.clear();
    for (const ScoredRow& each : items_) {
      k -= each.lower > least;
      if (each.lower == least) rows_.push_back(each.row);
    }
    std::nth_element(rows_.begin(), rows_.begin() + (k - 1), rows_.end());
    return rows_[k - 1];
  }

  // Too many to keep: the floor rises above the bounds of what goes, so that it still bounds all that was dropped.
  void cut(int64_t kept, ScoreFloor& floor) {
    std::nth_element(items_.begin(), items_.begin() + kept, items_.end(),
                     [](const ScoredRow& a, const ScoredRow& b) { return a.upper > b.upper; });
    floor.raise(std::nextafter(items_[kept].upper, std::numeric_limits<float>::infinity()));
    items_.resize(kept);
  }

  std::vector<ScoredRow> items_;
  std::vector<float> lowers_;
  std::vector<int64_t> rows_;
  int64_t limit_ = 0;
};

}  // namespace pyengine
