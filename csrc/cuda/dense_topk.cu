// Dense top-k over int8 codes: multiply, bound, compare with a threshold and append what may pass. The counterpart of
// kernels/dense_topk.py, for the tiles and the parts of a scan that kernels/dense_plan.py plans.
#include "device.cuh"

namespace pyengine::cuda {
namespace {

constexpr int DOCS = 128, DEPTH = 128;  // of a tile: documents, and bytes of a row in a step
constexpr int FEW = 4;                  // queries that are multiplied without tensor cores

struct Scan {
  const int8_t *docs, *first_part, *second_part;
  const float *doc_terms, *query_terms;  // [3 or 5, N] and [5, P]
  const uint8_t* mask;                   // null: everything is allowed
  const float* threshold;
  int32_t* rows;
  float *upper, *lower;
  int32_t *counts, *lost;
  int64_t capacity, n_docs, n_queries, dims, doc_stride, query_stride, padded, mask_stride, first, step, n_tiles, stages,
      has_offset;
};

// Tiles come in an order that makes each part of a scan a sample of all documents.
DEVICE int64_t first_row(const Scan& scan, int64_t number) {
  return (scan.first + number) * scan.step % scan.n_tiles * DOCS;
}

DEVICE bool anyone_may(const Scan& scan, int64_t row, int64_t query, int queries) {
  if (!scan.mask) return true;
  const int64_t bytes = (scan.n_docs + 7) / 8, masks = scan.mask_stride ? queries : 1;
  bool some = false;
  for (int64_t i = threadIdx.x; i < masks * (DOCS / 8); i += blockDim.x) {
    const int64_t own = query + i / (DOCS / 8), byte = row / 8 + i % (DOCS / 8);
    if (own < scan.n_queries && byte < bytes) some |= scan.mask[own * scan.mask_stride + byte] != 0;
  }
  return __syncthreads_or(some);
}

DEVICE DocTerms doc_terms(const Scan& scan, int64_t row) {
  const float* at = scan.doc_terms + (row < scan.n_docs ? row : scan.n_docs - 1);
  const int64_t n = scan.n_docs;
  return {at[0], at[n], at[2 * n], scan.has_offset ? at[3 * n] : 0.0f, scan.has_offset ? at[4 * n] : 0.0f};
}

// What is known of the queries of a tile, and how many documents of the tile each keeps.
template <int BQ>
struct TileQueries {
  QueryTerms terms[BQ];
  float threshold[BQ];
  int kept[BQ], start[BQ], beyond[BQ];

  DEVICE void load(const Scan& scan, int64_t query) {
    for (int i = threadIdx.x; i < BQ; i += blockDim.x) {
      const float* at = scan.query_terms + query + i;
      const bool held = query + i < scan.n_queries;
      terms[i] = {at[0], at[scan.padded], at[2 * scan.padded], at[3 * scan.padded], at[4 * scan.padded]};
      threshold[i] = held ? scan.threshold[query + i] : INFINITY;
      kept[i] = 0;
      beyond[i] = LEAST;
    }
  }

  // Once all are counted: room for them in the pools, with one atomic addition a query.
  DEVICE void reserve(const Scan& scan, int64_t query) {
    __syncthreads();
    for (int i = threadIdx.x; i < BQ; i += blockDim.x) {
      start[i] = kept[i] ? atomicAdd(&scan.counts[query + i], kept[i]) : 0;
      kept[i] = 0;
    }
    __syncthreads();
  }

  // What finds no room is counted all the same, and the largest of its bounds kept.
  DEVICE void append(const Scan& scan, int64_t query, int i, int64_t row, Bounds found) {
    const int64_t place = int64_t{start[i]} + atomicAdd(&kept[i], 1);
    found = known(found);
    if (place < scan.capacity) {
      const int64_t to = (query + i) * scan.capacity + place;
      scan.rows[to] = static_cast<int32_t>(row);
      scan.upper[to] = found.upper;
      scan.lower[to] = found.lower;
    } else {
      atomicMax(&beyond[i], ordered(found.upper));
    }
  }

  DEVICE void finish(const Scan& scan, int64_t query) {
    __syncthreads();
    for (int i = threadIdx.x; i < BQ; i += blockDim.x)
      if (beyond[i] != LEAST) atomicMax(&scan.lost[query + i], beyond[i]);
  }
};

DEVICE bool keeps(const Scan& scan, int64_t query, int64_t row, float upper, float threshold) {
  return row < scan.n_docs && query < scan.n_queries && passes(upper, threshold) &&
         (!scan.mask || allowed(scan.mask, scan.mask_stride, query, row));
}

// A step of the operands in shared memory: rows of `DEPTH` bytes, whose 16-byte pieces are permuted so that eight rows
// meet in no bank.
template <int BQ, int PARTS>
struct Operands {
  static constexpr int ROWS = DOCS + PARTS * BQ, BYTES = ROWS * DEPTH, PIECES = DEPTH / 16;

