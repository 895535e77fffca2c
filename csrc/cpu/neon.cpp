// NEON of ARMv8.0: signed byte products, widened twice.
#if defined(__aarch64__)
#include <arm_neon.h>

#include "cpu/kernels.h"

namespace pyengine {
namespace {
constexpr int W = 4;
#include "cpu/vectors.inl"

static inline F fma(F a, F b, F c) { return (F)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline D fma(D a, D b, D c) { return (D)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b); }
static inline F maximum(F a, F b) { return (F)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }
static inline unsigned not_below(F a, F b) {
  const uint32x4_t bit = {1, 2, 4, 8};
  return vaddvq_u32(vbicq_u32(bit, vcltq_f32((float32x4_t)a, (float32x4_t)b)));
}
static inline S bytes_to_short(const uint8_t* p) { return (S)vmovl_u8(vld1_u8(p)); }
static inline S upper_product(S a, S b) {
  const int32x4_t low = vmull_s16(vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
  const int32x4_t high = vmull_high_s16((int16x8_t)a, (int16x8_t)b);
  return (S)vuzp2q_s16(vreinterpretq_s16_s32(low), vreinterpretq_s16_s32(high));
}
static inline uint32_t at_least(S a, S b) {
  const uint16x8_t bit = {1, 2, 4, 8, 16, 32, 64, 128};
  return vaddvq_u16(vandq_u16(bit, vcgeq_s16((int16x8_t)a, (int16x8_t)b)));
}
static inline I dot4(I sum, I codes, I query) {
  const int8x16_t c = veorq_s8((int8x16_t)codes, vdupq_n_s8(-128)), q = (int8x16_t)query;  // code - 128
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(c), vget_low_s8(q)));
  const int32x4_t high = vpaddlq_s16(vmull_high_s8(c, q));
  return sum + (I)vpaddq_s32(low, high);
}
static inline unsigned equal16(const uint8_t* a, const uint8_t* b) {
  const uint8x16_t bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t equal = vandq_u8(bit, vceqq_u8(vld1q_u8(a), vld1q_u8(b)));
  return vaddv_u8(vget_low_u8(equal)) | static_cast<unsigned>(vaddv_u8(vget_high_u8(equal))) << 8;
}

#include "cpu/portable.inl"

constexpr int BLOCK_DOCS = 3;  // x 8 vectors = 24 accumulators of the 32 registers

#include "cpu/kernels.inl"
}  // namespace

extern const KernelTable NEON_KERNELS = PYENGINE_KERNEL_TABLE("neon", 127, 0);
}  // namespace pyengine
#endif
