// A block of queries prepared for scanning: unit vectors as two int8 parts, packed, with the terms of their bounds.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/aligned.h"
#include "cpu/dense.h"
#include "cpu/kernels.h"

namespace pyengine {

// In units of s. More than float32 underflow can do to a term (weights are at most 1e15), and far below what matters.
constexpr double SMALLEST_STEP = 0x1p-80;

// Bound on the relative error of a document's weight, scale and offset: of norms summed in float32 (see quantize_row),
// and of every float32 rounding of a term that is proportional to them.
inline double relative_error(int dims) { return (dims / 4 + 64) * 0x1p-22; }

// One document's part in its bound.
struct DocTerms {
  float scale, weight, residual;  // as in DocTile
  double offset, offset_error;    // h, and how far it may be off
};

// How scores are scaled so that nothing overflows float32: rank score = unit * s + base with
//   s = alpha * w * <q/|q|, d/|d|> + beta * h,   0 <= alpha, beta <= 1
// and, per metric, the weight w and the offset h of a document: DocTiles::weigh.
struct Scaling {
  double unit, base, alpha, beta;

  // `gain`: the largest of w <q, d/|d|>, about, as `offset_unit` is of h.
  static Scaling of(double gain, double base, double offset_unit);

  // What is dropped at a threshold stays below this: further down by what rounding a score to float32 may do.
  double reach(double threshold) const {
    if (std::isinf(threshold)) return threshold;
    return threshold - 0x1p-22 * std::fabs(threshold + base / unit) - SMALLEST_STEP;
  }
};

class PreparedQueries {
 public:
  // Queries [first, first + count) of the problem. `norm_unit` and `offset_unit` scale the documents' weights, offsets.
  PreparedQueries(const Corpus& corpus, const Queries& queries, int64_t first, int64_t count, int depth, bool as_rows,
                  double norm_unit, double offset_unit, const KernelTable& table, int threads,
                  const Interrupt& interrupt);

  // The terms of queries [first, first + n) in the block, to be compared with `threshold` [n].
  QueryBlock block(int64_t first, const float* threshold) const;
  // The threshold by which the filter lets pass all that may reach `reach`.
  float filter(int64_t query, double reach, bool weighted) const;

  // What part of a bound a rounding error is unlikely to pass. Errors in n dimensions of equal weight add up like
  // random ones, to about 1 / sqrt(n) of their bound; n is the participation ratio of the query, 1 / sum(u_i^4).
  std::vector<double> cautions(double deviations) const;

  int64_t count() const { return count_; }
  int64_t padded() const { return padded_; }  // to whole panels
  const std::vector<Scaling>& scalings() const { return scaling_; }

  // The parts of one query: u is about scale * its codes, off by `error` (rounding included), with sqrt(sum(u_i^4)).
  struct Part {
    double norm, scale, error, concentration;
  };
  Part part(int64_t query) const {
    return {norm_[query], first_scale_[query], error_[query], concentration_[query]};
  }

  // Bounds of one pair's s.
  struct Bounds {
    float estimate, lower, upper;

    static Bounds around(double estimate, double radius) {
      radius += 0x1p-20 * std::fabs(estimate) + SMALLEST_STEP;
      if (!(radius < 1e30)) return {static_cast<float>(estimate), -INFINITY, INFINITY};
      return {static_cast<float>(estimate), static_cast<float>(estimate - radius),
              static_cast<float>(estimate + radius)};
    }
  };
  // From the first parts alone.
  Bounds rough(int64_t query, int32_t product, const DocTerms& doc) const {
    const double estimate = static_cast<double>(scale_[query]) * product * doc.scale + lift_[query] * doc.offset;
    const double radius = static_cast<double>(error_[query]) * doc.weight +
                          static_cast<double>(spread_[query]) * doc.residual + lift_[query] * doc.offset_error;
    return Bounds::around(estimate, radius);
  }
  // With the second part, too: given the product of its codes, which `second_product` takes from a document's.
  Bounds sharpen(int64_t query, int32_t product, int32_t second, const DocTerms& doc) const;
  int32_t second_product(int64_t query, const uint8_t* codes, const KernelTable& table) const {
    return second_start_[query] + table.dot_codes(codes, second(query), depth_);
  }
  const int8_t* second(int64_t query) const { return second_.data() + query * depth_; }

 private:
  void quantize(int64_t query, const float* row, int dims, double norm, const KernelTable& table);
  void pack(int64_t query, const std::vector<int8_t>& codes);
  void set_filter(int64_t query);

  int64_t count_, padded_;
  int depth_;
  bool as_rows_;
  double relative_;  // relative_error
  AlignedVector<int8_t> first_, second_;  // [padded / 16 panels] or rows; rows [count, depth]
  AlignedVector<int32_t> start_;
  std::vector<int32_t> second_start_;
  std::vector<float> scale_, error_, spread_, lift_;
  std::vector<double> unit_;  // of the filter's terms; 0 where there are none
  AlignedVector<float> filter_error_, filter_spread_, filter_lift_;
  std::vector<double> first_scale_, second_scale_, second_error_;
  std::vector<double> norm_, concentration_;  // |q|; sqrt(sum(u_i^4))
  std::vector<Scaling> scaling_;
};

}  // namespace pyengine
