// The ABI floor of the platform: SSE2 on x86-64, plain vectors elsewhere.
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "cpu/kernels.h"

namespace pyengine {
namespace {
constexpr int W = 4;
#include "cpu/vectors.inl"

static inline F fma(F a, F b, F c) { return a * b + c; }
static inline D fma(D a, D b, D c) { return a * b + c; }

#if defined(__SSE2__)
static inline F maximum(F a, F b) { return (F)_mm_max_ps((__m128)a, (__m128)b); }
static inline unsigned not_below(F a, F b) { return _mm_movemask_ps(_mm_cmpnlt_ps((__m128)a, (__m128)b)); }
static inline S bytes_to_short(const uint8_t* p) {
  return (S)_mm_unpacklo_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), _mm_setzero_si128());
}
static inline S upper_product(S a, S b) { return (S)_mm_mulhi_epi16((__m128i)a, (__m128i)b); }
static inline uint32_t at_least(S a, S b) {
  const __m128i below = _mm_cmplt_epi16((__m128i)a, (__m128i)b);
  return _mm_movemask_epi8(_mm_packs_epi16(below, _mm_setzero_si128())) ^ 0xff;
}

static inline I dot4(I sum, I codes, I query) {
  const __m128i zero = _mm_setzero_si128(), c = (__m128i)codes, q = (__m128i)query;
  const __m128i sign = _mm_cmpgt_epi8(zero, q);
  const __m128 low = (__m128)_mm_madd_epi16(_mm_unpacklo_epi8(c, zero), _mm_unpacklo_epi8(q, sign));
  const __m128 high = (__m128)_mm_madd_epi16(_mm_unpackhi_epi8(c, zero), _mm_unpackhi_epi8(q, sign));
  const I even = (I)_mm_shuffle_ps(low, high, _MM_SHUFFLE(2, 0, 2, 0));
  const I odd = (I)_mm_shuffle_ps(low, high, _MM_SHUFFLE(3, 1, 3, 1));
  return sum + even + odd;
}
static inline unsigned equal16(const uint8_t* a, const uint8_t* b) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a));
  const __m128i y = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b));
  return static_cast<unsigned>(_mm_movemask_epi8(_mm_cmpeq_epi8(x, y)));
}
#else
static inline F maximum(F a, F b) { return a > b ? a : b; }
static inline unsigned not_below(F a, F b) {
  return !(a[0] < b[0]) | !(a[1] < b[1]) << 1 | !(a[2] < b[2]) << 2 | !(a[3] < b[3]) << 3;
}

static inline S bytes_to_short(const uint8_t* p) {
  S v;
  for (int lane = 0; lane < 2 * W; ++lane) v[lane] = p[lane];
  return v;
}
static inline S upper_product(S a, S b) {
  S v;
  for (int lane = 0; lane < 2 * W; ++lane) v[lane] = static_cast<int16_t>(a[lane] * b[lane] >> 16);
  return v;
}
static inline uint32_t at_least(S a, S b) {
  uint32_t lanes = 0;
  for (int lane = 0; lane < 2 * W; ++lane) lanes |= static_cast<uint32_t>(a[lane] >= b[lane]) << lane;
  return lanes;
}

static inline I dot4(I sum, I codes, I query) {
  uint8_t c[4 * W];
  int8_t q[4 * W];
  __builtin_memcpy(c, &codes, sizeof c);
  __builtin_memcpy(q, &query, sizeof q);
  for (int lane = 0; lane < W; ++lane)
    for (int i = 0; i < 4; ++i) sum[lane] += c[4 * lane + i] * q[4 * lane + i];
  return sum;
}
static inline unsigned equal16(const uint8_t* a, const uint8_t* b) {
  unsigned bits = 0;
  for (int i = 0; i < 16; ++i) bits |= static_cast<unsigned>(a[i] == b[i]) << i;
  return bits;
}
#endif

#include "cpu/portable.inl"

constexpr int BLOCK_DOCS = 1;  // x 8 vectors = 8 accumulators of the 16 registers

#include "cpu/kernels.inl"
}  // namespace

extern const KernelTable BASELINE_KERNELS = PYENGINE_KERNEL_TABLE("baseline", 127, 128);
}  // namespace pyengine
