// A whole search where nothing is filtered: the four steps of pyengine/searches/search.py, with no Python in between.
#include <cmath>

#include "cpu/dense.h"

namespace pyengine {
namespace {

bool finite(const Queries& queries, int dim) {
  bool all = true;
  for (int64_t i = 0; i < queries.n * dim; ++i) all &= std::isfinite(queries.rows[i]);
  return all;
}

// Whether nothing of what was dropped, with rank scores up to `dropped`, can come before the last of the k best.
bool certified(double dropped, float last, Metric metric) {
  return dropped == -INFINITY || round_score(dropped) < (metric == Metric::l2 ? -last : last);
}

}  // namespace

bool search(const Corpus& corpus, const Queries& queries, int64_t k, const ScanPlan* plan, const int64_t* ids,
            float* top_scores, int64_t* top_ids, const Interrupt& interrupt) {
  const DefaultFloatEnvironment environment;
  if (!finite(queries, corpus.dim)) return false;
  if (!plan) {
    std::vector<double> found;
    Corpus scored = corpus;
    if (corpus.metric == Metric::cosine && !corpus.norms && queries.n > 1) {  // once, not for each query
      found.resize(corpus.n);
      norms(corpus.rows, corpus.n, corpus.dims, found.data(), 1, interrupt);
      scored.norms = found.data();
    }
    exact_topk(scored, queries, k, ids, top_scores, top_ids, 1, interrupt);
    return true;
  }
  const CandidateLists found = propose(corpus, queries, k, *plan, 1, interrupt);
  std::vector<float> scores(found.rows.size());
  refine(corpus, queries, found.rows.data(), found.offsets.data(), scores.data(), 1, interrupt);
  select(scores.data(), found.rows.data(), found.offsets.data(), queries.n, k, corpus.metric, ids, top_scores, top_ids);
  for (int64_t q = 0; q < queries.n; ++q)
    if (!certified(found.dropped[q], top_scores[(q + 1) * k - 1], corpus.metric)) return false;
  return true;
}

}  // namespace pyengine
