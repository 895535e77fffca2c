// How the dense scans that run on every chip multiply a tile: 128 documents by 16, 64 or 128 queries, in steps of 128 bytes of
// a row, which come by cp.async into a ring in shared memory.
#pragma once

#include "dense_scan.cuh"

namespace pyengine::cuda {

struct Operand {  // lengths are bytes of a row
  const uint8_t *docs, *first_part, *second_part;
  int64_t length, doc_stride, query_stride, stages, n_docs;
};

// The first parameters of these kernels, and the `Operand` that they are.
#define OPERAND_PARAMETERS                                                                                          \
  const uint8_t *docs, const uint8_t *first_part, const uint8_t *second_part, int64_t length, int64_t doc_stride,   \
      int64_t query_stride, int64_t stages
#define OPERAND \
  Operand { docs, first_part, second_part, length, doc_stride, query_stride, stages, n_docs }

// A step of the operands in shared memory: rows of `DEPTH` bytes, whose 16-byte pieces are permuted so that eight rows
// meet in no bank.
template <int BQ, int PARTS>
struct Step {
  static constexpr int ROWS = DOCS + PARTS * BQ, BYTES = ROWS * DEPTH, PIECES = DEPTH / 16;

  static DEVICE uint32_t piece(uint32_t base, int row, int number) {
    return base + row * DEPTH + ((number ^ (row % 8)) * 16);
  }

  static DEVICE void load(const Operand& from, uint32_t base, int64_t row, int64_t query, int64_t depth) {
    for (int i = threadIdx.x; i < ROWS * PIECES; i += blockDim.x) {
      const int own = i / PIECES, number = i % PIECES;
      const int64_t at = depth + number * 16;
      if (own < DOCS) {  // what is beyond the end is not kept
        const int64_t doc = row + own < from.n_docs ? row + own : from.n_docs - 1;
        const bool there = at < from.length;
        copy_async(piece(base, own, number), from.docs + doc * from.doc_stride + (there ? at : 0), there);
      } else {
        const int64_t part = (own - DOCS) / BQ, other = query + (own - DOCS) % BQ;
        const uint8_t* values = part ? from.second_part : from.first_part;
        copy_async(piece(base, own, number), values + other * from.query_stride + at, true);
      }
    }
  }
};

DEVICE void await_step(int64_t stages) {
  if (stages == 2) await_copies<0>();
  else if (stages == 3) await_copies<1>();
  else if (stages == 4) await_copies<2>();
  else await_copies<3>();
  __syncthreads();
}

// The products of a tile: a warp multiplies 32 documents with BQ / COLUMNS queries.
template <Kind KIND, int BQ, int PARTS, int COLUMNS>
struct Products {
  using Operands = Step<BQ, PARTS>;
  static constexpr int NARROW = BQ / COLUMNS / 8, COUNT = 8 * NARROW;  // blocks of 8 queries
  SumOf<KIND> sums[PARTS][2][NARROW][4] = {};

  DEVICE void add(uint32_t base, int pieces = Operands::PIECES) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, eighth = lane % 8, matrix = lane / 8;
    const int docs = warp / COLUMNS * 32, queries = DOCS + warp % COLUMNS * (BQ / COLUMNS);
#pragma unroll
    for (int at = 0; at < pieces; at += 2) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m)
        load_matrices(a[m], Operands::piece(base, docs + 16 * m + matrix % 2 * 8 + eighth, at + matrix / 2));
#pragma unroll
      for (int part = 0; part < PARTS; ++part)
#pragma unroll
        for (int n = 0; n < NARROW; n += 2) {
          uint32_t b[4];
          load_matrices(b, Operands::piece(base, queries + part * BQ + 8 * n + matrix / 2 * 8 + eighth, at + matrix % 2));
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            multiply<KIND>(sums[part][m][n], a[m], b[0], b[1]);
            multiply<KIND>(sums[part][m][n + 1], a[m], b[2], b[3]);
          }
        }
    }
  }

  // What append_passing asks for.
  DEVICE int doc(int i) const { return threadIdx.x / 32 / COLUMNS * 32 + threadIdx.x % 32 / 4 + 8 * i; }
  DEVICE int query(int number) const {
    return threadIdx.x / 32 % COLUMNS * (BQ / COLUMNS) + number / 8 * 8 + threadIdx.x % 4 * 2 + number % 2;
  }
  DEVICE float sum(int number, const QueryTerms& terms) const {
    const int m = number / 4 % 2, n = number / 8, i = number % 4;
    if constexpr (PARTS == 1) return weighed(terms, sums[0][m][n][i]);
    else return weighed(terms, sums[0][m][n][i], sums[1][m][n][i]);
  }
};

template <int BQ, int PARTS, class Products>
DEVICE void multiply_tile(Products& products, const Operand& from, uint8_t* shared, int64_t row, int64_t query) {
  using Operands = Step<BQ, PARTS>;
  const uint32_t base = shared_address(shared);
  const int steps = static_cast<int>((from.length + DEPTH - 1) / DEPTH), ahead = static_cast<int>(from.stages) - 1;
  for (int i = 0; i < ahead; ++i) {
    if (i < steps) Operands::load(from, base + i * Operands::BYTES, row, query, int64_t{i} * DEPTH);
    commit_copies();
  }
  for (int i = 0, now = 0, next = ahead; i < steps; ++i) {
    await_step(from.stages);
    if (i + ahead < steps)
      Operands::load(from, base + next * Operands::BYTES, row, query, int64_t{i + ahead} * DEPTH);
    commit_copies();
    products.add(base + now * Operands::BYTES);
    now = now == ahead ? 0 : now + 1;
    next = next == ahead ? 0 : next + 1;
  }
}

// A tile of a scan. `Tile` has what is known of its queries.
template <template <int> class Tile, Kind KIND, int BQ, int PARTS, int COLUMNS, class AnyScan>
DEVICE void scan_tile(const AnyScan& scan, const Operand& from, uint8_t* shared) {
  __shared__ Tile<BQ> tile;
  const int64_t blocks = (scan.n_queries + BQ - 1) / BQ, query = blockIdx.x % blocks * BQ;
  const int64_t row = first_row(scan, blockIdx.x / blocks);
  if (!anyone_may<Block>(scan, row, query, BQ)) return;
  tile.template load<Block>(scan, query);
  Products<KIND, BQ, PARTS, COLUMNS> products;
  multiply_tile<BQ, PARTS>(products, from, shared, row, query);
  append_passing<Block>(scan, tile, products, row, query);
}

}  // namespace pyengine::cuda
