// Dense top-k over documents of one bit a dimension, read as they are kept; their step is in the factor of a document. Many
// queries, and those that are not signs, meet them on tensor cores (dense_bits.cuh). Up to four of signs meet them by popc of
// what differs, in registers: 16 words a clock of each multiprocessor are 128 dimensions for four queries, about what is
// read meanwhile.
#include "dense_bits.cuh"

namespace pyengine::cuda {
namespace {

constexpr int FEW_SIGNS = 4, SPLIT_THREADS = 128;

// Where a plane of a query lies: those of four queries are shuffled, two planes of each beside one another, so that a thread
// finds all planes of one query among its sums.
DEVICE int64_t plane_row(int64_t query, int plane, int planes) {
  return planes == 1 ? query : query / 4 * 4 * planes + plane / 2 * 8 + query % 4 * 2 + plane % 2;
}

DEVICE bool bit_of(int code, int plane, int planes) {
  return planes == 8 ? code >> plane & 1 : plane == 0 ? code > 0 : code < 0;
}

DEVICE int differing(int4 a, int4 b) {
  return __popc(a.x ^ b.x) + __popc(a.y ^ b.y) + __popc(a.z ^ b.z) + __popc(a.w ^ b.w);
}

// A tile for up to `FEW_SIGNS` queries of signs: a document to a thread, which reads it straight to registers.
DEVICE void scan_few_signs(const Scan& scan, const Operand& from, uint8_t* shared) {
  __shared__ TileQueries<FEW_SIGNS> tile;
  const int64_t row = first_row(scan, blockIdx.x), doc = row + threadIdx.x;
  if (!anyone_may<Block>(scan, row, 0, FEW_SIGNS)) return;
  const int count = static_cast<int>(scan.n_queries), pieces = static_cast<int>(from.length / 16);
  int4* signs = reinterpret_cast<int4*>(shared);  // [query, piece]
  for (int i = threadIdx.x; i < count * pieces; i += DOCS)
    signs[i] = reinterpret_cast<const int4*>(from.first_part + i / pieces * from.query_stride)[i % pieces];
  tile.load<Block>(scan, 0);
  __syncthreads();

  const int64_t held = doc < scan.n_docs ? doc : scan.n_docs - 1;
  const int4* at = reinterpret_cast<const int4*>(from.docs + held * from.doc_stride);
  int distances[FEW_SIGNS] = {};
#pragma unroll 4
  for (int i = 0; i < pieces; ++i) {
    const int4 own = at[i];
#pragma unroll
    for (int q = 0; q < FEW_SIGNS; ++q)
      if (q < count) distances[q] += differing(own, signs[q * pieces + i]);
  }
  const DocTerms terms = doc_terms(scan, doc);
  Bounds found[FEW_SIGNS];
  bool some = false;
#pragma unroll
  for (int q = 0; q < FEW_SIGNS; ++q) {
    const QueryTerms& asked = tile.terms[q];
    found[q] = bounds(terms, asked, weighed(asked, static_cast<int32_t>(asked.second) - 2 * LEVEL * distances[q]));
    distances[q] = q < count && passes(found[q].upper, tile.threshold[q]) && may_have(scan, q, doc);
    if (distances[q]) atomicAdd(&tile.kept[q], 1);
    some |= distances[q] != 0;
  }
  if (!__syncthreads_or(some)) return;
  tile.reserve<Block>(scan, 0);
  __syncthreads();
#pragma unroll
  for (int q = 0; q < FEW_SIGNS; ++q)
    if (distances[q]) tile.append(scan, 0, q, doc, found[q]);
  __syncthreads();
  tile.finish<Block>(scan, 0);
}

}  // namespace

// Of codes [P, width] of queries the planes, bits [P planes, row_bytes], zero beyond them; and what `sum` takes off, or the
// number of signs times their level, in the second of the terms [5, P]. Codes of signs are 127, -127, and 0 for none.
KERNEL(split_queries, SPLIT_THREADS)(const int8_t* codes, uint32_t* bits, float* terms, int64_t width, int64_t row_bytes,
                                     int64_t planes) {
  __shared__ double scratch[2 * SPLIT_THREADS / 32];
  const int64_t query = blockIdx.x, padded = gridDim.x, words = row_bytes / 4;
  const int8_t* own = codes + query * width;
  double total = 0, unused = 0;
  for (int64_t word = threadIdx.x; word < words; word += SPLIT_THREADS) {
    for (int plane = 0; plane < planes; ++plane) {
      uint32_t some = 0;
      for (int i = 0; i < 32 && 32 * word + i < width; ++i)
        some |= static_cast<uint32_t>(bit_of(own[32 * word + i], plane, static_cast<int>(planes))) << i;
      bits[plane_row(query, plane, static_cast<int>(planes)) * words + word] = some;
    }
    for (int i = 0; i < 32 && 32 * word + i < width; ++i) {
      const int code = own[32 * word + i];
      total += planes == 1 && code < 0 ? -code : code;
    }
  }
  reduce_block(total, unused, scratch);
  if (threadIdx.x == 0) terms[padded + query] = static_cast<float>(total);
}

#define DENSE_BITS(name, body, ...)                                \
  KERNEL(name, __VA_ARGS__)(OPERAND_PARAMETERS, SCAN_PARAMETERS) { \
    DYNAMIC_SHARED(shared);                                        \
    body(SCAN, OPERAND, shared);                                   \
  }

DENSE_BITS(dense_signs_4, scan_few_signs, DOCS)
DENSE_BITS(dense_signs_64, (scan_bits<TileQueries, 2, 64, 2>), 256, 1)
DENSE_BITS(dense_bits_8, (scan_bits<TileQueries, 8, 8, 1>), 128, 1)
DENSE_BITS(dense_bits_16, (scan_bits<TileQueries, 8, 16, 2>), 256, 1)

}  // namespace pyengine::cuda
