// Token vectors as the kernels of MaxSim take them: a query's packed in panels, a document's in blocks of rows.
//
// The bound. u = 2^-24, gamma_n = n u / (1 - n u). Estimates take q^ for q' (q times a power of two, or 1/|q|) and d^
// for d: |q^ - q'| = m, |d^ - d| <= r |d|, both 0 where floats are taken as they are. n rounded operations make
// E off by
//   |E - <q',d>| <= gamma_n |q^||d^| + |q^||d^ - d| + |q^ - q'||d| <= ((|q'| + m) (gamma_n (1 + r) + r) + m) |d|.
// A scale t = 1/|d| of relative error n' u and the rounding of the bound itself raise n. Where floats are denormal,
// what is off by 2^-126 at most lies in FLOOR_QUERY * FLOOR_DOC * dim. So |t E - t <q',d>| <= error_i weight_j with
//   error_i = (|q'_i| + m) (gamma (1 + r) + r) + m + FLOOR_QUERY,  weight_j = t (|d_j| + dim FLOOR_DOC).
#pragma once

#include <vector>

#include "cpu/aligned.h"
#include "cpu/maxsim.h"

namespace pyengine {

constexpr double FLOOR_QUERY = 0x1p-60, FLOOR_DOC = 0x1p-60;

// gamma, for rows of dim floats: a product and a sum for each, the norm's sums, and a little for the rest.
double estimate_error(int dim);

// |row| by the specification.
double token_norm(const KernelTable& table, const float* row, int dim);

// A query's tokens, scaled so that their products neither overflow nor vanish.
struct PackedQuery {
  const float* rows = nullptr;  // [count, dim] as given
  int count = 0, width = 0;     // width: count padded to PANEL
  AlignedVector<uint32_t> panels;  // [width / PANEL][words][PANEL]: see KernelTable::token_words
  AlignedVector<float> error;   // [width]
  std::vector<uint16_t> sought, present;  // see TokenWindow; a token of zeros, whose products are all 0, is not sought
  std::vector<double> norms;    // [count], where cosines are asked for

  PackedQuery(const Tokens& queries, int64_t query, bool normalize, const KernelTable& table);
};

// Up to `most` tokens of a document. One per thread.
class TokenBlock {
 public:
  TokenBlock(const Tokens& docs, bool normalize, int most, const KernelTable& table);

  void read(int64_t first, int count);
  // See RowReader::soon.
  const float* soon(int64_t token) const { return reader_.soon(token); }

  int count() const { return count_; }
  const float* row(int i) const { return rows_ + i * static_cast<size_t>(docs_.dim); }
  const void* words() const { return words_.empty() ? static_cast<const void*>(rows_) : words_.data(); }
  const float* scale() const { return scale_.data(); }    // [count] t
  const float* weight() const { return weight_.data(); }  // [count]
  double norm(int i);                                     // by the specification

 private:
  void bound(int i);

  const Tokens& docs_;
  const bool normalize_;
  const KernelTable& table_;
  RowReader reader_;
  const int n_words_;
  const double slack_;
  int64_t first_ = 0;
  int count_ = 0;
  const float* rows_ = nullptr;
  AlignedVector<uint32_t> words_;  // [most padded to TOKEN_ROWS, n_words_]; empty where floats are taken as they are
  AlignedVector<float> scale_, weight_;
  std::vector<double> norms_;  // NaN where unknown
};

}  // namespace pyengine
