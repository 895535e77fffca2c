// The candidates of one query in one thread, thinned whenever they become many.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <vector>

#include "cpu/query_block.h"

namespace pyengine {

// The score below which nothing matters any more, shared by the threads: it only rises. Soundness does not depend on
// how it was found: whatever it is, `dropped` is reported from it. That k documents reach it is what lets the
// certificate pass.
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

// What all pools of a query share.
struct PoolRules {
  int64_t k, width;  // wanted; kept at most
  const Scaling& scaling;
  Threshold& threshold;
  const KernelTable& table;

  // Dropped is what lies below.
  float least() const { return static_cast<float>(scaling.reach(threshold.get())); }
};

class CandidatePool {
 public:
  using Bounds = PreparedQueries::Bounds;

  int64_t size() const { return static_cast<int64_t>(row_.size()); }
  int32_t row(int64_t i) const { return row_[i]; }
  float estimate(int64_t i) const { return estimate_[i]; }

  void add(int32_t row, const Bounds& bounds, const PoolRules& rules) {
    if (bounds.upper < rules.least()) return;
    append(row, bounds.estimate, bounds.lower, bounds.upper);
    if (size() < std::max(limit_, std::min(rules.width, room(rules.k)))) return;
    thin(rules);
    if (size() > rules.width / 4 * 3) cut(rules);
    limit_ = std::min(rules.width, room(size()));
  }

  // Raise the threshold to the k-th best lower bound, and drop what lies below it.
  void thin(const PoolRules& rules) {
    if (size() >= rules.k)
      rules.threshold.raise(rules.table.kth_largest(lower_.data(), static_cast<int>(size()), static_cast<int>(rules.k)));
    const float least = rules.least();
    int64_t kept = 0;
    for (int64_t i = 0; i < size(); ++i) {  // without branches: which ones stay cannot be predicted
      row_[kept] = row_[i], estimate_[kept] = estimate_[i], lower_[kept] = lower_[i], upper_[kept] = upper_[i];
      kept += !(upper_[i] < least);
    }
    resize(kept);
  }

  void take(CandidatePool& other) {
    for (int64_t i = 0; i < other.size(); ++i)
      append(other.row_[i], other.estimate_[i], other.lower_[i], other.upper_[i]);
    other = CandidatePool();
  }

  void clear() { resize(0); }

 private:
  // A pool is thinned when it has grown by half: by then about a third of it may go.
  static int64_t room(int64_t kept) { return kept + kept / 2 + 64; }

  void append(int32_t row, float estimate, float lower, float upper) {
    row_.push_back(row), estimate_.push_back(estimate), lower_.push_back(lower), upper_.push_back(upper);
  }

  void resize(int64_t n) { row_.resize(n), estimate_.resize(n), lower_.resize(n), upper_.resize(n); }

  // Too many to keep: keep half of `width`, those with the best upper bounds. The threshold rises above the bound of
  // what goes, so that it still bounds all that was dropped, though k documents need not reach it: the certificate will
  // tell.
  void cut(const PoolRules& rules) {
    const int64_t most = rules.width / 2;
    std::vector<int32_t> order(row_.size());
    std::iota(order.begin(), order.end(), 0);
    std::nth_element(order.begin(), order.begin() + most, order.end(),
                     [&](int32_t a, int32_t b) { return upper_[a] > upper_[b]; });
    const double bound = upper_[order[most]], step = std::isinf(bound) ? 0 : bound - rules.scaling.reach(bound);
    rules.threshold.raise(std::nextafter(static_cast<float>(bound + 1.001 * step), INFINITY));  // reach() is above bound
    CandidatePool kept;
    for (int64_t i = 0; i < most; ++i)
      kept.append(row_[order[i]], estimate_[order[i]], lower_[order[i]], upper_[order[i]]);
    *this = std::move(kept);
  }

  // Arrays apart, since selection reads one of them.
  std::vector<int32_t> row_;
  std::vector<float> estimate_, lower_, upper_;
  int64_t limit_ = 0;
};

}  // namespace pyengine
