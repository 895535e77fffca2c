// MaxSim over tokens of few bits (maxsim_packed.cuh) of more than 128 dimensions, or summed over both sides
// (maxsim_steps.cuh): a step is 64 dimensions, whose words come by the ring. Each warp decodes the 32 tokens of a tile anew,
// 8 of them at a time, for 32 query tokens.
#include "maxsim_packed.cuh"
#include "maxsim_steps.cuh"

namespace pyengine::cuda {
namespace maxsim {

template <int BITS>
struct PackedSteps {
  static constexpr Kind KIND = FLOAT16;
  static constexpr int BYTES = GROUP * BITS / 8, STEP = TOKENS * BYTES;  // of a token in a step; of all

  uint32_t steps[4];             // of the tokens 8 n + lane / 4 of a tile, which this thread decodes
  const uint8_t* centroids[4];  // their rows

  static DEVICE int64_t query_bytes(int64_t width) { return width * 16 / BITS; }

  static DEVICE void load_step(const Scan& scan, uint32_t to, int64_t token, int count, int step) {
    constexpr int PIECE = BYTES < 16 ? BYTES : 16, PIECES = BYTES / PIECE;
    for (int i = threadIdx.x; i < min(count, TOKENS) * PIECES; i += blockDim.x) {
      const int8_t* row = scan.docs + (token + i / PIECES) * scan.width + step * BYTES;
      copy_piece<PIECE>(to + PIECE * i, row + i % PIECES * PIECE);
    }
  }

  DEVICE void begin(const Scan& scan, int64_t here, int count) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const int own = 8 * n + threadIdx.x % 32 / 4;
      const uint32_t head = own < count ? scan.heads[here + own] : 0;
      steps[n] = two_halves(step_of(head, scan.step_bits) * bits_of<float>(static_cast<int32_t>(scan.scale)));
      centroids[n] = scan.centroids + int64_t{centroid_of(head, scan.step_bits)} * query_bytes(scan.width);
    }
  }

  DEVICE void add(Products<FLOAT16>& products, const Scan&, const uint8_t* shared, int stage, int step) const {
    const int slice = threadIdx.x % 4;
    const uint8_t* words = shared + stage + threadIdx.x % 32 / 4 * BYTES + slice * BYTES / 4;
    uint32_t pairs[4][PAIRS];
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      uint32_t centroid[PAIRS];
      load_centroid(centroids[n] + step * DEPTH, slice, centroid);
      decode<BITS>(words + 8 * n * BYTES, steps[n], centroid, pairs[n]);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      uint32_t a[2][4];
      load_queries(a, shared_address(shared) + stage + STEP, 2 * k);
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int m = 0; m < 2; ++m) multiply<FLOAT16>(products.sums[m][n], a[m], pairs[n][2 * k], pairs[n][2 * k + 1]);
    }
  }
};

template <int BITS, int WARPS, bool SYMMETRIC>
DEVICE void scan_steps_of_bits(const Scan& scan, uint8_t* shared) {
  scan_steps<PackedSteps<BITS>, WARPS, SYMMETRIC>(scan, shared);
}

}  // namespace maxsim

#define MAXSIM_PACKED_STEPS(bits)                                                              \
  MAXSIM(maxsim_packed##bits##_32_steps, 32, (maxsim::scan_steps_of_bits<bits, 1, false>))     \
  MAXSIM(maxsim_packed##bits##_128_steps, 128, (maxsim::scan_steps_of_bits<bits, 4, false>))   \
  MAXSIM(maxsim_packed##bits##_32_both, 32, (maxsim::scan_steps_of_bits<bits, 1, true>))       \
  MAXSIM(maxsim_packed##bits##_128_both, 128, (maxsim::scan_steps_of_bits<bits, 4, true>))

MAXSIM_PACKED_STEPS(1)
MAXSIM_PACKED_STEPS(2)
MAXSIM_PACKED_STEPS(4)

}  // namespace pyengine::cuda
