// The specification's score of one query with one row: float64, over the shared terms as they rise.
#pragma once

#include <vector>

#include "cpu/sparse.h"

namespace pyengine {

// The terms of one query: a mark for each, by which nearly all others are told, and a hash table of their weights.
class QueryWeights {
 public:
  QueryWeights() : marks_(MARKS) {}

  void assign(const TermRows& queries, int64_t query) {
    for (const Slot& slot : slots_)
      if (slot.term >= 0) marks_[mark(slot.term)] = 0;
    const int64_t begin = queries.offsets[query], n = queries.offsets[query + 1] - begin;
    for (shift_ = 30; int64_t{1} << (32 - shift_) < 4 * n;) --shift_;
    slots_.assign(size_t{1} << (32 - shift_), {});
    for (int64_t at = begin; at < begin + n; ++at) {
      const int32_t term = static_cast<int32_t>(queries.term(at));
      marks_[mark(term)] = 1;
      slots_[place(term)] = {term, static_cast<const float*>(queries.values)[at]};
    }
  }

  // Whether the query may have the term.
  uint8_t may_have(uint32_t term) const { return marks_[mark(term)]; }
  // 0 where it does not.
  float operator[](int32_t term) const { return slots_[place(term)].weight; }

 private:
  static constexpr uint32_t MARKS = 1 << 15;

  struct Slot {
    int32_t term = -1;
    float weight = 0;
  };

  static uint32_t mark(uint32_t term) { return term % MARKS; }

  // Where the term is, or would be.
  size_t place(int32_t term) const {
    size_t at = static_cast<uint32_t>(term) * 2654435769u >> shift_;
    while (slots_[at].term >= 0 && slots_[at].term != term) at = (at + 1) % slots_.size();
    return at;
  }

  std::vector<uint8_t> marks_;
  std::vector<Slot> slots_;  // a power of two, a quarter full
  int shift_ = 30;
};

class SparseScorer {
 public:
  // `bias` [docs.n] may be null.
  SparseScorer(const TermRows& queries, const TermRows& docs, const double* bias)
      : queries_(queries), docs_(docs), bias_(bias) {}

  void set_query(int64_t query) {
    if (query != query_) weights_.assign(queries_, query_ = query);
  }

  float operator()(int64_t row) {
    const int64_t begin = docs_.offsets[row], n = docs_.offsets[row + 1] - begin;
    const size_t found = docs_.short_terms ? match(docs_.short_terms + begin, n) : match(docs_.terms + begin, n);
    double score = 0;
    with_weights(docs_, [&](const auto& weight) {
      for (size_t i = 0; i < found; ++i) {
        const int64_t at = begin + shared_[i];
        const float own = weights_[static_cast<int32_t>(docs_.term(at))];
        if (own != 0) score += static_cast<double>(own) * weight(at, row);
      }
    });
    if (bias_) score += bias_[row];
    return rounded_score(score);
  }

  // Inlined always: GCC takes a function that only prefetches for one that does nothing, and drops its calls.
  __attribute__((always_inline)) void prefetch_place(int64_t row) const { __builtin_prefetch(docs_.offsets + row); }
  __attribute__((always_inline)) void prefetch(int64_t row) const {
    const size_t value_bytes = docs_.kind == WeightKind::float32 ? 4 : docs_.kind == WeightKind::float16 ? 2 : 1;
    if (docs_.short_terms) fetch(docs_.short_terms, sizeof *docs_.short_terms, row);
    else fetch(docs_.terms, sizeof *docs_.terms, row);
    fetch(docs_.values, value_bytes, row);
  }

 private:
  // How many of a row's terms the query may have; which, in shared_.
  template <class Term>
  size_t match(const Term* terms, int64_t n) {
    if (shared_.size() < static_cast<size_t>(n)) shared_.resize(n);
    int32_t* const shared = shared_.data();
    const QueryWeights& weights = weights_;
    size_t found = 0;
    for (int64_t i = 0; i < n; ++i) {  // without branches: which terms are shared cannot be predicted
      shared[found] = static_cast<int32_t>(i);
      found += weights.may_have(terms[i]);
    }
    return found;
  }

  __attribute__((always_inline)) void fetch(const void* array, size_t size, int64_t row) const {
    const char* const bytes = static_cast<const char*>(array);
    for (const char* at = bytes + docs_.offsets[row] * size; at < bytes + docs_.offsets[row + 1] * size; at += 64)
      __builtin_prefetch(at);
  }

  const TermRows &queries_, &docs_;
  const double* bias_;
  QueryWeights weights_;
  std::vector<int32_t> shared_;  // entries of the row
  int64_t query_ = -1;
};

}  // namespace pyengine
