// What csrc/cuda/common.cuh computes for one thread, over arrays, for the tests to compare with the specification.
#include "common.cuh"
#include "sparse_terms.cuh"

using namespace pyengine::cuda;

// Bounds of all pairs: `docs` are columns [5, N], `queries` [5, Q], and the products [Q, N].
template <class Product>
void bound(const float* docs, const float* queries, const Product* products, const Product* others, float* upper,
           float* lower, int64_t n_queries, int64_t n_docs) {
  for (int64_t q = 0; q < n_queries; ++q)
    for (int64_t d = 0; d < n_docs; ++d) {
      const auto doc = [&](int i) { return docs[i * n_docs + d]; };
      const auto query = [&](int i) { return queries[i * n_queries + q]; };
      const int64_t at = q * n_docs + d;
      const QueryTerms terms{query(0), query(1), query(2), query(3), query(4)};
      const Bounds found =
          bounds({doc(0), doc(1), doc(2), doc(3), doc(4)}, terms, weighed(terms, products[at], others[at]));
      upper[at] = found.upper;
      lower[at] = found.lower;
    }
}

extern "C" {

void of_float16(const uint16_t* bits, float* values, int64_t n) {
  for (int64_t i = 0; i < n; ++i) values[i] = value_of(Float16{bits[i]});
}

void of_bfloat16(const uint16_t* bits, float* values, int64_t n) {
  for (int64_t i = 0; i < n; ++i) values[i] = value_of(BFloat16{bits[i]});
}

void to_float16(const float* values, uint16_t* bits, int64_t n) {
  for (int64_t i = 0; i < n; ++i) bits[i] = nearest_float16(values[i]);
}

void to_bfloat16(const float* values, uint16_t* bits, int64_t n) {
  for (int64_t i = 0; i < n; ++i) bits[i] = nearest_bfloat16(values[i]);
}

void keys_of(const float* ranks, const int32_t* places, int64_t* keys, float* back, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    keys[i] = ranking_key(ranks[i], places[i]);
    back[i] = unordered(ordered(ranks[i]));
  }
}

void round_all(const double* scores, float* singles, int64_t n) {
  for (int64_t i = 0; i < n; ++i) singles[i] = rounded(scores[i]);
}

void reach_all(const float* kth, const float* centre, float* thresholds, int64_t n) {
  for (int64_t i = 0; i < n; ++i) thresholds[i] = reach(kth[i], centre[i]);
}

void bound_codes(const float* docs, const float* queries, const int32_t* products, const int32_t* others, float* upper,
                 float* lower, int64_t n_queries, int64_t n_docs) {
  bound(docs, queries, products, others, upper, lower, n_queries, n_docs);
}

void bound_halves(const float* docs, const float* queries, const float* products, const float* others, float* upper,
                  float* lower, int64_t n_queries, int64_t n_docs) {
  bound(docs, queries, products, others, upper, lower, n_queries, n_docs);
}

void least_sums(const float* thresholds, const float* slacks, int32_t* least, int64_t n) {
  for (int64_t i = 0; i < n; ++i) least[i] = least_sum(thresholds[i], slacks[i]);
}

void sum_bounds_all(const int32_t* sums, const float* slacks, const float* biases, float* upper, float* lower, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const Bounds found = sum_bounds(sums[i], slacks[i], biases[i]);
    upper[i] = found.upper;
    lower[i] = found.lower;
  }
}

void postings_all(const uint32_t* words, int32_t* levels, int32_t* offsets, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    levels[i] = level_of(words[i]);
    offsets[i] = static_cast<int32_t>(offset_of(words[i]));
  }
}

}  // extern "C"
