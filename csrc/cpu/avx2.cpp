// AVX2: byte products in pairs through int16, which the query's codes (at most 63) keep from saturating.
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/kernels.h"
#include "cpu/target.h"

PYENGINE_TARGET_BEGIN("avx2,fma")
namespace pyengine {
namespace {
constexpr int W = 8;
#include "cpu/vectors.inl"

static inline __attribute__((always_inline)) F fma(F a, F b, F c) {
  return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
static inline __attribute__((always_inline)) unsigned not_below(F a, F b) {
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_NLT_UQ));
}
static inline __attribute__((always_inline)) I dot4(I sum, I codes, I query) {
  const __m256i pairs = _mm256_maddubs_epi16((__m256i)codes, (__m256i)query);
  return sum + (I)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

constexpr int BLOCK_DOCS = 3;  // x 4 vectors = 12 accumulators of the 16 registers

#include "cpu/kernels.inl"
}  // namespace

extern const KernelTable AVX2_KERNELS = PYENGINE_KERNEL_TABLE("avx2", 63, 128);
}  // namespace pyengine
PYENGINE_TARGET_END
#endif
