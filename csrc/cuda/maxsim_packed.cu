// MaxSim over tokens of few bits of at most 128 dimensions (maxsim_packed.cuh): as maxsim.cu, but the words of a tile come
// by the ring, 32 bytes a token of 128 dimensions at 2 bits and 8 beside them, and each warp decodes them as it multiplies,
// by mma.m16n8k16. Rows of centroids are read where they are, 256 bytes a token from L2 or L1: that, and not memory, is
// what bounds a scan for one query of 32 tokens. Decoding 8 tokens takes a warp 3 instructions for each pair of values,
// 48 of 128 dimensions, beside 8 mma for each 16 query tokens; so the form for pages has 64 of them in each warp, whose
// codes take 128 registers.
#include "maxsim_packed.cuh"
#include "maxsim_whole.cuh"

namespace pyengine::cuda {
namespace maxsim {

// A tile is the words of its tokens, then their heads, then their weights.
template <int BITS, int MT, int WARPS, int DIMS>
struct Packed : Panel<MT, 2 * DIMS> {
  static constexpr int GROUPS = DIMS / GROUP, BN = WARPS == 1 ? 32 : 64, ROWS = 16 * MT;
  static constexpr int WIDTH = DIMS * BITS / 8, HEADS = BN * WIDTH, WEIGHTS = HEADS + 4 * BN, TILE = WEIGHTS + 4 * BN;

  // What a thread knows of the token whose slices it decodes.
  struct Token {
    uint32_t step, centroid[GROUPS][PAIRS];
  };

  template <int THREADS>
  static DEVICE void load_tile(const Scan& scan, uint32_t to, int64_t token, int count) {
    constexpr int PIECE = WIDTH < 16 ? WIDTH : 16, PIECES = WIDTH / PIECE;
    const int8_t* from = scan.docs + token * WIDTH;
    const int last = min(count, BN) * PIECES;
    for (int i = threadIdx.x; i < last; i += THREADS) copy_piece<PIECE>(to + PIECE * i, from + PIECE * i);
    copy_values<THREADS, BN>(to + HEADS, scan.heads + token, count);
    copy_values<THREADS, BN>(to + WEIGHTS, scan.weights + token, count);
  }

  static DEVICE Token read(const Scan& scan, const uint32_t* heads, int token, int count) {
    const uint32_t head = token < count ? heads[token] : 0;
    Token found;
    found.step = two_halves(step_of(head, scan.step_bits) * bits_of<float>(static_cast<int32_t>(scan.scale)));
    const uint8_t* row = scan.centroids + int64_t{centroid_of(head, scan.step_bits)} * (2 * DIMS);
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) load_centroid(row + g * 2 * GROUP, threadIdx.x % 4, found.centroid[g]);
    return found;
  }

