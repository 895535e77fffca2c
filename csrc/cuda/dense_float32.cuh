// Products of float32 without tensor cores: each product and sum is rounded to float32 and to no less (no tf32), so that they
// are off by gamma_D.
//
// A thread keeps the sums of four documents with 4, 8 or 16 queries: of 16 bytes of each, it reads 20 pieces of shared
// memory for 256 multiplications. The threads of a warp read eight documents and four queries, whose pieces lie in banks of
// their own.
#pragma once

#include "dense_tile.cuh"

namespace pyengine::cuda {
DEVICE float added(float sum, float4 a, float4 b) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// The products of a tile: a warp multiplies 32 documents with BQ / COLUMNS queries. What append_passing asks for is where
// `Products` has it.
template <int BQ, int COLUMNS>
struct FloatProducts {
  using Operands = Step<BQ, 1>;
  static constexpr int EIGHTS = BQ / COLUMNS / 8, COUNT = 8 * EIGHTS;
  const uint8_t* shared;
  float sums[EIGHTS][8] = {};

  DEVICE float4 read(uint32_t base, int row, int piece) const {
    return *reinterpret_cast<const float4*>(shared + (Operands::piece(base, row, piece) - shared_address(shared)));
  }

  DEVICE void add(uint32_t base) {
#pragma unroll 2
    for (int at = 0; at < Operands::PIECES; ++at) {
      float4 docs[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) docs[i] = read(base, doc(i), at);
#pragma unroll
      for (int eight = 0; eight < EIGHTS; ++eight)
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
          const float4 own = read(base, DOCS + query(8 * eight + odd), at);
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[eight][2 * i + odd] = added(sums[eight][2 * i + odd], docs[i], own);
        }
    }
  }

  DEVICE int doc(int i) const { return threadIdx.x / 32 / COLUMNS * 32 + threadIdx.x % 32 / 4 + 8 * i; }
  DEVICE int query(int number) const {
    return threadIdx.x / 32 % COLUMNS * (BQ / COLUMNS) + number / 8 * 8 + threadIdx.x % 4 * 2 + number % 2;
  }
  DEVICE float sum(int number, const QueryTerms& terms) const { return weighed(terms, sums[number / 8][number % 8]); }
};

// A tile of a scan. `Tile` has what is known of its queries.
template <template <int> class Tile, int BQ, int COLUMNS, class AnyScan>
DEVICE void scan_floats(const AnyScan& scan, const Operand& from, uint8_t* shared) {
  __shared__ Tile<BQ> tile;
  const int64_t blocks = (scan.n_queries + BQ - 1) / BQ, query = blockIdx.x % blocks * BQ;
  const int64_t row = first_row(scan, blockIdx.x / blocks);
  if (!anyone_may<Block>(scan, row, query, BQ)) return;
  tile.template load<Block>(scan, query);
  FloatProducts<BQ, COLUMNS> products{shared};
  multiply_tile<BQ, 1>(products, from, shared, row, query);
  append_passing<Block>(scan, tile, products, row, query);
}

}  // namespace pyengine::cuda
