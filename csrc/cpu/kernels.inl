// The kernels, once, over an instruction set's vectors. The including file has opened an anonymous namespace inside
// its target region and defined
//   constexpr int W                        lanes of float32 and int32 in a register
//   F fma(F a, F b, F c)                   a * b + c; D likewise, of products that float64 holds exactly
//   F greater(F a, F b)                     a where a > b, else b (where either is NaN, b)
//   float largest_lane(F v)                 of lanes that are not NaN
//   unsigned not_below(F a, F b)            bit i set unless a < b in lane i: NaN passes, as what cannot be bounded must
//   F maximum(F a, F b)                    the larger, lane by lane
//   I dot4(I sum, I codes, I query)        per lane, add the products of its four bytes (codes unsigned, query signed)
//   I gated4(..), uint64_t equal64(..)     see sliced.inl
// where F, I, U and D are the vectors of vectors.inl.

#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))
#if defined(__aarch64__)
#define PYENGINE_VECTOR(v) "+w"(v)
#else
#define PYENGINE_VECTOR(v) "+v"(v)
#endif

INLINE F load_f(const float* p) { F v; __builtin_memcpy(&v, p, sizeof v); return v; }
INLINE I load_i(const void* p) { I v; __builtin_memcpy(&v, p, sizeof v); return v; }
INLINE F splat(float x) { return x - F{}; }
INLINE I splat_i(int32_t x) { return x - I{}; }
INLINE I splat4(const uint8_t* p) { int32_t x; __builtin_memcpy(&x, p, 4); return splat_i(x); }

template <class V, class T>
INLINE T lane_sum(V v) {
  T sum = 0;
  for (size_t i = 0; i < sizeof(V) / sizeof(T); ++i) sum += v[i];
  return sum;
}

// ---- quantise ----

constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
constexpr int32_t ROUND_BITS = 0x4B400000;

INLINE I abs_bits(F v) { I bits; __builtin_memcpy(&bits, &v, sizeof v); return bits & 0x7fffffff; }
INLINE I as_bits(F v) { I bits; __builtin_memcpy(&bits, &v, sizeof v); return bits; }

// The last, incomplete vector of a row, filled up with zeros.
INLINE F load_tail(const float* p, int n) {
  float part[W] = {};
  for (int i = 0; i < n; ++i) part[i] = p[i];
  return load_f(part);
}

INLINE int32_t largest_bits(const float* row, int n) {
  I most = I{};
  int i = 0;
  for (; i + W <= n; i += W) {
    __builtin_prefetch(row + i + 4 * n);  // rows mostly follow one another
    const I b = abs_bits(load_f(row + i));
    most = b > most ? b : most;
  }
  if (i < n) { I b = abs_bits(load_tail(row + i, n - i)); most = b > most ? b : most; }
  int32_t largest = 0;
  for (int lane = 0; lane < W; ++lane) largest = most[lane] > largest ? most[lane] : largest;
  return largest;
}

