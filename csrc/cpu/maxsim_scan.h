// Late interaction's top-k: candidates with a bound.
#pragma once

#include "cpu/dense.h"
#include "cpu/maxsim.h"

namespace pyengine {

// What is asked. Optional pointers may be null; floor and ceiling as in Queries.
struct TokenSearch {
  Tokens queries;  // float32
  Tokens docs;
  bool normalize = false;
  Reduction reduce = Reduction::sum;      // sum or mean
  const float* query_weights = nullptr;   // optional [tokens of the queries]
  const uint8_t* mask = nullptr;          // optional bitmap of what may be returned
  int64_t mask_stride = 0;                // bytes from query to query; 0: one bitmap for all
  const double* bias = nullptr;           // optional [documents]
  const double* floor = nullptr;          // optional [queries]
  const double* ceiling = nullptr;
};

// How the proposer runs: decided by kernels/plan.py. See ScanPlan for what is not explained.
struct TokenScanPlan {
  int tile = 0;              // document tokens per tile
  int64_t share = 0;         // documents handed to a thread at a time
  int64_t sample = 0;        // documents
  int64_t sample_rank = 0;
  int64_t width = 0;
  int64_t query_tokens = 0;  // most tokens of the queries scanned together, unless one has more
  double deviations = std::numeric_limits<double>::infinity();
};

CandidateLists propose_tokens(const TokenSearch& search, int64_t k, const TokenScanPlan& plan, int threads,
                              const Interrupt& interrupt);

}  // namespace pyengine
