// Exact MaxSim of listed pairs: estimates with a bound say which products can be maxima, and those are made in float64.
#pragma once

#include "cpu/maxsim.h"

namespace pyengine {

// Pair p is (queries[p], docs[p]). Weights are per token and optional, bias is per document and optional.
struct TokenPairs {
  const Tokens& queries;  // float32
  const Tokens& docs;
  const int64_t* query_of;  // [n]
  const int64_t* doc_of;    // [n]
  int64_t n;
  bool normalize;
  Reduction reduce;
  double temperature;  // of Reduction::softmax and pooled
  const float* query_weights;
  const float* doc_weights;
  const double* bias;
};

// Where the answers go. Winners of pair p begin at its place, one for each of the query's tokens: the number, within
// the document, of the token that makes the maximum, -1 where there is none. Columns: the same the other way round.
struct PairAnswers {
  float* scores;               // [n]
  int32_t* winners;            // optional, with winners_at [n]
  const int64_t* winners_at;
  int32_t* columns;            // optional, with columns_at [n]; for Reduction::symmetric
  const int64_t* columns_at;
};

void maxsim_pairs(const TokenPairs& pairs, const PairAnswers& answers, int threads, const Interrupt& interrupt);

}  // namespace pyengine
