// A block of queries prepared for scanning: unit vectors as two int8 parts, packed, with the terms of their bounds.
#pragma once

#include <memory>
#include <vector>

#include "cpu/dense.h"
#include "cpu/kernels.h"

namespace pyengine {

// How scores are scaled so that nothing overflows float32: rank score = unit * s + base with
//   s = alpha * w * <q/|q|, d/|d|> + beta * h,   0 <= alpha, beta <= 1
// and, per metric, the weight w and the offset h of a document (see DocTerms in doc_tiles.h).
struct Scaling {
  double unit, base, alpha, beta;
  double slack;  // what rounding the score to float32 may do, in units of s
};

class PreparedQueries {
 public:
  // Queries [first, first + count) of the problem. `norm_unit` and `offset_unit` scale the documents' weights, offsets.
  PreparedQueries(const Corpus& corpus, const Queries& queries, int64_t first, int64_t count, int depth, bool as_rows,
                  double norm_unit, double offset_unit, const KernelTable& table, int threads,
                  const Interrupt& interrupt);

  // The terms of queries [first, first + n) in the block, to be compared with `threshold` [n].
  QueryBlock block(int64_t first, const float* threshold) const;

  int64_t count() const { return count_; }
  const Scaling& scaling(int64_t query) const { return scaling_[query]; }

  // Bounds of one pair, from the product of the first parts and, exactly, that of the second.
  struct Bounds {
    float estimate, lower, upper;
  };
  // A lower bound from the first parts alone, for sampling.
  float lower(int64_t query, int32_t product, float scale, float weight, float residual, double offset) const;
  Bounds sharpen(int64_t query, int32_t product, const uint8_t* codes, float scale, float weight, float residual,
                 double offset, const KernelTable& table) const;

 private:
  void quantize(int64_t query, const float* row, int dims, const KernelTable& table);
  void pack(int64_t query, const std::vector<int8_t>& codes);

  int64_t count_, padded_;
  int depth_;
  bool as_rows_;
  double relative_;  // bound on the relative error of a document's weight, scale and offset
  std::vector<int8_t> first_, second_;  // [padded / 16 panels] or rows; rows [count, depth]
  std::vector<int32_t> start_, second_start_;
  std::vector<float> scale_, error_, spread_, lift_;
  std::vector<double> first_scale_, second_scale_, second_error_;
  std::vector<Scaling> scaling_;
};

}  // namespace pyengine
