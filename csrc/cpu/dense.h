// Dense top-k: propose candidates with a bound (dense.cpp), refine and select them (refine.cpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/rows.h"

namespace pyengine {

enum class Metric { cosine, dot, l2 };

// A corpus and what is asked of it. Pointers are borrowed; optional ones may be null.
struct Corpus {
  int64_t n = 0;
  int dim = 0;   // floats of a row
  int dims = 0;  // floats that are scored: a prefix
  Rows rows;
  const uint8_t* codes = nullptr;  // optional [n, code_stride], with scale and residual [n] (see RowCode)
  int64_t code_stride = 0;
  int code_planes = 0;  // the codes as so many bit planes (RowKind::planes); 0: as bytes
  const float* scale = nullptr;
  const float* residual = nullptr;
  const double* norms = nullptr;         // optional [n]: |d|; required with codes
  const double* prefix_norms = nullptr;  // required with codes where dims < dim: the norm of the scored prefix
  double largest_norm = 0;               // of norms; 0 where they are unknown
  bool unchecked = false;                // the rows may hold NaN or inf, for which exact_topk is to throw NonFiniteRow
  double largest_centroid = -1;          // of rows that are residuals, where tiles code what is left; else below 0
  const uint8_t* mask = nullptr;         // optional bitmap of what may be returned
  int64_t mask_stride = 0;               // bytes from query to query; 0: one bitmap for all
  const double* bias = nullptr;          // optional [n]
  Metric metric = Metric::cosine;

  // Optional [n, dim padded to DEPTH_STEP]: sliced vectors, whose products count where the slices are those of the
  // query. For `dot` alone, and dims = dim.
  const uint8_t* slices = nullptr;
  int64_t slice_stride = 0;

  const int32_t* listed = nullptr;  // optional [n_listed]: the rows that `mask` allows, where no others are to be read
  int64_t n_listed = 0;

  int64_t considered() const { return listed ? n_listed : n; }
  bool allowed(int64_t query, int64_t row) const {
    return !mask || (mask[query * mask_stride + (row >> 3)] >> (row & 7) & 1);
  }
};

struct Queries {
  const float* rows = nullptr;  // [n, dim]
  int64_t n = 0;
  const uint8_t* slices = nullptr;  // [n, slice_stride], where the corpus has slices
  // Optional [n], rank scores (the score, or minus the distance). What is surely below the floor does not matter. What
  // is surely above the ceiling is counted and left out; what may be above it does not raise the threshold.
  const double* floor = nullptr;
  const double* ceiling = nullptr;
};

// How the proposer runs: decided by kernels/plan.py.
struct ScanPlan {
  int tile = 0;         // documents per tile
  int sample = 0;       // documents sampled for a first threshold; 0 for none
  int64_t sample_rank = 0;  // which of the sample's best sets it
  int64_t width = 0;    // most candidates kept per query
  int query_block = 0;  // queries scanned together
  int row_queries = 0;  // up to so many queries are scanned as rows, more as panels
  // The threshold is the k-th best of what scores are likely to reach: their estimates, less so many deviations of
  // rounding errors (see PreparedQueries::cautions). With infinity, of their lower bounds: then k documents reach it
  // for sure.
  double deviations = std::numeric_limits<double>::infinity();
};

// Ragged result: query q owns [offsets[q], offsets[q + 1]). See pyengine.types.Candidates.
struct CandidateLists {
  std::vector<int64_t> rows;
  std::vector<int64_t> offsets{0};
  std::vector<float> estimates;
  std::vector<double> dropped;
  std::vector<int64_t> above;  // per query, how many were left out above the ceiling
};

struct NonFiniteRow : std::runtime_error {
  explicit NonFiniteRow(int64_t row_) : std::runtime_error("a row is not finite"), row(row_) {}
  int64_t row;
};

CandidateLists propose(const Corpus& corpus, const Queries& queries, int64_t k, const ScanPlan& plan, int threads,
                       const Interrupt& interrupt);

// The specification's float32 scores of listed rows, one per entry.
void refine(const Corpus& corpus, const Queries& queries, const int64_t* rows, const int64_t* offsets, float* scores,
            int threads, const Interrupt& interrupt);

// The k best of each query's list, padded; ids null for row numbers.
void select(const float* scores, const int64_t* rows, const int64_t* offsets, int64_t n_queries, int64_t k,
            Metric metric, const int64_t* ids, float* top_scores, int64_t* top_ids);

// Top-k with every document scored by the specification.
void exact_topk(const Corpus& corpus, const Queries& queries, int64_t k, const int64_t* ids, float* top_scores,
                int64_t* top_ids, int threads, const Interrupt& interrupt);

// A whole search, in one thread: propose (where `plan` is null, nothing but exact_topk), refine, select, and certify.
// False, with answers that mean nothing, where a query is not finite or not certified.
bool search(const Corpus& corpus, const Queries& queries, int64_t k, const ScanPlan* plan, const int64_t* ids,
            float* top_scores, int64_t* top_ids, const Interrupt& interrupt);

// A score in float64 as a result holds it: rounded once, within float32's range, and zero as +0.0.
inline float round_score(double score) {
  constexpr double LARGEST = std::numeric_limits<float>::max();
  return static_cast<float>(std::min(std::max(score, -LARGEST), LARGEST)) + 0.0f;
}

// |d| over the first dims floats of each row, by the specification.
void norms(const Rows& rows, int64_t n, int dims, double* out, int threads, const Interrupt& interrupt);

}  // namespace pyengine
