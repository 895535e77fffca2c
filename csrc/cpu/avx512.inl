// The vectors of AVX-512, for avx512.cpp and amx.cpp.
constexpr int W = 16;
constexpr int BLOCK_DOCS = 12;  // x 2 panels = 24 accumulators of the 32 registers
#include "cpu/vectors.inl"

static inline __attribute__((always_inline)) F fma(F a, F b, F c) {
  return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
static inline __attribute__((always_inline)) D fma(D a, D b, D c) {
  return (D)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
static inline __attribute__((always_inline)) F maximum(F a, F b) { return (F)_mm512_max_ps((__m512)a, (__m512)b); }
static inline __attribute__((always_inline)) unsigned not_below(F a, F b) {
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NLT_UQ);
}
static inline __attribute__((always_inline)) S bytes_to_short(const uint8_t* p) {
  return (S)_mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline __attribute__((always_inline)) S upper_product(S a, S b) { return (S)_mm512_mulhi_epi16((__m512i)a, (__m512i)b); }
static inline __attribute__((always_inline)) bool any_at_least(S a, S b) {
  return _mm512_cmpge_epi16_mask((__m512i)a, (__m512i)b) != 0;
}
static inline __attribute__((always_inline)) F greater(F a, F b) { return (F)_mm512_max_ps((__m512)a, (__m512)b); }
static inline __attribute__((always_inline)) float largest_lane(F v) { return _mm512_reduce_max_ps((__m512)v); }
static inline __attribute__((always_inline)) I dot4(I sum, I codes, I query) {
  return (I)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, (__m512i)query);
}
static inline __attribute__((always_inline)) F half_to_float(const uint16_t* p) {
  return (F)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline __attribute__((always_inline)) I bytes_to_int(const uint8_t* p) {
  return (I)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline __attribute__((always_inline)) void unpack64(const uint64_t* bits, int planes, uint8_t* codes) {
  __m512i sum = _mm512_set1_epi8(static_cast<char>(129 - (1 << planes)));
  for (int p = 0; p < planes; ++p) sum = _mm512_mask_add_epi8(sum, bits[p], sum, _mm512_set1_epi8(static_cast<char>(2 << p)));
  _mm512_storeu_si512(codes, sum);
}
