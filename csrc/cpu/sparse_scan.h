// Sparse top-k: propose candidates with a bound (sparse_scan.cpp), refine them (sparse_refine.cpp).
#pragma once

#include <vector>

#include "cpu/dense.h"
#include "cpu/sparse.h"

namespace pyengine {

// A search of inverted rows. Optional pointers may be null.
struct SparseSearch {
  TermRows queries, docs;  // queries are float32
  std::vector<Postings> postings;  // of ranges of rows that rise; rows of none are scored as specified
  const uint8_t* mask = nullptr;   // optional bitmap of what may be returned
  int64_t mask_stride = 0;         // bytes from query to query; 0: one bitmap for all
  const double* bias = nullptr;    // optional [n]
  const double* floor = nullptr;   // optional [Q]: scores below which a document does not count
  bool sure = false;    // whether the k best are to surely come before what is dropped; else it is near certain
  bool by_row = false;  // whether of equal scores those of the first rows come first, so that later ones may be dropped

  bool allowed(int64_t query, int64_t row) const {
    return !mask || (mask[query * mask_stride + (row >> 3)] >> (row & 7) & 1);
  }
};

// At most about `width` candidates of each query, k at least where there are so many.
CandidateLists propose_sparse(const SparseSearch& search, int64_t k, int64_t width, int threads,
                              const Interrupt& interrupt);

// The specification's float32 scores of listed rows, one per entry: query q has rows[offsets[q]] up to, and without,
// rows[offsets[q + 1]].
void refine_sparse(const TermRows& queries, const TermRows& docs, const double* bias, const int64_t* rows,
                   const int64_t* offsets, float* scores, int threads, const Interrupt& interrupt);

}  // namespace pyengine