  static DEVICE uint32_t piece(uint32_t base, int row, int number) {
    return base + row * DEPTH + ((number ^ (row % 8)) * 16);
  }

  static DEVICE void load(const Scan& scan, uint32_t base, int64_t row, int64_t query, int64_t depth) {
    for (int i = threadIdx.x; i < ROWS * PIECES; i += blockDim.x) {
      const int own = i / PIECES, number = i % PIECES;
      const int64_t at = depth + number * 16;
      if (own < DOCS) {  // what is beyond the end is not kept
        const int64_t doc = row + own < scan.n_docs ? row + own : scan.n_docs - 1;
        const bool there = at < scan.dims;
        copy_async(piece(base, own, number), scan.docs + doc * scan.doc_stride + (there ? at : 0), there);
      } else {
        const int64_t part = (own - DOCS) / BQ, other = query + (own - DOCS) % BQ;
        const int8_t* codes = part ? scan.second_part : scan.first_part;
        copy_async(piece(base, own, number), codes + other * scan.query_stride + at, true);
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
template <int BQ, int PARTS, int COLUMNS>
struct Products {
  using Step = Operands<BQ, PARTS>;
  static constexpr int NARROW = BQ / COLUMNS / 8;  // blocks of 8 queries
  int32_t sums[PARTS][2][NARROW][4] = {};

  DEVICE void add(uint32_t base) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, eighth = lane % 8, matrix = lane / 8;
    const int docs = warp / COLUMNS * 32, queries = DOCS + warp % COLUMNS * (BQ / COLUMNS);
#pragma unroll
    for (int at = 0; at < Step::PIECES; at += 2) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m)
        load_matrices(a[m], Step::piece(base, docs + 16 * m + matrix % 2 * 8 + eighth, at + matrix / 2));
#pragma unroll
      for (int part = 0; part < PARTS; ++part)
#pragma unroll
        for (int n = 0; n < NARROW; n += 2) {
          uint32_t b[4];
          load_matrices(b, Step::piece(base, queries + part * BQ + 8 * n + matrix / 2 * 8 + eighth, at + matrix % 2));
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            multiply(sums[part][m][n], a[m], b[0], b[1]);
            multiply(sums[part][m][n + 1], a[m], b[2], b[3]);
          }
        }
    }
  }

  // do_each(document, query, product, other, number) for the products that this thread has.
  template <class Do>
  DEVICE void each(Do do_each) const {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int docs = warp / COLUMNS * 32 + lane / 4, queries = warp % COLUMNS * (BQ / COLUMNS) + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < NARROW; ++n)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int m = i / 4, half = i / 2 % 2, c = i % 2;
        do_each(2 * m + half, docs + 16 * m + 8 * half, queries + 8 * n + c, sums[0][m][n][2 * half + c],
                PARTS == 2 ? sums[PARTS - 1][m][n][2 * half + c] : 0, 8 * n + i);
      }
  }
};

template <int BQ, int PARTS, int COLUMNS>
DEVICE void scan_tile(const Scan& scan, uint8_t* shared) {
  __shared__ TileQueries<BQ> tile;
  const int64_t blocks = (scan.n_queries + BQ - 1) / BQ, query = blockIdx.x % blocks * BQ;
  const int64_t row = first_row(scan, blockIdx.x / blocks);
  if (!anyone_may(scan, row, query, BQ)) return;
  tile.load(scan, query);

  using Step = Operands<BQ, PARTS>;
  Products<BQ, PARTS, COLUMNS> products;
  const uint32_t base = shared_address(shared);
  const int steps = static_cast<int>((scan.dims + DEPTH - 1) / DEPTH), ahead = static_cast<int>(scan.stages) - 1;
  for (int i = 0; i < ahead; ++i) {
    if (i < steps) Step::load(scan, base + i * Step::BYTES, row, query, int64_t{i} * DEPTH);
    commit_copies();
  }
  for (int i = 0, now = 0, next = ahead; i < steps; ++i) {
    await_step(scan.stages);
    if (i + ahead < steps) Step::load(scan, base + next * Step::BYTES, row, query, int64_t{i + ahead} * DEPTH);
    commit_copies();
    products.add(base + now * Step::BYTES);
    now = now == ahead ? 0 : now + 1;
    next = next == ahead ? 0 : next + 1;
  }

  const int own = threadIdx.x / 32 / COLUMNS * 32 + threadIdx.x % 32 / 4;
  DocTerms terms[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) terms[i] = doc_terms(scan, row + own + 8 * i);
  uint64_t kept = 0;
  products.each([&](int doc, int d, int q, int32_t product, int32_t other, int number) {
    const float upper = bounds(terms[doc], tile.terms[q], product, other).upper;
    if (keeps(scan, query + q, row + d, upper, tile.threshold[q])) {
      kept |= uint64_t{1} << number;
      atomicAdd(&tile.kept[q], 1);
    }
  });
  if (!__syncthreads_or(kept != 0)) return;
  tile.reserve(scan, query);
  products.each([&](int doc, int d, int q, int32_t product, int32_t other, int number) {
    if (kept >> number & 1) tile.append(scan, query, q, row + d, bounds(terms[doc], tile.terms[q], product, other));
  });
  tile.finish(scan, query);
}

