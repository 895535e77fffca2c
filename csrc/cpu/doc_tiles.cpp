#include "cpu/doc_tiles.h"

#include <algorithm>
#include <cmath>

namespace pyengine {
namespace {

constexpr int NORM_SAMPLE = 256;
constexpr double LARGEST_WEIGHT = 1e15, SMALLEST_WEIGHT = 1e-30;  // beyond these float32 terms would over- or underflow

}  // namespace

double DocTiles::norm_unit(const Corpus& corpus, const KernelTable& table) {
  if (corpus.metric == Metric::cosine) return 1;
  double largest = corpus.largest_norm;
  if (largest == 0) {
    const int64_t step = std::max<int64_t>(1, corpus.n / NORM_SAMPLE);
    RowReader reader(corpus.rows, corpus.dims, table);
    for (int64_t row = 0; row < corpus.n; row += step) {
      const float* vector = reader.read(row);
      double squared;
      table.dot_f64(vector, &vector, &vector, 1, corpus.dims, &squared);
      if (std::isfinite(squared)) largest = std::max(largest, std::sqrt(squared));
    }
  }
  return largest > 0 ? largest : 1;
}

double DocTiles::offset_unit(const Corpus& corpus, double norm_unit) {
  double largest = 0;
  if (corpus.bias)
    for (int64_t i = 0; i < corpus.n; ++i) largest = std::max(largest, std::fabs(corpus.bias[i]));
  return corpus.metric == Metric::l2 ? norm_unit * norm_unit + largest : largest;
}

DocTiles::DocTiles(const Corpus& corpus, int capacity, int depth, double norm_unit, double offset_unit,
                   const KernelTable& table)
    : corpus_(corpus), table_(table), depth_(depth), norm_unit_(norm_unit), offset_unit_(offset_unit),
      relative_(relative_error(corpus.dims)),
      weighted_(corpus.metric != Metric::cosine || (corpus.codes && corpus.dims < corpus.dim)),
      reader_(corpus.rows, corpus.dims, table),
      scale_(capacity), weight_(capacity, 1.0f), residual_(capacity), norm_(capacity) {
  if (!corpus.codes || corpus.code_planes) codes_.resize(static_cast<size_t>(capacity) * depth);
  if (corpus.bias || corpus.metric == Metric::l2) {
    offset_.resize(capacity);
    exact_offset_.resize(capacity);
    offset_error_.resize(capacity);
  }
}

const DocTile& DocTiles::make(int64_t first, int64_t step, int count) {
  tile_ = DocTile{codes_.data(), static_cast<size_t>(depth_), count, scale_.data(), weighted_ ? weight_.data() : nullptr,
                  residual_.data(), offset_.empty() ? nullptr : offset_.data(), false};
  if (corpus_.codes)
    stored_codes(first, step, count);
  else
    quantize(first, step, count);
  if (weighted_ || tile_.offset) weigh(first, step, count);
  tile_.cold = corpus_.codes && step == 1;
  return tile_;
}

void DocTiles::stored_codes(int64_t first, int64_t step, int count) {
  if (corpus_.code_planes) {
    unpack(first, step, count);
  } else {
    tile_.codes = corpus_.codes + first * corpus_.code_stride;
    tile_.stride = static_cast<size_t>(corpus_.code_stride * step);
  }
  if (!weighted_ && step == 1) {
    tile_.scale = corpus_.scale + first;
    tile_.residual = corpus_.residual + first;
    return;
  }
  for (int i = 0; i < count; ++i) {
    scale_[i] = corpus_.scale[first + i * step];
    residual_[i] = corpus_.residual[first + i * step];
  }
}

void DocTiles::unpack(int64_t first, int64_t step, int count) {
  const size_t plane = static_cast<size_t>(corpus_.code_stride / corpus_.code_planes);
  for (int i = 0; i < count; ++i)
    table_.unpack_planes(corpus_.codes + (first + i * step) * corpus_.code_stride, corpus_.code_planes, plane, depth_,
                         codes_.data() + i * static_cast<size_t>(depth_));
}

void DocTiles::quantize(int64_t first, int64_t step, int count) {
  RowCode code;
  for (int i = 0; i < count; ++i) {
    const int64_t row = first + i * step;
    if (!table_.quantize_row(reader_.read(row), corpus_.dims, depth_, codes_.data() + i * (size_t)depth_,
                             &code))
      throw NonFiniteRow(row);
    scale_[i] = code.scale;
    residual_[i] = code.residual;
    norm_[i] = code.norm;
  }
}

// Codes describe d/|d| of the whole vector; the weight makes of its product the score (cosine renormalises a prefix).
void DocTiles::weigh(int64_t first, int64_t step, int count) {
  const bool stored = corpus_.codes != nullptr, prefix = stored && corpus_.dims < corpus_.dim;
  for (int i = 0; i < count; ++i) {
    const int64_t row = first + i * step;
    const double norm = stored ? corpus_.norms[row] : norm_[i];
    const double scored_norm = prefix ? corpus_.prefix_norms[row] : norm;
    if (corpus_.metric != Metric::cosine)
      set_weight(i, norm / norm_unit_);
    else if (weighted_)
      set_weight(i, scored_norm > 0 ? norm / scored_norm : 0);
    if (!tile_.offset) continue;
    const double bias = corpus_.bias ? corpus_.bias[row] : 0;
    if (corpus_.metric == Metric::l2)
      set_offset(i, -scored_norm * scored_norm, -bias);
    else
      set_offset(i, 0, bias);
  }
}

void DocTiles::set_weight(int doc, double weight) {
  const bool huge = weight > LARGEST_WEIGHT, tiny = weight < SMALLEST_WEIGHT;
  weight_[doc] = huge || tiny ? 0 : static_cast<float>(weight);
  residual_[doc] = huge ? std::numeric_limits<float>::infinity()  // always a candidate
                   : tiny ? static_cast<float>(2 * SMALLEST_WEIGHT)
                          : static_cast<float>(residual_[doc] * weight * (1 + 0x1p-22));
  scale_[doc] = huge || tiny ? 0 : static_cast<float>(scale_[doc] * weight);
}

void DocTiles::set_offset(int doc, double norm_term, double bias) {
  // The two may cancel, so that the error is relative to each and not to their sum.
  const double unit = offset_unit_ > 0 ? offset_unit_ : 1;
  const double h = (norm_term + bias) / unit, size = (std::fabs(norm_term) + std::fabs(bias)) / unit;
  if (!(size <= LARGEST_WEIGHT)) {  // cannot be held in float32: always a candidate
    exact_offset_[doc] = offset_error_[doc] = 0;
    offset_[doc] = std::numeric_limits<float>::infinity();
    residual_[doc] = std::numeric_limits<float>::infinity();
    return;
  }
  exact_offset_[doc] = h;
  offset_error_[doc] = relative_ * size;
  offset_[doc] = static_cast<float>(h + offset_error_[doc]);
}

}  // namespace pyengine
