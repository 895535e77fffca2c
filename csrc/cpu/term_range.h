// The extremes of a tile's terms.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace pyengine {

// Terms that are never negative have the order of their bits, in which compilers find an extreme by whole registers.
struct TermRange {
  float least, largest;

  TermRange(const float* terms, int n) {
    int32_t low = INT32_MAX, high = 0;
    for (int i = 0; i < n; ++i) {
      int32_t bits;
      std::memcpy(&bits, terms + i, sizeof bits);
      low = std::min(low, bits), high = std::max(high, bits);
    }
    std::memcpy(&least, &low, sizeof low), std::memcpy(&largest, &high, sizeof high);
  }
};

}  // namespace pyengine
