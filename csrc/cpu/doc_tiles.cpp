#include "cpu/doc_tiles.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/term_range.h"

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
      if (corpus.norms) {
        largest = std::max(largest, corpus.norms[row]);
        continue;
      }
      const float* vector = reader.read(row);
      double squared;
      table.dot_f64(&vector, &vector, &vector, 1, corpus.dims, &squared);
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
  if (corpus.code_planes) row_codes_.resize(depth);
  if (!corpus.codes || corpus.code_planes) codes_.resize(static_cast<size_t>(capacity) * depth);
  if (corpus.bias || corpus.metric == Metric::l2) {
    offset_.resize(capacity);
    exact_offset_.resize(capacity);
    offset_error_.resize(capacity);
  }
}

const DocTile& DocTiles::make(const RowSequence& rows, int count, bool unpacked) {
  packed_ = corpus_.code_planes && !unpacked;
  tile_ = DocTile{codes_.data(), static_cast<size_t>(depth_), count, scale_.data(),
                  weighted_ ? weight_.data() : nullptr, residual_.data(), offset_.empty() ? nullptr : offset_.data(),
                  false};
  if (corpus_.largest_centroid >= 0) {
    code_residuals(rows, count);
    return tile_;
  }
  if (corpus_.codes)
    stored_codes(rows, count, unpacked);
  else
    quantize(rows, count);
  if (weighted_ || tile_.offset) weigh(rows, count);
  tile_.cold = corpus_.codes && !corpus_.code_planes && !rows.list && rows.step == 1;
  return tile_;
}

void DocTiles::stored_codes(const RowSequence& rows, int count, bool unpacked) {
  if (corpus_.code_planes && unpacked) {
    for (int i = 0; i < count; ++i)
      unpack(corpus_.codes + rows[i] * corpus_.code_stride, codes_.data() + i * static_cast<size_t>(depth_));
  } else if (rows.list && count > 1) {
    gather(rows, count);
  } else {
    tile_.codes = corpus_.codes + rows[0] * corpus_.code_stride;
    tile_.stride = static_cast<size_t>(corpus_.code_stride * rows.step);
  }
  if (!weighted_ && !rows.list && rows.step == 1) {
    tile_.scale = corpus_.scale + rows.first;
    tile_.residual = corpus_.residual + rows.first;
    return;
  }
  for (int i = 0; i < count; ++i) {
    scale_[i] = corpus_.scale[rows[i]];
    residual_[i] = corpus_.residual[rows[i]];
  }
}

// The codes of rows here and there, side by side.
void DocTiles::gather(const RowSequence& rows, int count) {
  const size_t used = corpus_.code_planes ? corpus_.code_stride : depth_;
  codes_.resize(std::max(codes_.size(), count * used));
  for (int i = 0; i < count; ++i) {
    const uint8_t* soon = corpus_.codes + rows[std::min(i + 4, count - 1)] * corpus_.code_stride;
    for (size_t line = 0; line < used; line += DEPTH_STEP) __builtin_prefetch(soon + line);
    std::memcpy(codes_.data() + i * used, corpus_.codes + rows[i] * corpus_.code_stride, used);
  }
  tile_.codes = codes_.data();
  tile_.stride = used;
}

void DocTiles::unpack(const uint8_t* planes, uint8_t* codes) const {
  const size_t stride = static_cast<size_t>(corpus_.code_stride / corpus_.code_planes);
  table_.unpack_planes(planes, corpus_.code_planes, stride, depth_, codes);
}

const uint8_t* DocTiles::codes(int doc) {
  const uint8_t* stored = tile_.codes + doc * tile_.stride;
  if (!packed_) return stored;
  unpack(stored, row_codes_.data());
  return row_codes_.data();
}

void DocTiles::quantize(const RowSequence& rows, int count) {
  RowCode code;
  for (int i = 0; i < count; ++i) {
    const int64_t row = rows[i];
    if (!table_.quantize_row(reader_.read(row), corpus_.dims, depth_, codes_.data() + i * (size_t)depth_,
                             &code))
      throw NonFiniteRow(row);
    scale_[i] = code.scale;
    residual_[i] = code.residual;
    norm_[i] = code.norm;
  }
}

// Of d = centroid + step * odd, the codes of `odd`, whose norm is bounded by that of the largest odds. These are exact;
// what the products with both parts lose by rounding is relative to the parts.
void DocTiles::code_residuals(const RowSequence& rows, int count) {
  const Rows& stored = corpus_.rows;
  const double largest_odd = std::sqrt(static_cast<double>(corpus_.dims)) * ((1 << stored.planes) - 1);
  const double rounding = (corpus_.dims + 256) * 0x1p-22;
  const float of_centroid = static_cast<float>(rounding * corpus_.largest_centroid / norm_unit_ * (1 + 0x1p-20));
  for (int i = 0; i < count; ++i) {
    const int64_t row = rows[i];
    table_.unpack_planes(stored.at(row), stored.planes, stored.plane_stride(), depth_,
                         codes_.data() + i * static_cast<size_t>(depth_));
    scale_[i] = static_cast<float>(1 / largest_odd);
    residual_[i] = static_cast<float>(rounding);
    set_weight(i, stored.step_of(row) * largest_odd / norm_unit_);
    residual_[i] += of_centroid;
  }
}

// Codes describe d/|d| of the whole vector; the weight makes of its product the score (cosine renormalises a prefix).
void DocTiles::weigh(const RowSequence& rows, int count) {
  const bool stored = corpus_.codes != nullptr, prefix = stored && corpus_.dims < corpus_.dim;
  if (corpus_.metric == Metric::dot && stored && !tile_.offset && !rows.list && rows.step == 1 &&
      weigh_plainly(corpus_.norms + rows.first, count))
    return;
  for (int i = 0; i < count; ++i) {
    const int64_t row = rows[i];
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

// The same for norms of ordinary size alone, by whole registers; false, with nothing done, where one is not.
bool DocTiles::weigh_plainly(const double* norms, int count) {
  const double factor = 1 / norm_unit_;
  for (int i = 0; i < count; ++i) weight_[i] = static_cast<float>(norms[i] * factor);
  const TermRange range(weight_.data(), count);
  if (range.least < SMALLEST_WEIGHT || range.largest > LARGEST_WEIGHT) return false;
  for (int i = 0; i < count; ++i) residual_[i] *= weight_[i] * (1 + 0x1p-22f);
  for (int i = 0; i < count; ++i) scale_[i] *= weight_[i];
  return true;
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
