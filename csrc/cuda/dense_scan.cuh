// What the dense scans share: the order of tiles, and what becomes of a tile's products. They are bounded, compared with
// thresholds, and appended to the pools where they may pass. The counterpart is kernels/dense_topk.py.
#pragma once

#include "device.cuh"

namespace pyengine::cuda {

constexpr int DOCS = 128, DEPTH = 128;  // of a tile: documents, and bytes of a row in a step

struct Pools {  // kernels/selection.py
  const float* threshold;
  int32_t* rows;
  float *upper, *lower;
  int32_t *counts, *lost;
  int64_t capacity;
};

struct Scan : Pools {
  const float *doc_terms, *query_terms;  // [3 or 5, N] and [5, P]
  const uint8_t* mask;                   // null: everything is allowed
  int64_t n_docs, n_queries, padded, mask_stride, first, step, n_tiles, has_offset;
};

// The last parameters of every kernel of a scan, and the `Scan` that they are.
#define SCAN_PARAMETERS                                                                                              \
  const float *doc_terms, const float *query_terms, const uint8_t *mask, const float *threshold, int32_t *rows,      \
      float *upper, float *lower, int32_t *counts, int32_t *lost, int64_t capacity, int64_t n_docs,                  \
      int64_t n_queries, int64_t padded, int64_t mask_stride, int64_t first, int64_t step, int64_t n_tiles,          \
      int64_t has_offset
#define SCAN                                                                                                         \
  Scan {                                                                                                             \
    {threshold, rows, upper, lower, counts, lost, capacity}, doc_terms, query_terms, mask, n_docs, n_queries,        \
        padded, mask_stride, first, step, n_tiles, has_offset                                                        \
  }

// Tiles come in an order that makes each part of a scan a sample of all documents.
DEVICE int64_t first_row(const Scan& scan, int64_t number) {
  return (scan.first + number) * scan.step % scan.n_tiles * DOCS;
}

// Whether any query of a tile may have any of its documents.
template <class Team>
DEVICE bool anyone_may(const Scan& scan, int64_t row, int64_t query, int queries) {
  if (!scan.mask) return true;
  const int64_t bytes = (scan.n_docs + 7) / 8, masks = scan.mask_stride ? queries : 1;
  bool some = false;
  for (int64_t i = Team::rank(); i < masks * (DOCS / 8); i += Team::size()) {
    const int64_t own = query + i / (DOCS / 8), byte = row / 8 + i % (DOCS / 8);
    if (own < scan.n_queries && byte < bytes) some |= scan.mask[own * scan.mask_stride + byte] != 0;
  }
  return Team::any(some);
}

DEVICE DocTerms doc_terms(const Scan& scan, int64_t row) {
  const float* at = scan.doc_terms + (row < scan.n_docs ? row : scan.n_docs - 1);
  const int64_t n = scan.n_docs;
  return {at[0], at[n], at[2 * n], scan.has_offset ? at[3 * n] : 0.0f, scan.has_offset ? at[4 * n] : 0.0f};
}

DEVICE bool may_have(const Scan& scan, int64_t query, int64_t row) {
  return row < scan.n_docs && query < scan.n_queries &&
         (!scan.mask || allowed(scan.mask, scan.mask_stride, query, row));
}

// Of some pools, from the `first` on, how many places the tile takes of each. Of the team that looks after it.
template <int COUNT>
struct TilePools {
  float threshold[COUNT];
  int kept[COUNT], start[COUNT], beyond[COUNT];

  template <class Team>
  DEVICE void load(const Pools& pools, int64_t first, int64_t n_pools) {
    for (int i = Team::rank(); i < COUNT; i += Team::size()) {
      threshold[i] = first + i < n_pools ? pools.threshold[first + i] : INFINITY;
      kept[i] = 0;
      beyond[i] = LEAST;
    }
  }

  // Once all are counted: room for them, with one atomic addition a pool. Before and after it the team waits.
  template <class Team>
  DEVICE void reserve(const Pools& pools, int64_t first) {
    for (int i = Team::rank(); i < COUNT; i += Team::size()) {
      start[i] = kept[i] ? atomicAdd(&pools.counts[first + i], kept[i]) : 0;
      kept[i] = 0;
    }
  }

