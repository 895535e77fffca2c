// The candidates of one query in one thread, thinned whenever they become many.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "cpu/query_block.h"

namespace pyengine {

// The score below which nothing matters any more, shared by the threads: it only rises.
class Threshold {
 public:
  float get() const { return value_.load(std::memory_order_relaxed); }
  void raise(float to) {
    float now = get();
    while (to > now && !value_.compare_exchange_weak(now, to, std::memory_order_relaxed)) {
    }
  }

 private:
  std::atomic<float> value_{-INFINITY};
};

struct Candidate {
  int32_t row;
  PreparedQueries::Bounds bounds;
};

class CandidatePool {
 public:
  // Add a candidate; beyond `limit` thin the pool, beyond `width` cut it.
  void add(const Candidate& candidate, int64_t k, int64_t width, float slack, Threshold& threshold) {
    if (candidate.bounds.upper < threshold.get() - slack) return;
    if (items_.empty()) limit_ = std::min(width, 2 * k + 512);
    items_.push_back(candidate);
    if (static_cast<int64_t>(items_.size()) < limit_) return;
    thin(k, slack, threshold);
    if (static_cast<int64_t>(items_.size()) <= limit_ / 4 * 3) return;
    if (limit_ < width)
      limit_ = std::min(width, 2 * limit_);
    else
      cut(width / 2, slack, threshold);
  }

  // Raise the threshold to the k-th best lower bound, and drop what lies below it.
  void thin(int64_t k, float slack, Threshold& threshold) {
    if (static_cast<int64_t>(items_.size()) >= k) {
      std::vector<float> lower(items_.size());
      std::transform(items_.begin(), items_.end(), lower.begin(), [](const Candidate& c) { return c.bounds.lower; });
      std::nth_element(lower.begin(), lower.begin() + (k - 1), lower.end(), std::greater<float>());
      threshold.raise(lower[k - 1]);
    }
    const float least = threshold.get() - slack;
    items_.erase(std::remove_if(items_.begin(), items_.end(), [&](const Candidate& c) { return c.bounds.upper < least; }),
                 items_.end());
  }

  void take(CandidatePool& other) {
    items_.insert(items_.end(), other.items_.begin(), other.items_.end());
    other.items_ = {};
  }

  void clear() { items_.clear(); }

  std::vector<Candidate>& items() { return items_; }

 private:
  // Too many to keep: keep the `most` with the best upper bounds. The threshold rises above the bound of what goes, so
  // that it still bounds all that was dropped, though k documents need not reach it: the certificate will tell.
  void cut(int64_t most, float slack, Threshold& threshold) {
    std::nth_element(items_.begin(), items_.begin() + most, items_.end(),
                     [](const Candidate& a, const Candidate& b) { return a.bounds.upper > b.bounds.upper; });
    const float bound = items_[most].bounds.upper;
    threshold.raise(std::nextafter(bound + slack, INFINITY) + slack);
    items_.resize(most);
  }

  std::vector<Candidate> items_;
  int64_t limit_ = 0;
};

}  // namespace pyengine
