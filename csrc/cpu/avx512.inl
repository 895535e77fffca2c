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
static inline __attribute__((always_inline)) S upper_product(S a, S b) {
  return (S)_mm512_mulhi_epi16((__m512i)a, (__m512i)b);
}
static inline __attribute__((always_inline)) uint32_t at_least(S a, S b) {
  return _mm512_cmpge_epi16_mask((__m512i)a, (__m512i)b);
}
static inline __attribute__((always_inline)) F greater(F a, F b) { return (F)_mm512_max_ps((__m512)a, (__m512)b); }
static inline __attribute__((always_inline)) float largest_lane(F v) { return _mm512_reduce_max_ps((__m512)v); }
static inline __attribute__((always_inline)) I dot4(I sum, I codes, I query) {
  return (I)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, (__m512i)query);
}
// With queries that are not negative, these are the unsigned side; otherwise the documents' magnitudes are.
static inline __attribute__((always_inline)) I gated4(I sum, I codes, I query, I slices, I wanted,
                                                      const bool negative) {
  const __mmask64 equal = _mm512_cmpeq_epi8_mask((__m512i)slices, (__m512i)wanted);
  const __m512i weights = _mm512_xor_si512((__m512i)codes, _mm512_set1_epi8(-128));
  if (!negative) return (I)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)query, _mm512_maskz_mov_epi8(equal, weights));
  const __m512i kept = _mm512_maskz_mov_epi8(equal, (__m512i)query);
  const __m512i turned = _mm512_mask_sub_epi8(kept, _mm512_movepi8_mask(weights), _mm512_setzero_si512(), kept);
  return (I)_mm512_dpbusd_epi32((__m512i)sum, _mm512_abs_epi8(weights), turned);
}
static inline __attribute__((always_inline)) void sum_lanes(const I* v, int32_t* sums) {
  const __m512i a = (__m512i)v[0], b = (__m512i)v[1], c = (__m512i)v[2], d = (__m512i)v[3];
  const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(sums), four);
}
static inline __attribute__((always_inline)) uint64_t equal64(const uint8_t* a, const uint8_t* b) {
  return _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(a), _mm512_loadu_si512(b));
}
static inline __attribute__((always_inline)) F half_to_float(const uint16_t* p) {
  return (F)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
// GCC 12 makes six instructions of __builtin_convertvector.
static inline __attribute__((always_inline)) D floats_to_double(const float* p) {
  return (D)_mm512_cvtps_pd(_mm256_loadu_ps(p));
}
static inline __attribute__((always_inline)) I bytes_to_int(const uint8_t* p) {
  return (I)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline __attribute__((always_inline)) void unpack64(const uint64_t* bits, int planes, uint8_t* codes) {
  __m512i sum = _mm512_set1_epi8(static_cast<char>(129 - (1 << planes)));
  for (int p = 0; p < planes; ++p)
    sum = _mm512_mask_add_epi8(sum, bits[p], sum, _mm512_set1_epi8(static_cast<char>(2 << p)));
  _mm512_storeu_si512(codes, sum);
}
