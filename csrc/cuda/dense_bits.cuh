// Products of documents of one bit a dimension, signs s = 2b - 1, with queries of int8 codes c, taken apart into planes of
// bits, so that
//
//     <c, s> = 2 <c, b> - sum c,    <c, b> = sum over planes of weight * popcount(plane and b)
//
// with integers throughout: eight planes of 1, 2, .. 64 and -128, or, for queries that are signs themselves, one of what is
// above and one of what is below zero. Tensor cores count (`mma` of 256 bits): eight planes take as many of their clocks as
// one product of int8, and an eighth is read. On sm_100, where they have no bits, the compiler makes eight products of bytes
// of one of bits, which takes longer than reading.
#pragma once

#include "dense_tile.cuh"

namespace pyengine::cuda {

constexpr int LEVEL = 127;  // of the codes of signs

DEVICE constexpr int weight(int plane, int planes) {
  return planes == 2 ? LEVEL - 2 * LEVEL * plane : plane == 7 ? -128 : 1 << plane;
}

// The products of a tile: a warp counts 32 documents with the planes of BQ / COLUMNS queries.
template <int PLANES, int BQ, int COLUMNS>
struct BitProducts {
  static constexpr int COUNT = BQ / COLUMNS, BLOCKS = PLANES / 2;  // of eight planes, for four queries
  Products<BITS, BQ * PLANES, 1, COLUMNS> counts;
  int pieces;  // of a row that are left

  DEVICE void add(uint32_t base) {
    counts.add(base, min(pieces, Step<BQ * PLANES, 1>::PIECES));
    pieces -= Step<BQ * PLANES, 1>::PIECES;
  }

  // What append_passing asks for: of eight, four are of one query, and four of another.
  DEVICE int doc(int i) const { return counts.doc(i); }
  DEVICE int group(int number) const { return number / 8 * 2 + number % 2; }
  DEVICE int query(int number) const {
    return threadIdx.x / 32 % COLUMNS * (BQ / COLUMNS) + group(number) * 4 + threadIdx.x % 4;
  }
  DEVICE float sum(int number, const QueryTerms& terms) const {
    const int m = number / 4 % 2, below = number / 2 % 2;
    int32_t sum = 0;
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block) {
      const int32_t(&own)[4] = counts.sums[0][m][group(number) * BLOCKS + block];
      sum += weight(2 * block, PLANES) * own[2 * below] + weight(2 * block + 1, PLANES) * own[2 * below + 1];
    }
    return weighed(terms, 2 * sum - static_cast<int32_t>(terms.second));
  }
};

// A tile of a scan. `Tile` has what is known of its queries.
template <template <int> class Tile, int PLANES, int BQ, int COLUMNS, class AnyScan>
DEVICE void scan_bits(const AnyScan& scan, const Operand& from, uint8_t* shared) {
  __shared__ Tile<BQ> tile;
  const int64_t blocks = (scan.n_queries + BQ - 1) / BQ, query = blockIdx.x % blocks * BQ;
  const int64_t row = first_row(scan, blockIdx.x / blocks);
  if (!anyone_may<Block>(scan, row, query, BQ)) return;
  tile.template load<Block>(scan, query);
  BitProducts<PLANES, BQ, COLUMNS> products{{}, static_cast<int>(from.length / 16)};
  multiply_tile<BQ * PLANES, 1>(products, from, shared, row, query * PLANES);
  append_passing<Block>(scan, tile, products, row, query);
}

}  // namespace pyengine::cuda
