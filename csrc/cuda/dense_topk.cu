// Dense top-k: multiply int8 codes, or documents of 16 bits as they are, bound, compare with a threshold and append what may
// pass. The counterpart of kernels/dense_topk.py, for the tiles and the parts of a scan that kernels/dense_plan.py plans.
//
// A tile is 128 documents by 16, 64 or 128 queries, in steps of 128 bytes of a row. Documents are read from memory once, and
// by the blocks of other queries, which run beside, from the L2 cache. At 128 queries a step reads 32 KiB for 4 M
// operations of int8, 128 a byte, and a thread holds 64 sums; larger ones would leave no registers for the epilogue. Two
// parts of a query (16, 64) make twice the operations where reading takes longer anyway. What it takes of registers and
// shared memory: bench/results/cuda-compiled.md. dense_topk_sm90.cu is the form for Hopper.
#include "dense_scan.cuh"

namespace pyengine::cuda {
namespace {

constexpr int FEW = 4;  // queries that are multiplied without tensor cores

struct Operand {  // lengths are bytes of a row
  const uint8_t *docs, *first_part, *second_part;
  int64_t length, doc_stride, query_stride, stages;
};

// A step of the operands in shared memory: rows of `DEPTH` bytes, whose 16-byte pieces are permuted so that eight rows
// meet in no bank.
template <int BQ, int PARTS>
struct Step {
  static constexpr int ROWS = DOCS + PARTS * BQ, BYTES = ROWS * DEPTH, PIECES = DEPTH / 16;

  static DEVICE uint32_t piece(uint32_t base, int row, int number) {
    return base + row * DEPTH + ((number ^ (row % 8)) * 16);
  }

