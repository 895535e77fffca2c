// Work on (query, row) pairs in the order of their rows: many queries then share what memory gives, and it streams.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace pyengine {

// A candidate of a query, and its place in a list.
struct Place {
  int64_t row, query, at;
};

// Sort by row, stably: radix sort, 11 bits a pass.
inline void order_by_row(std::vector<Place>& places, int64_t n_rows) {
  constexpr int BITS = 11, BINS = 1 << BITS;
  std::vector<Place> from(places.size());
  for (int shift = 0; (n_rows - 1) >> shift > 0; shift += BITS) {
    from.swap(places);
    std::array<size_t, BINS + 1> start{};
    for (const Place& place : from) ++start[(place.row >> shift) % BINS + 1];
    for (int bin = 0; bin < BINS; ++bin) start[bin + 1] += start[bin];
    for (const Place& place : from) places[start[(place.row >> shift) % BINS]++] = place;
  }
}

}  // namespace pyengine
