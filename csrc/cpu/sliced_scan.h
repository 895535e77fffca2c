// Sliced vectors (DSR, arXiv 2112.04666): a product counts where the two slices agree. Leaving products out of a sum
// leaves them out of its error, too, so that the bounds of whole products hold.
#pragma once

#include <vector>

#include "cpu/dense.h"
#include "cpu/doc_tiles.h"
#include "cpu/kernels.h"

namespace pyengine {

// Queries [first, first + count) of the problem; empty where the documents have no slices.
class SlicedQueries {
 public:
  SlicedQueries(const Corpus& corpus, const Queries& queries, int64_t first, int64_t count);

  bool empty() const { return slices_ == nullptr; }

  // The pairs of these rows, a tile of documents, with queries [first, first + n) of these that pass.
  size_t scan(const DocTile& tile, const RowSequence& rows, const QueryBlock& block, int64_t first, int n,
              Hit* hits) const;

  // Of one document's codes with `codes` of a query.
  int32_t product(int64_t query, const int8_t* query_codes, int64_t row, const uint8_t* codes) const;

 private:
  const uint8_t* of_row(int64_t row) const { return corpus_.slices + row * corpus_.slice_stride; }

  const Corpus& corpus_;
  const uint8_t* slices_;  // [count, depth]
  int depth_;
  bool negative_ = false;
};

}  // namespace pyengine
