// What an instruction set offers: a table of kernels on blocks. No policy and no threads here.
//
// Names: a document is coded as d/|d| ~ scale * (code - 128), off by at most `residual` (all norms Euclidean); a query
// likewise by one or two int8 parts. The product of the codes is an exact integer.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyengine {

constexpr int PANEL = 16;        // queries interleaved in a panel: [depth / 4][PANEL][4] int8
constexpr int MAX_PANELS = 2;    // panels that one call scans together
constexpr int DEPTH_STEP = 64;   // code rows are padded to a multiple of this
constexpr int TOKEN_ROWS = 16;   // document tokens that a tile takes
constexpr int PAIR_BLOCK = 4;    // documents that one call of the float64 kernels takes

constexpr int FACTOR_BITS = 9;   // of a sparse query's factors, below the point

// What a level adds to a sum of a sparse query: factor * (level - zero), rounded to whole units away from 0, or up where
// some levels are below zero.
constexpr bool rounds_down(int factor, int zero) { return factor < 0 && zero == 0; }
constexpr int16_t weight_of(int level, int factor, int zero) {
  const int exact = factor * (level - zero);
  return static_cast<int16_t>(rounds_down(factor, zero) ? exact >> FACTOR_BITS : -(-exact >> FACTOR_BITS));
}

// How a stored row says its floats.
enum class RowKind {
  float32,
  float16,   // uint16 [dim]
  bfloat16,  // uint16 [dim]: the upper half of a float32
  codes,     // uint8 [dim]: step * (code - 128), rounded to float32
  planes,    // bits [planes][dim padded to DEPTH_STEP]: step * (2 c - (2^planes - 1)), c the number that the planes' bits make
  residual,  // planes, added to the row's centroid: each sum rounded to float32
};
constexpr int MAX_PLANES = 4;

// One row quantised: see quantize_row.
struct RowCode {
  float scale;      // a: d/|d| ~ a * (code - 128)
  float residual;   // upper bound of |d/|d| - a * (code - 128)|
  double norm;      // |d|, to a relative (n / 4 + 32) * 2^-24
};

// A tile of documents with the terms of its bound (see QueryBlock).
struct DocTile {
  const uint8_t* codes;   // [count, stride]
  size_t stride;          // bytes from row to row
  int count;
  const float* scale;     // [count] a * w, w the weight that turns a cosine into the score
  const float* weight;    // [count] w; null when all are 1
  const float* residual;  // [count] r * w
  const float* offset;    // [count] h: what is added per document, upper bound; null when nothing is
  bool cold;              // no query has read these codes yet: what follows them is worth prefetching
};

// Queries as packed panels. A document passes for a query unless it provably scores below the threshold:
//   scale * product + weight * error + residual * spread + offset * lift >= threshold
// All terms of a query are in units of the scale of its codes.
struct QueryBlock {
  const int8_t* panels;     // [n_panels][depth / 4][PANEL][4], or rows [n][depth] for scan_rows
  const int32_t* start;     // [n] what the product starts at: takes the codes' bias of 128 away
  const float* error;       // [n] bound on the query's own rounding; part of the threshold where weight is null
  const float* spread;      // [n] |q| + error
  const float* lift;        // [n] weight of the offset
  const float* threshold;   // [n]
};

// Tokens of documents that follow one another. Document d has those before ends[d], from ends[d - 1] or 0 on: one at least.
struct TokenTile {
  const uint8_t* codes;   // [count, stride]
  size_t stride;          // bytes from row to row
  int count;
  const float* scale;     // [count] a * w, as in DocTile
  const int32_t* ends;    // [n_docs], rising; the last is count
  bool cold;              // as in DocTile
  const uint16_t* centroid = nullptr;  // optional [count]: the row of `added` that a token's scaled products are added to
  const float* added = nullptr;        // [n_added, as many as rows of maxima have]
  int n_added = 0;
};

// Slices of the rows of a tile and of a block of queries, whose products count where they are equal.
struct SlicedBlock {
  const uint8_t* const* docs;  // [count] rows of as many bytes as there are codes
  const uint8_t* queries;      // [n][depth]
  bool negative;               // whether some code of a query is below 0
};

struct Hit {
  int32_t doc;      // in the tile
  int32_t query;    // in the block
  int32_t product;  // sum of (code - 128) * query code
};

// Estimates of a block of document tokens against a query's: estimate * scale is off by at most error * weight.
struct TokenWindow {
  const float* estimates;   // [count, width]
  int count, width;         // width is a multiple of PANEL
  const float* scale;       // [count]
  const float* weight;      // [count]
  const float* error;       // [width]; infinite where there is no token
  const uint16_t* sought;   // [width / PANEL] bit i: the token whose best document tokens are wanted
  const uint16_t* present;  // [width / PANEL] bit i: there is a token
  float* least;             // [width] what the best of each query token reaches for sure: raised by this block
  float* row_least;         // [count] the same of each document token, to be written; null where it is not wanted
};

struct TokenPair {
  int32_t doc, query;  // in the block; in the query
};

struct KernelTable {
  const char* name;
  int query_levels;   // largest query code: 127, or 63 where two byte products must fit in int16
  int code_zero;      // what the dot of the codes must be corrected by per unit of query code: 128, or 0

