// What one thread computes for sparse rows: postings as words, bounds from integer sums. For the GPU and for the host,
// as common.cuh. posting_windows.py and window_queries.py in pyengine/backends lay them out and derive the bounds.
#pragma once

#include "common.cuh"

namespace pyengine::cuda {

constexpr int WINDOW = 1 << 14;  // documents whose sums a block of threads has in shared memory

// A posting: the level of a weight, signed, above the place of the document in its window, as an offset of bytes among
// sums of four. 0 fills up.
BOTH int32_t level_of(uint32_t posting) { return static_cast<int32_t>(posting) >> 16; }
BOTH uint32_t offset_of(uint32_t posting) { return posting & 0xFFFC; }

// A score lies within `slack` of the sum, both in the unit of the query, and of what float32 rounds of the bias.
BOTH Bounds sum_bounds(int32_t sum, float slack, float bias) {
  const float middle = static_cast<float>(sum) + bias, radius = slack + 9.5367431640625e-07f * fabsf(bias);  // 2^-20
  return {middle + radius, middle - radius};
}

// A sum below this has, without a bias, an upper bound below the threshold.
BOTH int32_t least_sum(float threshold, float slack) {
  const double away = fabs(static_cast<double>(threshold)) + slack;
  const double least = static_cast<double>(threshold) - slack - 9.5367431640625e-07 * away - 2;
  if (!(least > INT32_MIN)) return INT32_MIN;
  return least < INT32_MAX ? static_cast<int32_t>(least) : INT32_MAX;
}

}  // namespace pyengine::cuda
