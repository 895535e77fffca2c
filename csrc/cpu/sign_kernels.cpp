#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cpu/sign_kernels.h"
#include "cpu/target.h"

namespace pyengine {

ScanSigns sign_kernel(const KernelTable& table) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (&table != &BASELINE_KERNELS && &table != &AVX2_KERNELS && __builtin_cpu_supports("avx512vpopcntdq"))
    return scan_signs_avx512;
  if (&table != &BASELINE_KERNELS && __builtin_cpu_supports("popcnt")) return scan_signs_popcnt;
#else
  (void)table;
#endif
  return scan_signs_baseline;
}

// Word by word: the target decides what a popcount is.
#define PYENGINE_SCAN_BY_WORDS(block, hits)                                                     \
  Hit* const first = hits;                                                                      \
  for (int doc = 0; doc < block.count; ++doc)                                                   \
    for (int query = 0; query < block.n; ++query) {                                             \
      const uint64_t* q = block.rows + static_cast<size_t>(query) * block.words;                \
      int distance = 0;                                                                         \
      for (int i = 0; i < block.words; ++i) {                                                   \
        uint64_t word;                                                                          \
        __builtin_memcpy(&word, block.docs + doc * block.stride + i * sizeof word, sizeof word);\
        distance += __builtin_popcountll(word ^ q[i]);                                          \
      }                                                                                         \
      if (distance <= block.most[query]) *hits++ = Hit{doc, query, distance};                   \
    }                                                                                           \
  return hits - first;

size_t scan_signs_baseline(const SignBlock& block, Hit* hits) { PYENGINE_SCAN_BY_WORDS(block, hits) }
}  // namespace pyengine

#if defined(__x86_64__)
PYENGINE_TARGET_BEGIN("popcnt")
namespace pyengine {
size_t scan_signs_popcnt(const SignBlock& block, Hit* hits) { PYENGINE_SCAN_BY_WORDS(block, hits) }
}  // namespace pyengine
PYENGINE_TARGET_END

PYENGINE_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,avx2,prefer-vector-width=512")
namespace pyengine {
namespace {
#define INLINE static inline __attribute__((always_inline))
constexpr int LANES = 8, MAX_GROUPS = MAX_PANELS * PANEL / SIGN_PANEL;
constexpr int FEW = 4;  // up to so many queries meet eight documents at once, more meet them one by one

INLINE Hit* append(Hit* hits, unsigned passed, __m512i distances, int doc, int query, int doc_step, int query_step) {
  int64_t distance[LANES];
  _mm512_storeu_si512(distance, distances);
  for (; passed; passed &= passed - 1) {
    const int lane = __builtin_ctz(passed);
    *hits++ = Hit{doc + lane * doc_step, query + lane * query_step, static_cast<int32_t>(distance[lane])};
  }
  return hits;
}

INLINE __m512i popcount_row(const uint8_t* doc, const uint64_t* query, int words, __mmask8 tail) {
  __m512i sum = _mm512_setzero_si512();
  int i = 0;
  for (; i + LANES <= words; i += LANES)
    sum = _mm512_add_epi64(
        sum, _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(doc + 8 * i), _mm512_loadu_si512(query + i))));
  if (!tail) return sum;
  const __m512i rest = _mm512_xor_si512(_mm512_maskz_loadu_epi64(tail, doc + 8 * i),
                                        _mm512_maskz_loadu_epi64(tail, query + i));
  return _mm512_add_epi64(sum, _mm512_popcnt_epi64(rest));
}

INLINE __m512i add_pairs(__m512i a, __m512i b) {
  return _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}
INLINE __m512i add_quarters(__m512i a, __m512i b) {
  return _mm512_add_epi64(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
}

Hit* scan_few(const SignBlock& block, Hit* hits) {
  const __mmask8 tail = static_cast<__mmask8>((1u << block.words % LANES) - 1);
  for (int doc = 0; doc < block.count; doc += LANES) {
    const int count = block.count - doc < LANES ? block.count - doc : LANES;
    const uint8_t* rows[LANES];
    for (int i = 0; i < LANES; ++i) {
      rows[i] = block.docs + (doc + (i < count ? i : count - 1)) * block.stride;
      for (int line = 0; line < block.words * 8; line += 64)
        __builtin_prefetch(rows[i] + 16 * LANES * block.words + line);
    }
    for (int query = 0; query < block.n; ++query) {
      const uint64_t* q = block.rows + static_cast<size_t>(query) * block.words;
      __m512i sums[LANES];
#pragma GCC unroll 8
      for (int i = 0; i < LANES; ++i) sums[i] = popcount_row(rows[i], q, block.words, tail);
      const __m512i low = add_quarters(add_pairs(sums[0], sums[1]), add_pairs(sums[2], sums[3]));
      const __m512i high = add_quarters(add_pairs(sums[4], sums[5]), add_pairs(sums[6], sums[7]));
      const __m512i all = add_quarters(low, high);
      const unsigned passed = _mm512_cmple_epi64_mask(all, _mm512_set1_epi64(block.most[query])) & ((1u << count) - 1);
      if (__builtin_expect(passed, 0)) hits = append(hits, passed, all, doc, query, 1, 0);
    }
  }
  return hits;
}

template <int GROUPS>
Hit* scan_groups(const SignBlock& block, Hit* hits) {
  __m512i most[GROUPS];
  for (int g = 0; g < GROUPS; ++g) most[g] = _mm512_loadu_si512(block.most + g * LANES);
  for (int doc = 0; doc < block.count; ++doc) {
    const uint8_t* row = block.docs + doc * block.stride;
    __m512i sums[GROUPS];
    for (int g = 0; g < GROUPS; ++g) sums[g] = _mm512_setzero_si512();
    for (int i = 0; i < block.words; ++i) {
      int64_t word;
      __builtin_memcpy(&word, row + 8 * i, sizeof word);
      const __m512i all = _mm512_set1_epi64(word);
#pragma GCC unroll 4
      for (int g = 0; g < GROUPS; ++g) {
        const __m512i query = _mm512_loadu_si512(block.panels + (static_cast<size_t>(g) * block.words + i) * LANES);
        sums[g] = _mm512_add_epi64(sums[g], _mm512_popcnt_epi64(_mm512_xor_si512(all, query)));
      }
    }
#pragma GCC unroll 4
    for (int g = 0; g < GROUPS; ++g) {
      const unsigned passed = _mm512_cmple_epi64_mask(sums[g], most[g]);
      if (__builtin_expect(passed, 0)) hits = append(hits, passed, sums[g], doc, g * LANES, 0, 1);
    }
  }
  return hits;
}
#undef INLINE
}  // namespace

size_t scan_signs_avx512(const SignBlock& block, Hit* hits) {
  static_assert(MAX_GROUPS == 4, "one case for each number of groups");
  const int groups = (block.n + LANES - 1) / LANES;
  Hit* const end = block.n <= FEW ? scan_few(block, hits)
                   : groups == 1  ? scan_groups<1>(block, hits)
                   : groups == 2  ? scan_groups<2>(block, hits)
                   : groups == 3  ? scan_groups<3>(block, hits)
                                  : scan_groups<4>(block, hits);
  return end - hits;
}
}  // namespace pyengine
PYENGINE_TARGET_END
#endif