static bool quantize_row(const float* row, int n, int padded, uint8_t* codes, RowCode* out) {
  const int32_t bits = largest_bits(row, n);
  if (bits >= 0x7f800000) return false;
  __builtin_memset(codes, 128, padded);
  *out = RowCode{0.0f, 0.0f, 0.0};
  if (bits == 0) return true;

  // Scale by a power of two so that the largest magnitude lies near 1: then nothing overflows or is denormal.
  const int exponent = bits >> 23;
  const int32_t power_bits = (exponent < 253 ? 254 - exponent : 1) << 23;
  float power, largest;
  __builtin_memcpy(&power, &power_bits, 4);
  __builtin_memcpy(&largest, &bits, 4);
  largest *= power;
  const float to_code = 127.0f / largest, step = largest / 127.0f;

  F errors[2] = {}, squares[2] = {};  // two sums each, so that one addition need not wait for the last
  auto quantise = [&](F x, uint8_t* to, int count, int sum) __attribute__((always_inline)) {
    x *= power;
    const F shifted = x * to_code + ROUND;
    const F error = x - (shifted - ROUND) * step;
    errors[sum] = fma(error, error, errors[sum]);
    squares[sum] = fma(x, x, squares[sum]);
    const U bytes = __builtin_convertvector(as_bits(shifted) - ROUND_BITS + 128, U);
    __builtin_memcpy(to, &bytes, count);
  };
  int i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    quantise(load_f(row + i), codes + i, W, 0);
    quantise(load_f(row + i + W), codes + i + W, W, 1);
  }
  for (; i < n; i += W) {
    const int count = n - i < W ? n - i : W;
    quantise(load_tail(row + i, count), codes + i, count, 0);
  }

  // Rounding: of the sums, relative `sums`; of each error, at most 2^-22 of the largest; of scale and norm, 2 `sums`.
  const double sums = (n / 4 + 32) * 0x1p-24;
  const double norm = __builtin_sqrt((double)lane_sum<F, float>(squares[0] + squares[1]));
  const double error = __builtin_sqrt((double)lane_sum<F, float>(errors[0] + errors[1])) * (1 + sums);
  const double residual = (error + __builtin_sqrt((double)n) * 0x1p-22 * largest) / norm * (1 + 2 * sums) + 4 * sums;
  out->scale = (float)(step / norm);
  out->residual = (float)(residual * (1 + 0x1p-22));
  out->norm = norm / power;
  return true;
}

// ---- propose: integer products, compared while they are in registers ----

#include "cpu/maxima.inl"

static int32_t dot_codes(const uint8_t* codes, const int8_t* query, int depth) {
  I sum = I{}, odd = I{};
  for (int i = 0; i < depth; i += 8 * W) {
    sum = dot4(sum, load_i(codes + i), load_i(query + i));
    if (i + 4 * W < depth) odd = dot4(odd, load_i(codes + i + 4 * W), load_i(query + i + 4 * W));
  }
  return lane_sum<I, int32_t>(sum + odd);
}

INLINE Hit* append(Hit* hits, unsigned passed, const int32_t* products, int doc, int query, int doc_step, int query_step) {
  for (; passed; passed &= passed - 1) {
    const int lane = __builtin_ctz(passed);
    *hits++ = Hit{doc + lane * doc_step, query + lane * query_step, products[lane]};
  }
  return hits;
}

// The terms of W queries.
struct QueryTerms {
  F threshold, spread, error, lift;
};

INLINE QueryTerms load_terms(const QueryBlock& queries, int query) {
  return {load_f(queries.threshold + query), load_f(queries.spread + query), load_f(queries.error + query),
          load_f(queries.lift + query)};
}

// Of one document and W queries, which pass.
INLINE unsigned passing_queries(I product, const DocTile& docs, int doc, const QueryTerms& queries) {
  F excess = fma(__builtin_convertvector(product, F), splat(docs.scale[doc]), -queries.threshold);
  excess = fma(queries.spread, splat(docs.residual[doc]), excess);
  if (docs.weight) excess = fma(queries.error, splat(docs.weight[doc]), excess);
  if (docs.offset) excess = fma(queries.lift, splat(docs.offset[doc]), excess);
  return not_below(excess, F{});
}

INLINE Hit* append_queries(Hit* hits, unsigned passed, I product, int doc, int query) {
  int32_t products[W];
  __builtin_memcpy(products, &product, sizeof product);
  return append(hits, passed, products, doc, query, 0, 1);
}

// W documents (fewer at the end) against one query.
INLINE Hit* filter_docs(const int32_t* products, int count, const DocTile& docs, int doc, const QueryBlock& queries,
                        int query, Hit* hits) {
  auto term = [&](const float* p) __attribute__((always_inline)) {
    return count == W ? load_f(p + doc) : load_tail(p + doc, count);
  };
  F excess = fma(__builtin_convertvector(load_i(products), F), term(docs.scale), splat(-queries.threshold[query]));
  excess = fma(splat(queries.spread[query]), term(docs.residual), excess);
  if (docs.weight) excess = fma(splat(queries.error[query]), term(docs.weight), excess);
  if (docs.offset) excess = fma(splat(queries.lift[query]), term(docs.offset), excess);
  const unsigned passed = not_below(excess, F{}) & ((1u << (count - 1) << 1) - 1);
  return passed ? append(hits, passed, products, doc, query, 1, 0) : hits;
}

