// The specification's score of one query with one row: float64, over the shared terms as they rise.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/paged_table.h"
#include "cpu/sparse.h"

namespace pyengine {

class SparseScorer {
 public:
  // `bias` [docs.n] may be null.
  SparseScorer(const TermRows& queries, const TermRows& docs, const double* bias)
      : queries_(queries), docs_(docs), bias_(bias), has_(docs.n_terms), weights_(docs.n_terms) {}

  void set_query(int64_t query) {
    if (query == query_) return;
    if (query_ >= 0) spread(query_, false);
    spread(query_ = query, true);
  }

  float operator()(int64_t row) {
    const int64_t begin = docs_.offsets[row], n = docs_.offsets[row + 1] - begin;
    if (shared_.size() < static_cast<size_t>(n)) shared_.resize(n);
    size_t found = 0;
    for (int64_t i = 0; i < n; ++i) {  // without branches: which terms are shared cannot be predicted
      shared_[found] = static_cast<int32_t>(i);
      found += has_[docs_.term(begin + i)];
    }
    double score = 0;
    with_weights(docs_, [&](const auto& weight) {
      for (size_t i = 0; i < found; ++i) {
        const int64_t at = begin + shared_[i];
        score += static_cast<double>(weights_[docs_.term(at)]) * weight(at, row);
      }
    });
    if (bias_) score += bias_[row];
    constexpr double LARGEST = std::numeric_limits<float>::max();
    return static_cast<float>(std::min(std::max(score, -LARGEST), LARGEST)) + 0.0f;
  }

  void prefetch_place(int64_t row) const { __builtin_prefetch(docs_.offsets + row); }
  void prefetch(int64_t row) const {
    const size_t term_bytes = docs_.short_terms ? 2 : 4;
    const size_t value_bytes = docs_.kind == WeightKind::float32 ? 4 : docs_.kind == WeightKind::float16 ? 2 : 1;
    const char* terms = docs_.short_terms ? reinterpret_cast<const char*>(docs_.short_terms) : reinterpret_cast<const char*>(docs_.terms);
    fetch(terms, term_bytes, row), fetch(static_cast<const char*>(docs_.values), value_bytes, row);
  }

 private:
  void spread(int64_t query, bool set) {
    const float* values = static_cast<const float*>(queries_.values);
    for (int64_t at = queries_.offsets[query]; at < queries_.offsets[query + 1]; ++at)
      weights_.set(queries_.term(at)) = values[at], has_.set(queries_.term(at)) = set;
  }

  void fetch(const char* array, size_t size, int64_t row) const {
    const char* end = array + docs_.offsets[row + 1] * size;
    for (const char* at = array + docs_.offsets[row] * size; at < end; at += 64) __builtin_prefetch(at, 0, 2);
  }

  const TermRows &queries_, &docs_;
  const double* bias_;
  PagedTable<uint8_t> has_;      // [n_terms] whether the query has the term
  PagedTable<float> weights_;    // [n_terms] its weight, where it has
  std::vector<int32_t> shared_;  // entries of the row
  int64_t query_ = -1;
};

}  // namespace pyengine
