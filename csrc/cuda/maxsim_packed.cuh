// Tokens of 1, 2 or 4 bits a dimension, decoded in registers to the float16 that tensor cores multiply. The counterpart
// of kernels/maxsim_codes.py; pyengine/backends/cuda/cuda_packed.py says how they are kept.
//
// A token is step (2 number - most) + centroid, most = 2^BITS - 1. Its numbers lie one after another in words; its `head`
// is a word whose upper bits are the step, a float32 that is cut off after `step_bits` of them, and whose others are the
// number of the centroid. Codes are float16(step' (2 number - most) + centroid'), rounded once, in a unit of the corpus:
// step' = float16(scale step), scale being 1 / unit, and centroid' came as float16. What they leave out of a token is
// measured by `maxsim_measure_packed`, which decodes alike.
//
// A thread decodes 16 dimensions of a group of 64: those of one of the four columns of k that it has of an operand of
// mma.m16n8k16. Which dimension is which k does not matter where both sides agree: pair i of a thread are dimensions i and
// i + 8 of its 16, which lie 16 bits apart once `fields_of` has moved them. So queries and centroids come in that order.
#pragma once

#include "device.cuh"

#ifdef __CUDACC__
namespace pyengine::cuda {

// Of two float16 each: a b + c, rounded once.
DEVICE uint32_t fma_halves(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t found;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(found) : "r"(a), "r"(b), "r"(c));
  return found;
}

// A value as float16, twice.
DEVICE uint32_t two_halves(float x) {
  uint32_t found;
  asm("cvt.rn.f16x2.f32 %0, %1, %1;" : "=r"(found) : "f"(x));
  return found;
}

}  // namespace pyengine::cuda
#endif

namespace pyengine::cuda::maxsim {

constexpr int GROUP = 64, SLICE = 16, PAIRS = SLICE / 2;  // dimensions; of a thread; in pairs
constexpr int MEASURE_THREADS = 128;

// A value as it defines the scores, each product and each sum rounded on its own: the words of a token begin at `row`.
BOTH float packed_value(const uint32_t* row, int64_t i, int64_t bits, float step, float centroid) {
  const int32_t most = (1 << bits) - 1, number = static_cast<int32_t>(row[i * bits >> 5] >> (i * bits & 31)) & most;
  return static_cast<float>(2 * number - most) * step + centroid;
}

BOTH float step_of(uint32_t head, int64_t step_bits) {
  return bits_of<float>(head & static_cast<uint32_t>(uint64_t{0xFFFFFFFF} << 32 >> step_bits));
}

BOTH uint32_t centroid_of(uint32_t head, int64_t step_bits) {
  return head & static_cast<uint32_t>(uint64_t{0xFFFFFFFF} >> step_bits);
}

// How many numbers each half of a word has below: more would take more constants than there are registers to spare.
BOTH constexpr int per_half(int bits) { return bits == 4 ? 2 : 4; }

// The numbers of 16 dimensions, which begin at that address: number i, for i < 8, in the lower half of word i / PER from bit
// 1 + i % PER * BITS on, and number i + 8 in its upper half.
template <int BITS>
BOTH void fields_of(const void* slice, uint32_t (&fields)[PAIRS / per_half(BITS)]) {
  if constexpr (BITS == 1) {
    const uint32_t all = *static_cast<const uint16_t*>(slice), apart = all | all << 8;
    fields[0] = apart << 1;
    fields[1] = apart >> 3;
  } else {
    const uint32_t* words = static_cast<const uint32_t*>(slice);
    uint32_t halves[BITS / 2] = {words[0]};
    if constexpr (BITS == 4) {
      halves[0] = (words[0] & 0xFFFF) | words[1] << 16;
      halves[1] = words[0] >> 16 | (words[1] & 0xFFFF0000);
    }
#pragma unroll
    for (int i = 0; i < BITS / 2; ++i) {
      fields[2 * i] = halves[i] << 1;
      fields[2 * i + 1] = halves[i] >> 7;
    }
  }
}

BOTH constexpr uint32_t twice(uint32_t half) { return half | half << 16; }

// The codes of 16 dimensions, for a step and 16 values of a centroid in pairs of float16. In the place of a mantissa's low
// bits of 1024 a number n from bit b on makes 1024 + 2^b n, of which one product and sum leave the odd integer.
template <int BITS>
DEVICE void decode(const void* slice, uint32_t step, const uint32_t (&centroid)[PAIRS], uint32_t (&pairs)[PAIRS]) {
  constexpr uint32_t MOST = (1 << BITS) - 1;
  constexpr int PER = per_half(BITS);
  uint32_t fields[PAIRS / PER];
  fields_of<BITS>(slice, fields);
#pragma unroll
  for (int i = 0; i < PAIRS; ++i) {
    const uint32_t bit = 1 + i % PER * BITS;
    const uint32_t number = (fields[i / PER] & twice(MOST << bit)) | twice(0x6400);
    const uint32_t by = twice((16 - bit) << 10);                                              // 2^(1 - bit)
    const uint32_t less = twice(0x8000 | (0x6400 + (MOST << (bit - 1)) - ((bit - 1) << 10)));  // -(2^(11 - bit) + most)
    pairs[i] = fma_halves(fma_halves(number, by, less), step, centroid[i]);
  }
}

// A thread's values of a centroid, for one group, whose row begins there.
DEVICE void load_centroid(const uint8_t* row, int slice, uint32_t (&to)[PAIRS]) {
  const uint4* from = reinterpret_cast<const uint4*>(row + slice * 2 * SLICE);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint4 four = from[i];
    to[4 * i] = four.x, to[4 * i + 1] = four.y, to[4 * i + 2] = four.z, to[4 * i + 3] = four.w;
  }
}

}  // namespace pyengine::cuda::maxsim
