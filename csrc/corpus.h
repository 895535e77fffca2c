// A corpus of NumPy arrays as the dense kernels see it.
#pragma once

#include <string>
#include <utility>

#include "arrays.h"
#include "cpu/dense.h"

namespace pyengine {

inline Metric metric_of(const std::string& name) {
  if (name == "cosine") return Metric::cosine;
  if (name == "dot") return Metric::dot;
  require(name == "l2", "metric must be 'cosine', 'dot' or 'l2'; got '" + name + "'");
  return Metric::l2;
}

// A Corpus with the arrays that it borrows from.
class CorpusArrays {
 public:
  CorpusArrays(const RowArrays& rows, int dims, const std::string& metric, Optional<uint8_t> codes, int code_planes,
               Optional<float> scale, Optional<float> residual, Optional<double> norms, Optional<double> prefix_norms,
               double largest_norm, Optional<uint8_t> mask, Optional<double> bias, Optional<uint8_t> slices)
      : rows_(rows), codes_(std::move(codes)), scale_(std::move(scale)), residual_(std::move(residual)),
        norms_(std::move(norms)), prefix_norms_(std::move(prefix_norms)), mask_(std::move(mask)),
        bias_(std::move(bias)), slices_(std::move(slices)) {
    corpus_.n = rows_.n();
    corpus_.dim = rows_.dim();
    corpus_.dims = dims;
    require(dims >= 1 && dims <= corpus_.dim, "dims must be in 1 .. D");
    corpus_.metric = metric_of(metric);
    corpus_.rows = rows_.view();
    corpus_.scale = vector(scale_, "scale");
    corpus_.residual = vector(residual_, "residual");
    corpus_.norms = vector(norms_, "norms");
    corpus_.prefix_norms = vector(prefix_norms_, "prefix_norms");
    corpus_.bias = vector(bias_, "bias");
    corpus_.largest_norm = largest_norm;
    if (codes_) {
      const int64_t padded = (corpus_.dim + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP;
      require(code_planes >= 0 && code_planes <= MAX_PLANES && codes_->ndim() == 2 && codes_->shape(0) == corpus_.n &&
                  codes_->shape(1) == (code_planes ? code_planes * padded / 8 : padded) && scale_ && residual_ &&
                  norms_,
              "codes must have shape [N, D padded to 64], as bytes or bit planes, with scale, residual and norms");
      require(prefix_norms_ || dims == corpus_.dim, "codes of a prefix need prefix_norms");
      corpus_.codes = codes_->data();
      corpus_.code_stride = codes_->shape(1);
      corpus_.code_planes = code_planes;
    }
    if (slices_) {
      require(slices_->ndim() == 2 && slices_->shape(0) == corpus_.n && slices_->shape(1) == padded_dim() &&
                  corpus_.metric == Metric::dot && dims == corpus_.dim && !code_planes,
              "slices must have shape [N, D padded to 64], and go with all of 'dot'");
      corpus_.slices = slices_->data();
      corpus_.slice_stride = slices_->shape(1);
    }
    if (mask_) {
      require(mask_->ndim() == 2 && mask_->shape(1) == (corpus_.n + 7) / 8,
              "mask must have shape [1 or Q, ceil(N / 8)]");
      corpus_.mask = mask_->data();
      corpus_.mask_stride = mask_->shape(0) == 1 ? 0 : mask_->shape(1);
    }
  }

  const Corpus& view() const { return corpus_; }

  Queries queries(const Array<float>& rows, const Optional<uint8_t>& slices = {}) const {
    require(rows.ndim() == 2 && rows.shape(1) == corpus_.dim, "queries must have shape [Q, D]");
    require(!mask_ || mask_->shape(0) == 1 || mask_->shape(0) == rows.shape(0),
            "mask must have one row, or one per query");
    require(slices.has_value() == slices_.has_value() &&
                (!slices || (slices->ndim() == 2 && slices->shape(0) == rows.shape(0) &&
                             slices->shape(1) == padded_dim())),
            "query_slices must have shape [Q, D padded to 64], where the documents have slices");
    return {rows.data(), rows.shape(0), slices ? slices->data() : nullptr};
  }

 private:
  int64_t padded_dim() const { return (corpus_.dim + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP; }

  template <class T>
  const T* vector(const Optional<T>& array, const char* name) const {
    if (!array) return nullptr;
    require(array->ndim() == 1 && array->shape(0) == corpus_.n, std::string(name) + " must have shape [N]");
    return array->data();
  }

  RowArrays rows_;
  Optional<uint8_t> codes_;
  Optional<float> scale_, residual_;
  Optional<double> norms_, prefix_norms_;
  Optional<uint8_t> mask_;
  Optional<double> bias_;
  Optional<uint8_t> slices_;
  Corpus corpus_;
};

inline ScanPlan scan_plan(const Corpus& scanned, int64_t k, int tile, int sample, int64_t sample_rank, int64_t width,
                          int query_block, int row_queries, double deviations) {
  require(k >= 1 && tile >= 1 && sample >= 0 && width >= 4 * k && query_block >= 1 && row_queries >= 0 &&
              row_queries <= MAX_PANELS * PANEL && query_block % PANEL == 0 && deviations >= 0,
          "k and tile must be positive, width at least 4 k, query_block a multiple of 16, row_queries at most 32, "
          "deviations not negative");
  require(scanned.n < INT32_MAX, "at most 2^31 - 2 documents");
  require(sample <= scanned.considered() && (sample == 0 || sample_rank >= 1),
          "sample must be rows, sample_rank a place in it");
  return {tile, sample, sample_rank, width, query_block, row_queries, deviations};
}

}  // namespace pyengine
