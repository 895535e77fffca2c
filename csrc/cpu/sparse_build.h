// Inverting rows: see Postings.
#pragma once

#include <vector>

#include "cpu/huge_pages.h"
#include "cpu/sparse.h"

namespace pyengine {

// What a Postings is a view of.
struct PostingArrays {
  std::vector<int32_t> terms, counts;
  std::vector<float> scale, residual;
  std::vector<uint8_t> zero, kinds;
  std::vector<int64_t> place, lists{0};
  HugeVector<uint64_t> rare;
  HugeVector<uint32_t> starts;
  HugeVector<uint16_t> list_docs;
  HugeVector<uint8_t> list_levels, columns;
};

// The inverted form of rows first .. last - 1: of the `n_only` terms that rise in `only`, or of all where that is null.
PostingArrays build_postings(const TermRows& rows, int64_t first, int64_t last, const int32_t* only, int64_t n_only,
                             const Interrupt& interrupt);

}  // namespace pyengine