static size_t scan_rows(const DocTile& docs, const QueryBlock& queries, int n_queries, int depth, Hit* hits) {
  Hit* const first = hits;
  for (int doc = 0; doc < docs.count; doc += W) {
    const int count = docs.count - doc < W ? docs.count - doc : W;
    for (int query = 0; query < n_queries; ++query) {
      int32_t products[W] = {};
      for (int i = 0; i < count; ++i) {
        const uint8_t* codes = docs.codes + (doc + i) * docs.stride;
        if (query == 0 && docs.cold)  // the hardware's prefetching stops at every page
          for (int line = 0; line < depth; line += DEPTH_STEP) __builtin_prefetch(codes + W * docs.stride + line);
        products[i] = queries.start[query] + dot_codes(codes, queries.panels + (size_t)query * depth, depth);
      }
      hits = filter_docs(products, count, docs, doc, queries, query, hits);
    }
  }
  return hits - first;
}

#ifndef PYENGINE_TILED_SCAN  // a file with matrix tiles brings its own scan_panels

// The products of `n_docs` documents and `n_panels` panels, all in registers; both are constants after inlining.
INLINE void multiply_block(const uint8_t* codes, size_t stride, const int8_t* panel, const int32_t* start, int depth,
                           I (&sums)[BLOCK_DOCS][MAX_PANELS * VECTORS], const int n_docs, const int n_panels) {
  const int width = n_panels * VECTORS;
#pragma GCC unroll 16
  for (int d = 0; d < n_docs; ++d)
#pragma GCC unroll 8
    for (int v = 0; v < width; ++v) sums[d][v] = load_i(start + v * W);
  for (int line = 0; line < depth; line += DEPTH_STEP) {
    for (int d = 0; d < n_docs; ++d) __builtin_prefetch(codes + (n_docs + d) * stride + line);  // the next block
    for (int k = line; k < line + DEPTH_STEP; k += 4, panel += PANEL * 4) {
      I query[MAX_PANELS * VECTORS];
#pragma GCC unroll 8
      for (int v = 0; v < width; ++v)
        query[v] = load_i(panel + (v / VECTORS) * (size_t)depth * PANEL + (v % VECTORS) * W * 4);
#pragma GCC unroll 16
      for (int d = 0; d < n_docs; ++d) {
        const I code = splat4(codes + d * stride + k);
#pragma GCC unroll 8
        for (int v = 0; v < width; ++v) sums[d][v] = dot4(sums[d][v], code, query[v]);
      }
    }
  }
}

INLINE Hit* scan_block(const DocTile& docs, int doc, const QueryBlock& queries, int depth, Hit* hits, const int n_docs,
                       const int n_panels) {
  I sums[BLOCK_DOCS][MAX_PANELS * VECTORS];
  const int width = n_panels * VECTORS;
  multiply_block(docs.codes + doc * docs.stride, docs.stride, queries.panels, queries.start, depth, sums, n_docs, n_panels);
#pragma GCC unroll 16
  for (int d = 0; d < n_docs; ++d) {
    unsigned passed[MAX_PANELS * VECTORS], any = 0;
#pragma GCC unroll 8
    for (int v = 0; v < width; ++v) any |= passed[v] = passing_queries(sums[d][v], docs, doc + d, load_terms(queries, v * W));
    if (__builtin_expect(any == 0, 1)) continue;
#pragma GCC unroll 8
    for (int v = 0; v < width; ++v) hits = append_queries(hits, passed[v], sums[d][v], doc + d, v * W);
  }
  return hits;
}

static size_t scan_panels(const DocTile& docs, const QueryBlock& queries, int n_panels, int depth, Hit* hits) {
  Hit* const first = hits;
  int doc = 0;
  for (; doc + BLOCK_DOCS <= docs.count; doc += BLOCK_DOCS)
    hits = n_panels == 2 ? scan_block(docs, doc, queries, depth, hits, BLOCK_DOCS, 2)
                         : scan_block(docs, doc, queries, depth, hits, BLOCK_DOCS, 1);
  for (; doc < docs.count; ++doc)
    hits = n_panels == 2 ? scan_block(docs, doc, queries, depth, hits, 1, 2)
                         : scan_block(docs, doc, queries, depth, hits, 1, 1);
  return hits - first;
}