DEVICE void add_products(int4 codes, int4 query, int32_t& sum) {
  sum = __dp4a(codes.x, query.x, sum);
  sum = __dp4a(codes.y, query.y, sum);
  sum = __dp4a(codes.z, query.z, sum);
  sum = __dp4a(codes.w, query.w, sum);
}

// A tile for up to `FEW` queries, which are read from shared memory, while documents go straight to registers: eight
// threads read 128 bytes of one. Beyond that many, multiplying would take longer than reading.
DEVICE void scan_few(const Scan& scan, uint8_t* shared) {
  __shared__ TileQueries<FEW> tile;
  const int64_t row = first_row(scan, blockIdx.x);
  if (!anyone_may(scan, row, 0, FEW)) return;
  const int count = static_cast<int>(scan.n_queries), pieces = static_cast<int>(scan.dims / 16);
  const int eighth = threadIdx.x % 8, eighths = blockDim.x / 8;
  int4* codes = reinterpret_cast<int4*>(shared);  // [part, query, piece]
  for (int i = threadIdx.x; i < 2 * count * pieces; i += blockDim.x) {
    const int8_t* part = i / (count * pieces) ? scan.second_part : scan.first_part;
    codes[i] = reinterpret_cast<const int4*>(part + i / pieces % count * scan.query_stride)[i % pieces];
  }
  tile.load(scan, 0);
  __syncthreads();

  constexpr int ROUNDS = 8;  // of 16 documents: 128 threads
  Bounds found[ROUNDS];      // of the query that this thread looks after, if any
  unsigned kept = 0;
#pragma unroll
  for (int round = 0; round < ROUNDS; ++round) {
    const int64_t doc = row + round * eighths + threadIdx.x / 8;
    const int4* at = reinterpret_cast<const int4*>(scan.docs + (doc < scan.n_docs ? doc : scan.n_docs - 1) * scan.doc_stride);
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
      found[round] = bounds(doc_terms(scan, doc), tile.terms[eighth], product, other);
      if (keeps(scan, eighth, doc, found[round].upper, tile.threshold[eighth])) {
        kept |= 1u << round;
        atomicAdd(&tile.kept[eighth], 1);
      }
    }
  }
  if (!__syncthreads_or(kept != 0)) return;
  tile.reserve(scan, 0);
#pragma unroll
  for (int round = 0; round < ROUNDS; ++round)
    if (kept >> round & 1)
      tile.append(scan, 0, eighth, row + round * eighths + threadIdx.x / 8, found[round]);
  tile.finish(scan, 0);
}

}  // namespace

#define DENSE(name, threads, body)                                                                                   \
  KERNEL(name, threads)(const int8_t* docs, const int8_t* first_part, const int8_t* second_part,                    \
                        const float* doc_terms, const float* query_terms, const uint8_t* mask,                      \
                        const float* threshold, int32_t* rows, float* upper, float* lower, int32_t* counts,         \
                        int32_t* lost, int64_t capacity, int64_t n_docs, int64_t n_queries, int64_t dims,           \
                        int64_t doc_stride, int64_t query_stride, int64_t padded, int64_t mask_stride,              \
                        int64_t first, int64_t step, int64_t n_tiles, int64_t stages, int64_t has_offset) {         \
    DYNAMIC_SHARED(shared);                                                                                          \
    body(Scan{docs, first_part, second_part, doc_terms, query_terms, mask, threshold, rows, upper, lower, counts,   \
              lost, capacity, n_docs, n_queries, dims, doc_stride, query_stride, padded, mask_stride, first, step,  \
              n_tiles, stages, has_offset}, shared);                                                                 \
  }

DENSE(dense_few, 128, scan_few)
DENSE(dense_16, 128, (scan_tile<16, 2, 1>))
DENSE(dense_64, 256, (scan_tile<64, 2, 2>))
DENSE(dense_128, 256, (scan_tile<128, 1, 2>))

}  // namespace pyengine::cuda
