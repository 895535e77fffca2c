// Refine: the specification's scores of listed rows.
#include <vector>

#include "cpu/sparse_scan.h"
#include "cpu/sparse_scorer.h"

namespace pyengine {
namespace {

constexpr int64_t CHUNK = 256;  // candidates handed to a thread at a time
constexpr int64_t AHEAD = 6;    // candidates that are fetched before they are scored; where they lie, twice as many

}  // namespace

void refine_sparse(const TermRows& queries, const TermRows& docs, const double* bias, const int64_t* rows,
                   const int64_t* offsets, float* scores, int threads, const Interrupt& interrupt) {
  const int64_t total = offsets[queries.n], chunks = (total + CHUNK - 1) / CHUNK;
  const int working = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, chunks)));
  std::vector<SparseScorer> scorers;
  for (int thread = 0; thread < working; ++thread) scorers.emplace_back(queries, docs, bias);
  parallel_for(chunks, working, interrupt, [&](int64_t chunk, int thread) {
    const int64_t begin = chunk * CHUNK, end = std::min(total, begin + CHUNK);
    int64_t query = std::upper_bound(offsets, offsets + queries.n + 1, begin) - offsets - 1;
    for (int64_t i = begin; i < end; ++i) {
      while (offsets[query + 1] <= i) ++query;
      scorers[thread].set_query(query);
      scorers[thread].prefetch_place(rows[std::min(i + 2 * AHEAD, total - 1)]);
      scorers[thread].prefetch(rows[std::min(i + AHEAD, total - 1)]);
      scores[i] = scorers[thread](rows[i]);
    }
  });
}

}  // namespace pyengine
