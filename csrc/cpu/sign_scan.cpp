#include "cpu/sign_scan.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/dispatch.h"
#include "cpu/sign_kernels.h"
#include "cpu/term_range.h"

namespace pyengine {
namespace {

bool is_sign_vector(const float* row, int n) {
  for (int i = 0; i < n; ++i)
    if (std::fabs(row[i]) != std::fabs(row[0])) return false;
  return row[0] != 0;
}

double excess(const DocTile& tile, int doc, const QueryBlock& block, int query, int32_t product) {
  const double weight = tile.weight ? double{block.error[query]} * tile.weight[doc] : 0;
  const double offset = tile.offset ? double{block.lift[query]} * tile.offset[doc] : 0;
  return static_cast<double>(product) * tile.scale[doc] + weight + double{block.spread[query]} * tile.residual[doc] +
         offset - block.threshold[query];
}

// The extremes of a tile's terms: what its best document could have.
struct Extremes {
  float least_scale, scale, weight, residual, offset;

  explicit Extremes(const DocTile& tile) {
    const TermRange scales(tile.scale, tile.count);
    least_scale = scales.least, scale = scales.largest;
    weight = tile.weight ? TermRange(tile.weight, tile.count).largest : 0;
    residual = TermRange(tile.residual, tile.count).largest;
    offset = tile.offset ? *std::max_element(tile.offset, tile.offset + tile.count) : 0;
  }

  // The largest popcount at which any document could pass for the query; -1 for none.
  int64_t most(const QueryBlock& block, int query, int dims, int levels) const {
    const double wanted = double{block.threshold[query]} - double{block.error[query]} * weight -
                          double{block.spread[query]} * residual - double{block.lift[query]} * offset;
    const double unit = levels * double{wanted > 0 ? scale : least_scale};
    if (!(unit > 0) || !std::isfinite(wanted)) return wanted > 0 ? -1 : dims;
    const double distance = 0.5 * (dims - wanted / unit) + 1e-3;
    return distance < 0 ? -1 : static_cast<int64_t>(std::min<double>(dims, distance));
  }
};

}  // namespace

SignQueries::SignQueries(const Corpus& corpus, const Queries& queries, int64_t first, int64_t count)
    : dims_(corpus.dims), words_((corpus.dims + 63) / 64) {
  if (corpus.code_planes != 1 || corpus.dims != corpus.dim) return;
  for (int64_t q = 0; q < count; ++q)
    if (!is_sign_vector(queries.rows + (first + q) * corpus.dim, dims_)) return;
  count_ = count;
  rows_.resize(count * words_);
  panels_.resize((count + SIGN_PANEL - 1) / SIGN_PANEL * SIGN_PANEL * words_);
  for (int64_t q = 0; q < count; ++q) {
    const float* row = queries.rows + (first + q) * corpus.dim;
    for (int i = 0; i < dims_; ++i) rows_[q * words_ + i / 64] |= uint64_t{row[i] >= 0} << i % 64;
    for (int w = 0; w < words_; ++w)
      panels_[(q / SIGN_PANEL * words_ + w) * SIGN_PANEL + q % SIGN_PANEL] = rows_[q * words_ + w];
  }
}

size_t SignQueries::scan(const DocTile& tile, const QueryBlock& block, int64_t first, int n, int levels,
                         Hit* hits) const {
  int64_t most[MAX_PANELS * PANEL];
  std::fill(std::begin(most), std::end(most), -1);
  const Extremes extremes(tile);
  for (int q = 0; q < n; ++q) most[q] = extremes.most(block, q, dims_, levels);
  const SignBlock signs{tile.codes, tile.stride, tile.count, words_, rows_.data() + first * words_,
                        panels_.data() + first * words_, n, most};
  const size_t found = sign_kernel(kernels())(signs, hits);
  size_t kept = 0;
  for (size_t i = 0; i < found; ++i) {
    Hit hit = hits[i];
    hit.product = levels * (dims_ - 2 * hit.product);
    if (!(excess(tile, hit.doc, block, hit.query, hit.product) < 0)) hits[kept++] = hit;
  }
  return kept;
}

}  // namespace pyengine
