#include "cpu/sliced_scan.h"

#include <algorithm>

#include "cpu/dispatch.h"

namespace pyengine {

SlicedQueries::SlicedQueries(const Corpus& corpus, const Queries& queries, int64_t first, int64_t count)
    : corpus_(corpus), slices_(corpus.slices ? queries.slices + first * corpus.slice_stride : nullptr),
      depth_(static_cast<int>(corpus.slice_stride)) {
  if (empty()) return;
  const float* rows = queries.rows + first * corpus.dim;
  negative_ = std::any_of(rows, rows + count * corpus.dim, [](float x) { return x < 0; });
}

size_t SlicedQueries::scan(const DocTile& tile, const RowSequence& rows, const QueryBlock& block, int64_t first, int n,
                           Hit* hits) const {
  std::vector<const uint8_t*> docs(tile.count);
  for (int i = 0; i < tile.count; ++i) docs[i] = of_row(rows[i]);
  const SlicedBlock slices{docs.data(), slices_ + first * depth_, negative_};
  return kernels().scan_sliced(tile, block, slices, n, depth_, hits);
}

int32_t SlicedQueries::product(int64_t query, const int8_t* query_codes, int64_t row, const uint8_t* codes) const {
  return kernels().dot_sliced(codes, of_row(row), query_codes, slices_ + query * depth_, depth_);
}

}  // namespace pyengine
