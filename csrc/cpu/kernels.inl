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
INLINE I abs_bits(F v) { I bits; __builtin_memcpy(&bits, &v, sizeof v); return bits & 0x7fffffff; }
INLINE I as_bits(F v) { I bits; __builtin_memcpy(&bits, &v, sizeof v); return bits; }

// The last, incomplete vector of a row, filled up with zeros.
INLINE F load_tail(const float* p, int n) {
  float part[W] = {};
  for (int i = 0; i < n; ++i) part[i] = p[i];
  return load_f(part);
}

template <class V, class T>
INLINE T lane_sum(V v) {
  T sum = 0;
  for (size_t i = 0; i < sizeof(V) / sizeof(T); ++i) sum += v[i];
  return sum;
}

#include "cpu/quantize.inl"
#include "cpu/maxima.inl"
#include "cpu/scan.inl"

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

#include "cpu/refine.inl"

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
