// The candidates of one query in one thread, thinned whenever they become many.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
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
  double caution;    // see PreparedQueries::cautions
  const Scaling& scaling;
  Threshold& threshold;
  const KernelTable& table;

  // Dropped is what lies below.
  float least() const { return static_cast<float>(scaling.reach(threshold.get())); }
};

// A document that may be in the top k, with the product of its codes and the first part of the query's.
struct Candidate {
  int32_t row, product;
  PreparedQueries::Bounds bounds;
};

class CandidatePool {
 public:
  std::vector<Candidate>& items() { return items_; }

  void add(const Candidate& candidate, const PoolRules& rules) {
    items_.push_back(candidate);
    if (size() < std::max(limit_, std::min(rules.width, room(rules.k)))) return;
    thin(rules);
    if (size() > rules.width / 4 * 3) cut(rules);
    limit_ = std::min(rules.width, room(size()));
  }

  // Raise the threshold to what k documents are likely to reach, and drop what lies below it.
  void thin(const PoolRules& rules) {
    if (size() >= rules.k) {
      std::vector<float> likely(items_.size());
      std::transform(items_.begin(), items_.end(), likely.begin(), [&](const Candidate& each) {
        const Bounds& bounds = each.bounds;
        const double radius = static_cast<double>(bounds.estimate) - bounds.lower;
        return static_cast<float>(bounds.estimate - rules.caution * radius);
      });
      rules.threshold.raise(rules.table.kth_largest(likely.data(), static_cast<int>(size()),
                                                    static_cast<int>(rules.k)));
    }
    const float least = rules.least();
    size_t kept = 0;
    for (const Candidate& each : items_) {  // without branches: which ones stay cannot be predicted
      items_[kept] = each;
      kept += !(items_[kept].bounds.upper < least);
    }
    items_.resize(kept);
  }

  void take(CandidatePool& other) {
    items_.insert(items_.end(), other.items_.begin(), other.items_.end());
    other = CandidatePool();
  }

  void clear() { items_.clear(); }

  // Fetch the place where the next candidate goes: with many queries, it left the cache since the last tile.
  void prefetch() const { __builtin_prefetch(items_.data() + items_.size(), 1); }

 private:
  using Bounds = PreparedQueries::Bounds;

  int64_t size() const { return static_cast<int64_t>(items_.size()); }

  // A pool is thinned when it has grown by half: by then about a third of it may go.
  static int64_t room(int64_t kept) { return kept + kept / 2 + 64; }

  // Too many to keep: keep half of `width`, those with the best upper bounds. The threshold rises above the bound of
  // what goes, so that it still bounds all that was dropped, though k documents need not reach it: the certificate will
  // tell.
  void cut(const PoolRules& rules) {
    const auto most = items_.begin() + rules.width / 2;
    std::nth_element(items_.begin(), most, items_.end(),
                     [](const Candidate& a, const Candidate& b) { return a.bounds.upper > b.bounds.upper; });
    const double bound = most->bounds.upper, step = std::isinf(bound) ? 0 : bound - rules.scaling.reach(bound);
    // reach() is above bound
    rules.threshold.raise(std::nextafter(static_cast<float>(bound + 1.001 * step), INFINITY));
    items_.erase(most, items_.end());
  }

  std::vector<Candidate> items_;
  int64_t limit_ = 0;
};

}  // namespace pyengine
