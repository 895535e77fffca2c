// The candidates of a block of queries while documents are scanned: thresholds that rise, limits, pools, and what is
// reported in the end.
#pragma once

#include <limits>
#include <vector>

#include "cpu/candidate_pool.h"
#include "cpu/dense.h"
#include "cpu/parallel.h"
#include "cpu/query_block.h"

namespace pyengine {

// What a pass goes over: a sample, only to find a threshold, or the corpus.
enum Extent { SAMPLE, CORPUS };

// What a scan keeps. See ScanPlan.
struct Wanted {
  int64_t k, sample_rank, width;
};

class Selection {
 public:
  // `caution` per query: see PreparedQueries::cautions.
  Selection(const Wanted& wanted, int dims, std::vector<Scaling> scaling, std::vector<double> caution, int threads,
            const KernelTable& table);

  int64_t count() const { return static_cast<int64_t>(scaling_.size()); }
  const Scaling& scaling(int64_t query) const { return scaling_[query]; }

  // Rank scores below and above which a document does not count: see Queries.
  void set_floor(int64_t query, double floor) { thresholds_[query].raise(start(scaling_[query], floor)); }
  void set_ceiling(int64_t query, double ceiling) { ceilings_[query] = limit(scaling_[query], ceiling); }

  // What cannot reach this need not be added.
  double reach(int64_t query) const { return scaling_[query].reach(thresholds_[query].get()); }

  void prefetch(int64_t query, int thread) const { pools_[thread][query].prefetch(); }
  void add(Candidate candidate, int64_t query, Extent extent, int thread) {
    if (admit(candidate, query, extent, thread)) pools_[thread][query].add(candidate, rules(query, extent));
  }

  // Bring the threads' candidates together, and thin them by what all of them know; after the sample, nothing stays.
  void settle(Extent extent, const Interrupt& interrupt);
  // Thin again by bounds that have become sharper.
  void settle_sharper(const Interrupt& interrupt);

  // After the corpus was settled.
  std::vector<Candidate>& found(int64_t query) { return pools_[0][query].items(); }
  // Empties the pools. `sign`: the score's where the rank score is its negative.
  void write(double sign, CandidateLists& out);

 private:
  // In units of s: documents above `high` surely exceed the ceiling, those below `low` surely do not.
  struct Ceiling {
    float low = INFINITY, high = INFINITY;
  };

  bool admit(Candidate& candidate, int64_t query, Extent extent, int thread);
  PoolRules rules(int64_t query, Extent extent);
  double rounding(const Scaling& s, double reach) const;
  float start(const Scaling& s, double floor) const;
  Ceiling limit(const Scaling& s, double ceiling) const;

  Wanted wanted_;
  int dims_, threads_;
  const KernelTable& table_;
  std::vector<Scaling> scaling_;
  std::vector<double> caution_;
  std::vector<Threshold> thresholds_;
  std::vector<Ceiling> ceilings_;
  std::vector<std::vector<CandidatePool>> pools_;  // [thread][query]
  std::vector<std::vector<int64_t>> above_;        // [thread][query]
};

}  // namespace pyengine
