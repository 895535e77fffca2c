// Late interaction: queries and documents are sets of token vectors. See the specification in DESIGN.md.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "cpu/parallel.h"
#include "cpu/rows.h"

namespace pyengine {

// Borrowed: n sets of token vectors, set i the rows [offsets[i], offsets[i + 1]). Optional pointers may be null.
struct Tokens {
  int64_t n = 0;
  int dim = 0;
  Rows rows;
  const int64_t* offsets = nullptr;  // [n + 1], from 0
  const double* norms = nullptr;     // optional [T]: |token|, by the specification
  const uint8_t* codes = nullptr;    // optional [T, code_stride], with scale and residual [T] (see RowCode)
  int64_t code_stride = 0;
  int code_planes = 0;  // the codes as so many bit planes (RowKind::planes); 0: as bytes
  const float* scale = nullptr;
  const float* residual = nullptr;

  int64_t total() const { return offsets[n]; }
  int64_t count(int64_t i) const { return offsets[i + 1] - offsets[i]; }
};

// How the maxima make a score: of the query's tokens summed or averaged, or averaged in both directions. The others
// take what is softer than a maximum, or no maximum (maxsim_soft.h).
enum class Reduction { sum, mean, symmetric, softmax, pooled, aligned };

// A score with its document's bias, rounded once; -inf stays.
inline float rounded_score(double score, const double* bias, int64_t doc) {
  constexpr double MOST = std::numeric_limits<float>::max();
  if (score == -std::numeric_limits<double>::infinity()) return static_cast<float>(score);
  if (bias) score += bias[doc];
  return static_cast<float>(std::min(std::max(score, -MOST), MOST)) + 0.0f;
}

}  // namespace pyengine