  static DEVICE void load(const Scan& scan, const Operand& from, uint32_t base, int64_t row, int64_t query,
                          int64_t depth) {
    for (int i = threadIdx.x; i < ROWS * PIECES; i += blockDim.x) {
      const int own = i / PIECES, number = i % PIECES;
      const int64_t at = depth + number * 16;
      if (own < DOCS) {  // what is beyond the end is not kept
        const int64_t doc = row + own < scan.n_docs ? row + own : scan.n_docs - 1;
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
  if (stages == 3) await_copies<1>();
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

  DEVICE void add(uint32_t base) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, eighth = lane % 8, matrix = lane / 8;
    const int docs = warp / COLUMNS * 32, queries = DOCS + warp % COLUMNS * (BQ / COLUMNS);
#pragma unroll
    for (int at = 0; at < Operands::PIECES; at += 2) {
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

template <Kind KIND, int BQ, int PARTS, int COLUMNS>
DEVICE void scan_tile(const Scan& scan, const Operand& from, uint8_t* shared) {
  __shared__ TileQueries<BQ> tile;
  const int64_t blocks = (scan.n_queries + BQ - 1) / BQ, query = blockIdx.x % blocks * BQ;
  const int64_t row = first_row(scan, blockIdx.x / blocks);
  if (!anyone_may<Block>(scan, row, query, BQ)) return;
  tile.template load<Block>(scan, query);

  using Operands = Step<BQ, PARTS>;
  Products<KIND, BQ, PARTS, COLUMNS> products;
  const uint32_t base = shared_address(shared);
  const int steps = static_cast<int>((from.length + DEPTH - 1) / DEPTH), ahead = static_cast<int>(from.stages) - 1;
  for (int i = 0; i < ahead; ++i) {
    if (i < steps) Operands::load(scan, from, base + i * Operands::BYTES, row, query, int64_t{i} * DEPTH);
    commit_copies();
  }
  for (int i = 0, now = 0, next = ahead; i < steps; ++i) {
    await_step(from.stages);
    if (i + ahead < steps)
      Operands::load(scan, from, base + next * Operands::BYTES, row, query, int64_t{i + ahead} * DEPTH);
    commit_copies();
    products.add(base + now * Operands::BYTES);
    now = now == ahead ? 0 : now + 1;
    next = next == ahead ? 0 : next + 1;
  }
  append_passing<Block>(scan, tile, products, row, query);
}

DEVICE void add_products(int4 codes, int4 query, int32_t& sum) {
  sum = __dp4a(codes.x, query.x, sum);
  sum = __dp4a(codes.y, query.y, sum);
  sum = __dp4a(codes.z, query.z, sum);
  sum = __dp4a(codes.w, query.w, sum);
}

// A tile for up to `FEW` queries, which are read from shared memory, while documents go straight to registers: eight
// threads read 128 bytes of one. Beyond that many, multiplying would take longer than reading.
DEVICE void scan_few(const Scan& scan, const Operand& from, uint8_t* shared) {
  __shared__ TileQueries<FEW> tile;
  const int64_t row = first_row(scan, blockIdx.x);
  if (!anyone_may<Block>(scan, row, 0, FEW)) return;
  const int count = static_cast<int>(scan.n_queries), pieces = static_cast<int>(from.length / 16);
  const int eighth = threadIdx.x % 8, eighths = blockDim.x / 8;
  int4* codes = reinterpret_cast<int4*>(shared);  // [part, query, piece]
  for (int i = threadIdx.x; i < 2 * count * pieces; i += blockDim.x) {
    const uint8_t* part = i / (count * pieces) ? from.second_part : from.first_part;
    codes[i] = reinterpret_cast<const int4*>(part + i / pieces % count * from.query_stride)[i % pieces];
  }
  tile.template load<Block>(scan, 0);
  __syncthreads();

  constexpr int ROUNDS = 8;  // of 16 documents: 128 threads
  Bounds found[ROUNDS];      // of the query that this thread looks after, if any
  unsigned kept = 0;
#pragma unroll
  for (int round = 0; round < ROUNDS; ++round) {
    const int64_t doc = row + round * eighths + threadIdx.x / 8;
    const int64_t held = doc < scan.n_docs ? doc : scan.n_docs - 1;
    const int4* at = reinterpret_cast<const int4*>(from.docs + held * from.doc_stride);
    int32_t sums[2][FEW] = {};
#pragma unroll 4
    for (int i = eighth; i < pieces; i += 8) {
      const int4 own = at[i];
#pragma unroll
      for (int q = 0; q < FEW; ++q)
        if (q < count) {
          add_products(own, codes[q * pieces + i], sums[0][q]);
          add_products(own, codes[(count + q) * pieces + i], sums[1][q]);
        }
    }
    int32_t product = 0, other = 0;
#pragma unroll
    for (int q = 0; q < FEW; ++q) {
      for (int by = 4; by > 0; by /= 2) {
        sums[0][q] += __shfl_xor_sync(WARP, sums[0][q], by);
        sums[1][q] += __shfl_xor_sync(WARP, sums[1][q], by);
      }
      if (q == eighth) product = sums[0][q], other = sums[1][q];
    }
    if (eighth < count) {
      const QueryTerms& terms = tile.terms[eighth];
      found[round] = bounds(doc_terms(scan, doc), terms, weighed(terms, product, other));
      if (passes(found[round].upper, tile.threshold[eighth]) && may_have(scan, eighth, doc)) {
        kept |= 1u << round;
        atomicAdd(&tile.kept[eighth], 1);
      }
    }
  }
  if (!__syncthreads_or(kept != 0)) return;
  tile.template reserve<Block>(scan, 0);
#pragma unroll
  for (int round = 0; round < ROUNDS; ++round)
    if (kept >> round & 1)
      tile.append(scan, 0, eighth, row + round * eighths + threadIdx.x / 8, found[round]);
  tile.template finish<Block>(scan, 0);
}

}  // namespace

#define DENSE(name, body, ...)                                                                             \
  KERNEL(name, __VA_ARGS__)(const uint8_t* docs, const uint8_t* first_part, const uint8_t* second_part,    \
                            int64_t length, int64_t doc_stride, int64_t query_stride, int64_t stages,      \
                            SCAN_PARAMETERS) {                                                             \
    DYNAMIC_SHARED(shared);                                                                                \
    body(SCAN, Operand{docs, first_part, second_part, length, doc_stride, query_stride, stages}, shared); \
  }
// Shared memory leaves room for one block or two: registers need not be few.
#define TILES(suffix, kind)                                     \
  DENSE(dense_16##suffix, (scan_tile<kind, 16, 2, 1>), 128, 1)  \
  DENSE(dense_64##suffix, (scan_tile<kind, 64, 2, 2>), 256, 1)  \
  DENSE(dense_128##suffix, (scan_tile<kind, 128, 1, 2>), 256, 1)

DENSE(dense_few, scan_few, 128)
TILES(, INT8)
TILES(_float16, FLOAT16)
TILES(_bfloat16, BFLOAT16)

}  // namespace pyengine::cuda
