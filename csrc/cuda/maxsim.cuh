// What one thread of the MaxSim scan computes: products, bounds of a pair, the order of documents, places in shared
// memory. The same source for the GPU and for the host, where the tests run it.
#pragma once

#include "common.cuh"

namespace pyengine::cuda {

// The bits of 1.5 * 2^23: an integer below 2^22 added to them makes the float32 which is so much larger. Sums that
// begin with it become float32 in the multiplication that follows, where a conversion has a fourth of the rate.
constexpr int32_t BIASED = 0x4B400000;

// The product times a weight of 22 bits, rounded once, given what the weight makes of the difference, exactly.
BOTH float less_of(float weight) { return -12582912.0f * weight; }
BOTH float weighed(int32_t biased, float weight, float less) { return fmaf(bits_of<float>(biased), weight, less); }

// The document that comes n-th where one of `stride` is seen first.
BOTH int64_t spread_row(int64_t number, int64_t stride, int64_t n_docs) {
  const int64_t sampled = (n_docs + stride - 1) / stride;
  if (number < sampled) return number * stride;
  return (number - sampled) / (stride - 1) * stride + 1 + (number - sampled) % (stride - 1);
}

// Where the 16 bytes of that number lie, of a row of DEPTH bytes in shared memory: so that eight rows meet in no bank.
template <int DEPTH>
BOTH int piece_at(int row, int number) {
  static_assert(DEPTH == 64 || DEPTH == 128);
  if (DEPTH == 128) return row * 128 + (number ^ row % 8) * 16;
  return row * 64 + (number ^ row / 2 % 4) * 16;
}

// As float32 that is no smaller, and no larger: of scores, which are clamped.
BOTH double away(double x) { return fabs(x) * 1.1920928955078125e-07 + 1.401298464324817e-45; }  // 2^-23, 2^-149
BOTH float no_smaller(double x) {
  const float found = static_cast<float>(x + away(x)), least = -static_cast<float>(FLOAT_MAX);
  return found < least ? least : found;
}
BOTH float no_larger(double x) {
  const float found = static_cast<float>(x - away(x)), most = static_cast<float>(FLOAT_MAX);
  return found > most ? most : found;
}

// The bounds of a pair, by its sums in float32 (pyengine/backends/shared/token_terms.py): `query` are the seven
// `QueryTerms.sums`; `doc` holds max (|d| + r), max r, and for `back` sum |b| (|d| + r), sum |b| r. A query without
// tokens scores its bias.
BOTH Bounds pair_bounds(const double* query, const double* doc, float forth, float back, bool both, bool asked,
                        double bias) {
  double score = 0, error = 0;
  if (asked) {
    score = forth * query[0];
    error = query[2] * doc[0] + query[3] * doc[1] + query[6];
    if (both) {
      score += back * query[1];
      error += query[4] * doc[2] + query[5] * doc[3];
    }
  }
  error += error * 9.094947017729282e-13 + (fabs(bias) + fabs(score)) * 3.552713678800501e-15;  // 2^-40, 2^-48
  return {no_smaller(score + bias + error), no_larger(score + bias - error)};
}

}  // namespace pyengine::cuda
