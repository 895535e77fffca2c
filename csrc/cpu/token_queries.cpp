#include "cpu/token_queries.h"

#include <algorithm>
#include <cmath>

namespace pyengine {
namespace {

// Tokens are coded as unit vectors.
Corpus unit_vectors(const Corpus& tokens) {
  Corpus units;
  units.dim = units.dims = tokens.dim;
  units.metric = Metric::cosine;
  return units;
}

std::vector<int64_t> offsets_from(const Tokens& queries, int64_t first, int64_t count) {
  std::vector<int64_t> offsets(queries.offsets + first, queries.offsets + first + count + 1);
  for (int64_t& offset : offsets) offset -= queries.offsets[first];
  return offsets;
}

// Bound on the relative error of a float32 sum of n products, by vectors of 4 lanes or more, and of what underflows.
double sum_error(int64_t n) { return (static_cast<double>(n) / 4 + 16) * 0x1p-23; }

}  // namespace

TokenQueries::TokenQueries(const TokenSearch& search, const Corpus& tokens, int64_t first, int64_t count, int depth,
                           double norm_unit, double offset_unit, double deviations, const KernelTable& table,
                           int threads, const Interrupt& interrupt)
    : table_(table), rows_(reinterpret_cast<const float*>(search.queries.rows.at(search.queries.offsets[first]))),
      dim_(tokens.dims), depth_(depth), relative_(relative_error(tokens.dims)),
      offsets_(offsets_from(search.queries, first, count)),
      tokens_(unit_vectors(tokens), {reinterpret_cast<const float*>(search.queries.rows.data), search.queries.total()},
              search.queries.offsets[first], offsets_.back(), depth, false, 1, 0, table, threads, interrupt),
      factors_(tokens_.padded()), terms_(count), scalings_(count), cautions_(count) {
  for (int64_t q = 0; q < count; ++q)
    set_terms(q, search, search.queries.offsets[first], norm_unit, offset_unit, deviations);
}

void TokenQueries::set_terms(int64_t query, const TokenSearch& search, int64_t first_token, double norm_unit,
                             double offset_unit, double deviations) {
  const int64_t begin = offsets_[query], end = offsets_[query + 1];
  auto weight = [&](int64_t i) {
    const double norm = tokens_.part(i).norm, gain = search.normalize ? (norm > 0 ? 1 : 0) : norm;
    return gain * (search.query_weights ? search.query_weights[first_token + i] : 1);
  };
  double size = 0;
  for (int64_t i = begin; i < end; ++i) size += std::fabs(weight(i));
  const double gain = size * norm_unit / (search.reduce == Reduction::mean ? std::max<int64_t>(1, end - begin) : 1);
  Scaling& s = scalings_[query];
  s = Scaling::of(gain, 0, offset_unit);
  double error = 0, spread = 0, variance = 0;
  for (int64_t i = begin; i < end; ++i) {
    const PreparedQueries::Part part = tokens_.part(i);
    const double share = size > 0 ? weight(i) / size : 0;
    factors_[i] = static_cast<float>(s.alpha * share * part.scale);
    error += std::fabs(share) * part.error;
    spread += std::fabs(share) * (1 + part.error);
    variance += share * share * part.concentration * part.concentration;
  }
  const double rounding = 2 * sum_error(end - begin), underflow = 1e-30 * static_cast<double>(end - begin);
  terms_[query] = {s.alpha * (error + rounding) + underflow, s.alpha * (spread + rounding) + underflow};
  cautions_[query] = std::min(1.0, deviations * std::sqrt(variance));
}

AlignedVector<float> TokenQueries::products(const Rows& rows, double norm_unit) const {
  AlignedVector<float> panels(static_cast<size_t>(lanes()) * dim_);
  AlignedVector<float> out(static_cast<size_t>(lanes()) * rows.n_centroids);
  for (int64_t i = 0; i < offsets_.back(); ++i) {
    const PreparedQueries::Part part = tokens_.part(i);
    const double unit = part.norm * part.scale * norm_unit, factor = unit > 0 ? 1 / unit : 0;
    float* panel = panels.data() + i / PANEL * PANEL * static_cast<size_t>(dim_) + i % PANEL;
    for (int k = 0; k < dim_; ++k) panel[k * PANEL] = static_cast<float>(rows_[i * dim_ + k] * factor);
  }
  table_.multiply_tokens(rows.centroids, dim_, static_cast<int>(rows.n_centroids), panels.data(),
                         static_cast<int>(lanes() / PANEL), dim_, out.data());
  return out;
}

void TokenQueries::maxima(const TokenTile& docs, float* out) const {
  const QueryBlock block = tokens_.block(0, nullptr);
  table_.token_maxima(docs, block.panels, block.start, static_cast<int>(lanes() / PANEL), depth_, out, lanes());
}

PreparedQueries::Bounds TokenQueries::bounds(int64_t query, const float* maxima, const TokenTerms& doc) const {
  const Scaling& s = scalings_[query];
  const int64_t begin = offsets_[query], n = offsets_[query + 1] - begin;
  const double sum = n ? table_.dot_f32(factors_.data() + begin, maxima + begin, static_cast<int>(n)) : 0;
  const Terms& terms = terms_[query];
  const double radius = n ? terms.error * doc.weight + terms.spread * doc.residual : 0;
  return PreparedQueries::Bounds::around(sum + s.beta * doc.offset, radius + s.beta * doc.offset_error);
}

}  // namespace pyengine
