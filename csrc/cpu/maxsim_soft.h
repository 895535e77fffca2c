// Exact scores of listed pairs by the reductions that take every product, or those of tokens of equal place.
#pragma once

#include "cpu/maxsim_pairs.h"

namespace pyengine {

// With the reductions of `takes_all`. An aligned score goes as far as the shorter of its two sets.
void soft_pairs(const TokenPairs& pairs, float* scores, int threads, const Interrupt& interrupt);

inline bool takes_all(Reduction reduce) {
  return reduce == Reduction::softmax || reduce == Reduction::pooled || reduce == Reduction::aligned;
}

}  // namespace pyengine
