// AVX2: byte products in pairs through int16, which the query's codes (at most 63) keep from saturating.
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/kernels.h"
#include "cpu/target.h"

PYENGINE_TARGET_BEGIN("avx2,fma,f16c")
namespace pyengine {
namespace {
constexpr int W = 8;
#include "cpu/vectors.inl"

static inline __attribute__((always_inline)) F fma(F a, F b, F c) {
  return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
static inline __attribute__((always_inline)) D fma(D a, D b, D c) {
  return (D)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
static inline __attribute__((always_inline)) F maximum(F a, F b) { return (F)_mm256_max_ps((__m256)a, (__m256)b); }
static inline __attribute__((always_inline)) unsigned not_below(F a, F b) {
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_NLT_UQ));
}
static inline __attribute__((always_inline)) S bytes_to_short(const uint8_t* p) {
  return (S)_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline __attribute__((always_inline)) S upper_product(S a, S b) {
  return (S)_mm256_mulhi_epi16((__m256i)a, (__m256i)b);
}
static inline __attribute__((always_inline)) uint32_t at_least(S a, S b) {
  const __m256i below = _mm256_cmpgt_epi16((__m256i)b, (__m256i)a);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(below), _mm256_extracti128_si256(below, 1));
  return _mm_movemask_epi8(bytes) ^ 0xffff;
}
static inline __attribute__((always_inline)) F greater(F a, F b) { return (F)_mm256_max_ps((__m256)a, (__m256)b); }
static inline __attribute__((always_inline)) float largest_lane(F v) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
static inline __attribute__((always_inline)) I dot4(I sum, I codes, I query) {
  const __m256i pairs = _mm256_maddubs_epi16((__m256i)codes, (__m256i)query);
  return sum + (I)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
static inline __attribute__((always_inline)) I gated4(I sum, I codes, I query, I slices, I wanted, const bool) {
  const __m256i weights = _mm256_xor_si256((__m256i)codes, _mm256_set1_epi8(-128));
  const __m256i kept = _mm256_and_si256((__m256i)query, _mm256_cmpeq_epi8((__m256i)slices, (__m256i)wanted));
  return dot4(sum, (I)_mm256_abs_epi8(weights), (I)_mm256_sign_epi8(kept, weights));
}
static inline __attribute__((always_inline)) void sum_lanes(const I* v, int32_t* sums) {
  const __m256i ab = _mm256_hadd_epi32((__m256i)v[0], (__m256i)v[1]);
  const __m256i cd = _mm256_hadd_epi32((__m256i)v[2], (__m256i)v[3]);
  const __m256i all = _mm256_hadd_epi32(ab, cd);
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(sums), four);
}
static inline __attribute__((always_inline)) uint64_t equal64(const uint8_t* a, const uint8_t* b) {
  uint64_t bits[2];
  for (int half = 0; half < 2; ++half) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a + 32 * half));
    const __m256i y = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 32 * half));
    bits[half] = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, y)));
  }
  return bits[0] | bits[1] << 32;
}

static inline __attribute__((always_inline)) F half_to_float(const uint16_t* p) {
  return (F)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline __attribute__((always_inline)) D floats_to_double(const float* p) {
  return (D)_mm256_cvtps_pd(_mm_loadu_ps(p));
}
static inline __attribute__((always_inline)) I bytes_to_int(const uint8_t* p) {
  return (I)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
static inline __attribute__((always_inline)) void unpack64(const uint64_t* bits, int planes, uint8_t* codes) {
  const __m256i bit = _mm256_set1_epi64x(0x8040201008040201);
  const __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  for (int half = 0; half < 2; ++half) {
    __m256i sum = _mm256_set1_epi8(static_cast<char>(129 - (1 << planes)));
    for (int p = 0; p < planes; ++p) {
      const __m256i all = _mm256_set1_epi32(static_cast<int>(bits[p] >> 32 * half));
      const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(all, byte), bit), bit);
      sum = _mm256_add_epi8(sum, _mm256_and_si256(set, _mm256_set1_epi8(static_cast<char>(2 << p))));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + 32 * half), sum);
  }
}

constexpr int BLOCK_DOCS = 3;  // x 4 vectors = 12 accumulators of the 16 registers

#include "cpu/kernels.inl"
}  // namespace

extern const KernelTable AVX2_KERNELS = PYENGINE_KERNEL_TABLE("avx2", 63, 128);
}  // namespace pyengine
PYENGINE_TARGET_END
#endif