  // Quantise n floats to `padded` codes; false if the row holds NaN or inf.
  bool (*quantize_row)(const float* row, int n, int padded, uint8_t* codes, RowCode* out);
  // Sum of code * query over `depth` bytes (a multiple of DEPTH_STEP).
  int32_t (*dot_codes)(const uint8_t* codes, const int8_t* query, int depth);
  // All pairs of a tile with up to MAX_PANELS panels; returns how many hits were written.
  size_t (*scan_panels)(const DocTile& docs, const QueryBlock& queries, int n_panels, int depth, Hit* hits);
  // The same for one to a few queries given as rows.
  size_t (*scan_rows)(const DocTile& docs, const QueryBlock& queries, int n_queries, int depth, Hit* hits);
  // Raises maxima[d][query] to the largest scale * (start + product) + added of document d's tokens, for `n_panels` panels of query
  // tokens; rows of maxima are `stride` floats apart.
  void (*token_maxima)(const TokenTile& docs, const int8_t* panels, const int32_t* start, int n_panels, int depth,
                       float* maxima, size_t stride);
  float (*dot_f32)(const float* a, const float* b, int n);
  // A value that k or more of the n reach: the k-th largest, or a little below it.
  float (*kth_largest)(const float* values, int n, int k);
  // The specification's float64 dot products and squared distances of `count` <= PAIR_BLOCK queries and rows, one with one;
  // `next` are PAIR_BLOCK rows that will be wanted soon.
  void (*dot_f64)(const float* const* queries, const float* const* rows, const float* const* next, int count, int n, double* out);
  void (*l2_f64)(const float* const* queries, const float* const* rows, const float* const* next, int count, int n, double* out);
  // The first n floats of a stored row of kind float16, bfloat16 or codes.
  void (*decode_row)(RowKind kind, const void* row, float step, int n, float* out);
  // A row of bit planes, `stride` bytes apart, as `depth` codes (a multiple of DEPTH_STEP): 128 + 2 c - (2^planes - 1).
  void (*unpack_planes)(const uint8_t* row, int planes, size_t stride, int depth, uint8_t* codes);
  // sums += factor * row, each product rounded: the same bits everywhere.
  void (*add_scaled)(const float* row, float factor, int n, float* sums);
  // The sum of a row's squares, to a relative (n / 4 + 32) * 2^-24 and an absolute n * 2^-126.
  float (*square_f32)(const float* row, int n);
  // Token vectors for estimates are rows of words, `token_words(dim)` each: floats as they are, or (where round_token is
  // not null) pairs of bfloat16, each within a relative `token_rounding` of its float; what is denormal may vanish.
  double token_rounding;
  int (*token_words)(int dim);
  void (*round_token)(const float* row, int n, uint32_t* words);
  // Products of document tokens [count, stride in words] with a query's in panels [n_panels][words][PANEL], as
  // [count, n_panels * PANEL]. Rows that are rounded, and `out`, have room for `count` padded to TOKEN_ROWS.
  void (*estimate_tokens)(const void* rows, size_t stride, int count, const void* panels, int n_panels, int words,
                          float* out);
  // The same for floats as they are, whatever token_words and round_token.
  void (*multiply_tokens)(const float* rows, size_t stride, int count, const float* panels, int n_panels, int dim,
                          float* out);
  // Every pair that can be a maximum; `out` has room for all. Returns how many. Those of one token, on either side, are
  // in the order of the others.
  size_t (*window_pairs)(const TokenWindow& window, TokenPair* out);
  // float64, for rows of n doubles, n a multiple of 8. The specification's dot products of what
  // float32 holds, as [n_queries, stride].
  void (*products_f64)(const double* queries, int n_queries, const double* rows, int n_rows, int n, double* out, size_t stride);
  // Turns products into e^((product - largest) / temperature), and returns the mean of the products under these weights.
  // What is added to make n a multiple of 8 is -inf.
  double (*soften)(double* products, int64_t n, double temperature);
  // sums += factor * row, each product rounded.
  void (*add_scaled_f64)(const double* row, double factor, int n, double* sums);
  // The machine's ceilings, for the benchmark: byte products in registers (returns how many), and reading memory.
  int64_t (*multiply_in_registers)(int64_t rounds);
  int32_t (*read_memory)(const uint8_t* bytes, size_t n);
  // Sliced vectors: scan_rows, dot_codes and the specification's score (a running sum), of what has equal slices. Rows of
  // slices have `depth` bytes, as codes have; those of sliced_f64 as many as n padded to DEPTH_STEP.
  size_t (*scan_sliced)(const DocTile& docs, const QueryBlock& queries, const SlicedBlock& slices, int n_queries, int depth,
                        Hit* hits);
  int32_t (*dot_sliced)(const uint8_t* codes, const uint8_t* slices, const int8_t* query, const uint8_t* wanted, int depth);
  double (*sliced_f64)(const float* query, const uint8_t* wanted, const float* row, const uint8_t* slices, int n);
  // Sparse rows: sums[docs[i]] += weight_of(levels[i]), for distinct docs.
  void (*add_postings)(const uint16_t* docs, const uint8_t* levels, int n, int factor, int zero, int16_t* sums);
  // sums[i] += weight_of(column[i]); n is a multiple of 64.
  void (*add_column)(const uint8_t* column, int n, int factor, int zero, int16_t* sums);
  // The sums that are not below `least`, with their places; all n become 0. Returns how many; n is a multiple of 64.
  int (*take_sums)(int16_t* sums, int n, int16_t least, int32_t* places, int16_t* values);
  // The k-th largest of n >= k sums.
  int16_t (*kth_sum)(const int16_t* sums, int n, int k);
};

extern const KernelTable BASELINE_KERNELS;
#if defined(__x86_64__)
extern const KernelTable AVX2_KERNELS;
extern const KernelTable AVX512_KERNELS;
extern const KernelTable AMX_KERNELS;
#ifdef PYENGINE_TESTING
extern const KernelTable AMX_EMULATED_KERNELS;
#endif
#elif defined(__aarch64__)
extern const KernelTable NEON_KERNELS;
#endif

}  // namespace pyengine