template <int PANELS>
static void panel_maxima(const TokenTile& docs, const int8_t* panel, const int32_t* start, int depth, float* maxima,
                         size_t stride) {
  Maxima<PANELS> best(docs, maxima, stride, 0);
  I sums[BLOCK_DOCS][MAX_PANELS * VECTORS];
  int token = 0;
  for (; token + BLOCK_DOCS <= docs.count; token += BLOCK_DOCS) {
    multiply_block(docs.codes + token * docs.stride, docs.stride, panel, start, depth, sums, BLOCK_DOCS, PANELS);
#pragma GCC unroll 16
    for (int d = 0; d < BLOCK_DOCS; ++d) best.add(sums[d], token + d);
  }
  for (; token < docs.count; ++token) {
    multiply_block(docs.codes + token * docs.stride, docs.stride, panel, start, depth, sums, 1, PANELS);
    best.add(sums[0], token);
  }
  best.save();
}

static void token_maxima(const TokenTile& docs, const int8_t* panels, const int32_t* start, int n_panels, int depth,
                         float* maxima, size_t stride) {
  int panel = 0;
  for (; panel + 2 <= n_panels; panel += 2)
    panel_maxima<2>(for_panel(docs, panel), panels + panel * (size_t)depth * PANEL, start + panel * PANEL, depth, maxima + panel * PANEL, stride);
  if (panel < n_panels)
    panel_maxima<1>(for_panel(docs, panel), panels + panel * (size_t)depth * PANEL, start + panel * PANEL, depth, maxima + panel * PANEL, stride);
}

#endif

// ---- select ----

static int count_at_least(const float* values, int n, float least) {
  const F bound = splat(least);
  I count = I{};
  int i = 0;
  for (; i + W <= n; i += W) count -= load_f(values + i) >= bound;
  int total = lane_sum<I, int32_t>(count);
  for (; i < n; ++i) total += values[i] >= least;
  return total;
}

// float32 in the order of int32: negative ones have their magnitude turned round.
INLINE float float_at(int32_t place) {
  const int32_t bits = place < 0 ? place ^ 0x7fffffff : place;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

// Bisection over the places of float32, ended early where the count is right: each count is one pass over the values.
static float kth_largest(const float* values, int n, int k) {
  int64_t low = -0x7f800001LL, high = 0x7f800000;  // the places of -inf and inf
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    const int count = count_at_least(values, n, float_at(static_cast<int32_t>(middle)));
    if (count == k) return float_at(static_cast<int32_t>(middle));
    if (count > k)
      low = middle;
    else
      high = middle - 1;
  }
  return float_at(static_cast<int32_t>(low));
}

// ---- refine: float64 in the order of the specification, eight strided lanes ----

constexpr int LANES = 8;
constexpr int PARTS = LANES / (W / 2);  // registers that hold the lanes
typedef float H __attribute__((vector_size(2 * W)));  // as many floats as a register holds doubles

template <bool DIFFERENCE>
INLINE void add_step(const float* query, const float* row, D (&lanes)[PARTS]) {
#pragma GCC unroll 4
  for (int p = 0; p < PARTS; ++p) {
    H q, d;
    __builtin_memcpy(&q, query + p * (W / 2), sizeof q);
    __builtin_memcpy(&d, row + p * (W / 2), sizeof d);
    const D a = __builtin_convertvector(q, D), b = __builtin_convertvector(d, D);
    lanes[p] += DIFFERENCE ? (a - b) * (a - b) : a * b;
  }
}

INLINE double add_lanes(const D (&lanes)[PARTS]) {
  double l[LANES];
  __builtin_memcpy(l, lanes, sizeof l);
  return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
}