  // A tile of tokens, of which there are `count`. What is beyond weighs NaN, which no maximum takes.
  DEVICE void add(const Scan& scan, const uint8_t* shared, int tile, int count) {
    const int column = threadIdx.x % 32 / 4, slice = threadIdx.x % 4;
    const uint8_t* words = shared + tile;
    const uint32_t* heads = reinterpret_cast<const uint32_t*>(words + HEADS);
    const float* weights = reinterpret_cast<const float*>(words + WEIGHTS);
    Token ahead = read(scan, heads, column, count);
    for (int n = 0; n < min(BN, count); n += 8) {
      const Token own = ahead;
      if (n + 8 < min(BN, count)) ahead = read(scan, heads, n + 8 + column, count);
      float sums[MT][4] = {};
#pragma unroll
      for (int g = 0; g < GROUPS; ++g) {
        uint32_t pairs[PAIRS];
        decode<BITS>(words + (n + column) * WIDTH + (g * GROUP + slice * SLICE) * BITS / 8, own.step, own.centroid[g],
                     pairs);
#pragma unroll
        for (int k = 0; k < 4; ++k)
#pragma unroll
          for (int m = 0; m < MT; ++m)
            multiply<FLOAT16>(sums[m], this->codes[m][4 * g + k], pairs[2 * k], pairs[2 * k + 1]);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int token = n + 2 * slice + i;
        const float weight = token < count ? weights[token] : NAN;
#pragma unroll
        for (int m = 0; m < MT; ++m)
#pragma unroll
          for (int half = 0; half < 2; ++half) this->take(m, half, sums[m][2 * half + i] * weight);
      }
    }
  }
};

template <int BITS, int MT, int WARPS, int DIMS>
DEVICE void scan_packed(const Scan& scan, uint8_t* shared) {
  scan_whole<Packed<BITS, MT, WARPS, DIMS>, WARPS>(scan, shared);
}

// How far codes in units of 1 / scale are from the tokens that they are of, `found` [2, T]: eight threads to each.
template <int BITS>
DEVICE void measure_packed(double* found, const uint8_t* words, const uint32_t* heads, const uint8_t* near,
                           const float* centroids, int64_t step_bits, int64_t scale, int64_t count, int64_t dims,
                           int64_t width) {
  const int64_t token = int64_t{blockIdx.x} * (blockDim.x / 8) + threadIdx.x / 8, own = min(token, count - 1);
  const uint8_t* row = words + own * width;
  const uint32_t head = heads[own], number = centroid_of(head, step_bits);
  const float step = step_of(head, step_bits), by = bits_of<float>(static_cast<int32_t>(scale));
  double error = 0, size = 0;
  for (int64_t at = threadIdx.x % 8 * SLICE; at < dims; at += 8 * SLICE) {
    uint32_t centroid[PAIRS], pairs[PAIRS];
    load_centroid(near + int64_t{number} * (width * 16 / BITS) + 2 * (at / GROUP * GROUP),
                  static_cast<int>(at % GROUP / SLICE), centroid);
    decode<BITS>(row + at * BITS / 8, two_halves(step * by), centroid, pairs);
    for (int i = 0; i < SLICE && at + i < dims; ++i) {
      const float exact = packed_value(reinterpret_cast<const uint32_t*>(row), at + i, BITS, step,
                                       centroids[int64_t{number} * dims + at + i]);
      const Float16 code{static_cast<uint16_t>(pairs[i % PAIRS] >> i / PAIRS * 16)};
      const double rest = exact - value_of(code) / double{by};
      error += rest * rest;
      size += double{exact} * exact;
    }
  }
  for (int lane = 1; lane < 8; lane *= 2) {
    error += __shfl_xor_sync(WARP, error, lane);
    size += __shfl_xor_sync(WARP, size, lane);
  }
  if (token >= count || threadIdx.x % 8 != 0) return;
  found[token] = sqrt(error);
  found[count + token] = sqrt(size);
}

}  // namespace maxsim

#define MAXSIM_PACKED(bits)                                                                                          \
  MAXSIM(maxsim_packed##bits##_32_64, 32, (maxsim::scan_packed<bits, 2, 1, 64>))                                     \
  MAXSIM(maxsim_packed##bits##_64_64, 32, (maxsim::scan_packed<bits, 4, 1, 64>))                                     \
  MAXSIM(maxsim_packed##bits##_256_64, 128, (maxsim::scan_packed<bits, 4, 4, 64>))                                   \
  MAXSIM(maxsim_packed##bits##_32_128, 32, (maxsim::scan_packed<bits, 2, 1, 128>))                                   \
  MAXSIM(maxsim_packed##bits##_64_128, 32, (maxsim::scan_packed<bits, 4, 1, 128>))                                   \
  MAXSIM(maxsim_packed##bits##_256_128, 128, (maxsim::scan_packed<bits, 4, 4, 128>))                                 \
  KERNEL(maxsim_measure_packed##bits, maxsim::MEASURE_THREADS)(                                                      \
      double* found, const uint8_t* words, const uint32_t* heads, const uint8_t* near, const float* centroids,       \
      int64_t step_bits, int64_t scale, int64_t count, int64_t dims, int64_t width) {                                \
    maxsim::measure_packed<bits>(found, words, heads, near, centroids, step_bits, scale, count, dims, width);        \
  }

MAXSIM_PACKED(1)
MAXSIM_PACKED(2)
MAXSIM_PACKED(4)

// words [T, per_token] of planes [T, u, P / 8] (pyengine/inputs/rows.py), a thread for each of `total`. Numbers of three
// planes take four bits, where 4 more makes the same odd integers.
KERNEL(maxsim_pack, maxsim::MEASURE_THREADS)(uint32_t* words, const uint8_t* planes, int64_t bits, int64_t n_planes,
                                             int64_t per_token, int64_t total) {
  const int64_t own = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (own >= total) return;
  const int64_t each = 32 / bits, first = own % per_token * each, wide = per_token * each / 8;
  const uint8_t* from = planes + own / per_token * n_planes * wide;
  uint32_t word = 0;
  for (int64_t i = 0; i < each; ++i) {
    uint32_t number = n_planes == 3 ? 4 : 0;
    for (int64_t plane = 0; plane < n_planes; ++plane)
      number += (from[plane * wide + (first + i) / 8] >> (first + i) % 8 & 1u) << plane;
    word |= number << i * bits;
  }
  words[own] = word;
}

}  // namespace pyengine::cuda
