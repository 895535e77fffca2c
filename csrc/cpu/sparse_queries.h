// Queries over inverted rows, with weights in whole units, and how far that may be off.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/sparse.h"

namespace pyengine {

// A query's term in one Postings.
struct QueryTerm {
  int32_t factor, zero;
  const uint8_t* levels;    // of the column, or of its list
  const uint16_t* docs;     // of its list
  const uint32_t* starts;   // of the windows in its list
  const uint64_t* rare;     // its rare postings
  int64_t n;                // how many postings it has

  int16_t weigh(uint8_t level) const { return weight_of(level, factor, zero); }
};

// One query in units: bounds of a document's score from its sum. Where all weights are of one sign, of the query and of
// the documents, sums are 0 exactly where no term is shared.
struct SparseQuery {
  double unit = 1, error = 0;
  double rounded_up = 0, rounded_down = 0;  // how many terms are, each by less than 1
  bool positive = true, negative = true;    // whether all products of weights are
  bool many = false;  // terms, more than sums have room for: rows are scored as specified
  std::vector<std::vector<QueryTerm>> columns, lists, rare;  // [postings]

  double lower(double sum) const {
    if (sum == 0 && (positive || negative)) return 0;
    return unit * (sum - rounded_up - error);
  }
  double upper(double sum) const {
    const double most = unit * (sum + rounded_down + error);
    return negative ? std::min(most, 0.0) : sum == 0 && positive ? 0 : most;
  }
};

SparseQuery prepare_query(const TermRows& queries, int64_t query, const std::vector<Postings>& postings);

}  // namespace pyengine
