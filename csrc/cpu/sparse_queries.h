// Queries over inverted rows, with weights in whole units, and how far that may be off.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/sparse.h"

namespace pyengine {

constexpr int FACTOR_BITS = 9;  // below the point of a factor

// A query's term in one Postings: a document's sum gains weigh(level).
struct QueryTerm {
  int32_t factor, less;     // less = factor * zero
  int32_t zero;
  const uint8_t* levels;    // of the column, or of its list
  const uint16_t* docs;     // of its list
  const uint32_t* starts;   // of the windows in its list
  const uint64_t* rare;     // its rare postings
  int64_t n;                // how many postings it has

  int16_t weigh(uint8_t level) const { return static_cast<int16_t>(((factor * level - less) >> FACTOR_BITS) + 1); }
};

// One query in units: a document's score lies in unit * [sum - rounded - error, sum + error]. With no negative weight on
// either side, sums are above 0 exactly where a term is shared.
struct SparseQuery {
  double unit = 1, error = 0, rounded = 0;
  bool positive = true;
  bool many = false;  // terms, more than sums have room for: rows are scored as specified
  std::vector<std::vector<QueryTerm>> columns, lists, rare;  // [postings]

  double lower(double sum) const { return unit * (sum - rounded - error); }
  double upper(double sum) const { return unit * (sum + error); }
};

SparseQuery prepare_query(const TermRows& queries, int64_t query, const std::vector<Postings>& postings);

}  // namespace pyengine