template <bool DIFFERENCE>
INLINE void pairs_f64(const float* const* queries, const float* const* rows, const float* const* next, const int count, int n,
                      double* out) {
  D lanes[PAIR_BLOCK][PARTS] = {};
  int i = 0;
  for (; i + 2 * LANES <= n; i += 2 * LANES)  // a cache line of each row
#pragma GCC unroll 4
    for (int r = 0; r < count; ++r) {
      __builtin_prefetch(next[r] + i);
      add_step<DIFFERENCE>(queries[r] + i, rows[r] + i, lanes[r]);
      add_step<DIFFERENCE>(queries[r] + i + LANES, rows[r] + i + LANES, lanes[r]);
    }
  for (; i + LANES <= n; i += LANES)
    for (int r = 0; r < count; ++r) add_step<DIFFERENCE>(queries[r] + i, rows[r] + i, lanes[r]);
  if (i < n) {
    float q[LANES] = {}, d[LANES] = {};  // padding adds +0.0, which changes no lane
    for (int r = 0; r < count; ++r) {
      __builtin_memcpy(q, queries[r] + i, (n - i) * sizeof(float));
      __builtin_memcpy(d, rows[r] + i, (n - i) * sizeof(float));
      add_step<DIFFERENCE>(q, d, lanes[r]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < count; ++r) out[r] = add_lanes(lanes[r]);
}

static void dot_f64(const float* const* queries, const float* const* rows, const float* const* next, int count, int n,
                    double* out) {
  if (count == PAIR_BLOCK) return pairs_f64<false>(queries, rows, next, PAIR_BLOCK, n, out);
  for (int r = 0; r < count; ++r) pairs_f64<false>(queries + r, rows + r, next + r, 1, n, out + r);
}

static void l2_f64(const float* const* queries, const float* const* rows, const float* const* next, int count, int n,
                    double* out) {
  if (count == PAIR_BLOCK) return pairs_f64<true>(queries, rows, next, PAIR_BLOCK, n, out);
  for (int r = 0; r < count; ++r) pairs_f64<true>(queries + r, rows + r, next + r, 1, n, out + r);
}

static void add_scaled(const float* row, float factor, int n, float* sums) {
  int i = 0;
  for (; i + W <= n; i += W) {
    const F sum = load_f(sums + i) + load_f(row + i) * factor;
    __builtin_memcpy(sums + i, &sum, sizeof sum);
  }
  for (; i < n; ++i) sums[i] += row[i] * factor;
}

#include "cpu/rows.inl"
#include "cpu/maxsim_pairs.inl"
#include "cpu/maxsim_soft.inl"
#include "cpu/sparse.inl"
#include "cpu/sliced.inl"

// ---- ceilings ----

#ifndef PYENGINE_TILED_SCAN
static int64_t multiply_in_registers(int64_t rounds) {
  constexpr int SUMS = 12;
  I sums[SUMS] = {}, codes = splat_i(0x01010101), query = splat_i(0x02020202);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int s = 0; s < SUMS; ++s) {
      sums[s] = dot4(sums[s], codes, query);
      __asm__ volatile("" : PYENGINE_VECTOR(sums[s]));  // so that no product is folded away
    }
  }
  return rounds * SUMS * 4 * W;
}
#endif

static int32_t read_memory(const uint8_t* bytes, size_t n) {
  I sums[4] = {};
  size_t i = 0;
  for (; i + 16 * W <= n; i += 16 * W)
    for (int s = 0; s < 4; ++s) sums[s] ^= load_i(bytes + i + s * 4 * W);
  return lane_sum<I, int32_t>(sums[0] ^ sums[1] ^ sums[2] ^ sums[3]);
}

#define PYENGINE_KERNEL_TABLE(name, levels, zero)                                                        \
  {                                                                                                      \
    name, levels, zero, quantize_row, dot_codes, scan_panels, scan_rows, token_maxima, dot_f32,          \
        kth_largest, dot_f64, l2_f64, decode_row, unpack_planes, add_scaled, square_f32, TOKEN_ROUNDING, \
        token_words, round_token, estimate_tokens, multiply_tokens, window_pairs, products_f64, soften,     \
        add_scaled_f64, multiply_in_registers, read_memory,                                              \
        scan_sliced, dot_sliced, sliced_f64, add_postings, add_column, take_sums, kth_sum                \
  }
