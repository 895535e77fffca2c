// The vectors of AVX-512, for avx512.cpp and amx.cpp.
constexpr int W = 16;
#include "cpu/vectors.inl"

static inline __attribute__((always_inline)) F fma(F a, F b, F c) {
  return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
static inline __attribute__((always_inline)) unsigned not_below(F a, F b) {
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NLT_UQ);
}
static inline __attribute__((always_inline)) I dot4(I sum, I codes, I query) {
  return (I)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)codes, (__m512i)query);
}
