// What one thread decides of the filters by refined scores (pyengine/inputs/filters.py). The same source for the GPU and
// for the host, where the tests run it.
#pragma once

#include "common.cuh"

namespace pyengine::cuda {

// Whether a row is among `count` that rise.
BOTH bool listed_in(const int32_t* rows, int64_t count, int32_t row) {
  int64_t low = 0;
  for (int64_t high = count; low < high;) {
    const int64_t middle = (low + high) / 2;
    if (rows[middle] < row) low = middle + 1;
    else high = middle;
  }
  return low < count && rows[low] == row;
}

// Rank scores of `least` at least, and below `mark`, or equal to it from the `place` on in the order of ids.
struct Range {
  double least, mark;
  int32_t place;
};

BOTH bool within(const Range& range, double rank, int32_t place) {
  return rank >= range.least && (rank < range.mark || (rank == range.mark && place >= range.place));
}

// The places that meet, as the number-th pair of a step of a sorting network: in blocks of `size` whose halves are in
// order the first step, of stride size / 2, compares from both ends, the others places that are `stride` apart. The
// lesser always goes to the lower place, so that what is beyond the end may be left out: it would stay there.
struct Meeting { int64_t low, high; };

BOTH Meeting meeting(int64_t number, int64_t size, int64_t stride) {
  const int64_t first = number / stride * 2 * stride, within = number % stride;
  return {first + within, 2 * stride == size ? first + size - 1 - within : first + within + stride};
}

}  // namespace pyengine::cuda
