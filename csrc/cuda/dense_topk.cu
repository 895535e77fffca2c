// Dense top-k: multiply int8 codes, or documents of 16 bits as they are, bound, compare with a threshold and append what may
// pass. The counterpart of kernels/dense_topk.py, for the tiles and the parts of a scan that kernels/dense_plan.py plans.
//
// A tile is 128 documents by 16, 64 or 128 queries, in steps of 128 bytes of a row. Documents are read from memory once, and
// by the blocks of other queries, which run beside, from the L2 cache. At 128 queries a step reads 32 KiB for 4 M
// operations of int8, 128 a byte, and a thread holds 64 sums; larger ones would leave no registers for the epilogue. Two
// parts of a query (16, 64) make twice the operations where reading takes longer anyway. What it takes of registers and
// shared memory: bench/results/cuda-compiled.md. dense_topk_sm90.cu is the form for Hopper.
#include "dense_tile.cuh"

namespace pyengine::cuda {
namespace {

constexpr int FEW = 4;  // queries that are multiplied without tensor cores

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
  tile.load<Block>(scan, 0);
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
  tile.reserve<Block>(scan, 0);
  __syncthreads();
#pragma unroll
  for (int round = 0; round < ROUNDS; ++round)
    if (kept >> round & 1)
      tile.append(scan, 0, eighth, row + round * eighths + threadIdx.x / 8, found[round]);
  __syncthreads();
  tile.finish<Block>(scan, 0);
}

}  // namespace

#define DENSE(name, body, ...)                                      \
  KERNEL(name, __VA_ARGS__)(OPERAND_PARAMETERS, SCAN_PARAMETERS) {  \
    DYNAMIC_SHARED(shared);                                         \
    body(SCAN, OPERAND, shared);                                    \
  }
// Shared memory leaves room for one block or two: registers need not be few.
#define TILES(suffix, kind)                                                   \
  DENSE(dense_16##suffix, (scan_tile<TileQueries, kind, 16, 2, 1>), 128, 1)   \
  DENSE(dense_64##suffix, (scan_tile<TileQueries, kind, 64, 2, 2>), 256, 1)   \
  DENSE(dense_128##suffix, (scan_tile<TileQueries, kind, 128, 1, 2>), 256, 1)

DENSE(dense_few, scan_few, 128)
TILES(, INT8)
TILES(_float16, FLOAT16)
TILES(_bfloat16, BFLOAT16)

}  // namespace pyengine::cuda