  // What finds no room is counted all the same, and the largest of its bounds kept.
  DEVICE void append(const Pools& pools, int64_t first, int i, int64_t row, Bounds found) {
    const int64_t place = int64_t{start[i]} + atomicAdd(&kept[i], 1);
    found = known(found);
    if (place < pools.capacity) {
      const int64_t to = (first + i) * pools.capacity + place;
      pools.rows[to] = static_cast<int32_t>(row);
      pools.upper[to] = found.upper;
      pools.lower[to] = found.lower;
    } else {
      atomicMax(&beyond[i], ordered(found.upper));
    }
  }

  // Ready for the next tile. Before and after it the team waits.
  template <class Team>
  DEVICE void finish(const Pools& pools, int64_t first) {
    for (int i = Team::rank(); i < COUNT; i += Team::size()) {
      if (beyond[i] != LEAST) atomicMax(&pools.lost[first + i], beyond[i]);
      kept[i] = 0;
    }
  }
};

// What is known of the queries of a tile.
template <int BQ>
struct TileQueries : TilePools<BQ> {
  QueryTerms terms[BQ];

  template <class Team>
  DEVICE void load(const Scan& scan, int64_t query) {
    TilePools<BQ>::template load<Team>(scan, query, scan.n_queries);
    for (int i = Team::rank(); i < BQ; i += Team::size()) {
      const float* at = scan.query_terms + query + i;
      terms[i] = {at[0], at[scan.padded], at[2 * scan.padded], at[3 * scan.padded], at[4 * scan.padded]};
    }
  }

  // Whether what passes is to take no place, but to be counted; and the counting, of what each thread has set bits for
  // in one word of each 32 products: whether there is any.
  DEVICE bool exceeds(int, Bounds) const { return false; }
  template <class Products, int WORDS>
  DEVICE bool count(const Scan&, const Products&, const uint32_t (&)[WORDS], int64_t, int64_t) { return false; }
};

// The i-th of the sums from the number `eight` on: the compiler must know the numbers, since products are in registers.
template <class Products>
DEVICE float sum_at(const Products& products, int eight, int i, const QueryTerms& terms) {
  float sum = products.sum(eight, terms);
#pragma unroll
  for (int each = 1; each < 8; ++each)
    if (each == i) sum = products.sum(eight + each, terms);
  return sum;
}

// Appends what may pass of a tile at that row and query. A thread has `Products::COUNT` of its products; of each eight the
// i-th is of the document products.doc(i / 2), and each by number of products.query(number), one for the even and one for
// the odd of eight, whose terms products.sum(number, terms) takes.
template <class Team, class AnyScan, class Tile, class Products>
DEVICE void append_passing(const AnyScan& scan, Tile& tile, const Products& products, int64_t row, int64_t query) {
  constexpr int WORDS = (Products::COUNT + 31) / 32;
  DocTerms terms[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) terms[i] = doc_terms(scan, row + products.doc(i));
  uint32_t kept[WORDS] = {}, over[WORDS] = {}, some = 0;
#pragma unroll
  for (int number = 0; number < Products::COUNT; ++number) {
    const int q = products.query(number);
    const Bounds found = bounds(terms[number % 8 / 2], tile.terms[q], products.sum(number, tile.terms[q]));
    if (!passes(found.upper, tile.threshold[q])) continue;
    if (tile.exceeds(q, found)) over[number / 32] |= 1u << number % 32;
    else kept[number / 32] |= 1u << number % 32;
  }

#pragma unroll
  for (int word = 0; word * 32 < Products::COUNT; ++word) {
    for (uint32_t bits = kept[word]; bits; bits &= bits - 1) {
      const int number = 32 * word + __ffs(bits) - 1, q = products.query(number);
      if (may_have(scan, query + q, row + products.doc(number % 8 / 2))) atomicAdd(&tile.kept[q], 1);
      else kept[word] ^= bits & -bits;
    }
    some |= kept[word];
  }
  const bool counted = tile.count(scan, products, over, row, query);
  if (!Team::any(some != 0 || counted)) return;

  tile.template reserve<Team>(scan, query);
  Team::sync();
#pragma unroll
  for (int eight = 0; eight < Products::COUNT; eight += 8)
    for (uint32_t bits = kept[eight / 32] >> eight % 32 & 0xFF; bits; bits &= bits - 1) {
      const int i = __ffs(bits) - 1, q = products.query(eight + i);
      const int64_t doc = row + products.doc(i / 2);
      const float sum = sum_at(products, eight, i, tile.terms[q]);
      tile.append(scan, query, q, doc, bounds(doc_terms(scan, doc), tile.terms[q], sum));
    }
  Team::sync();
  tile.template finish<Team>(scan, query);
  Team::sync();
}

}  // namespace pyengine::cuda
