// MaxSim over int8 codes of tokens of more than 128 dimensions, or summed over both sides (maxsim_steps.cuh). A step of the
// form of one warp is 8 KB for 128 KMAC, and of four warps 20 KB for 512: queries come from L2, and what of it is given
// limits these forms where many queries are asked.
#include "maxsim_steps.cuh"

namespace pyengine::cuda {
namespace maxsim {

struct CodeSteps {
  static constexpr Kind KIND = INT8;
  static constexpr int STEP = TOKENS * DEPTH;

  static DEVICE int64_t query_bytes(int64_t width) { return width; }

  static DEVICE void load_step(const Scan& scan, uint32_t to, int64_t token, int count, int step) {
    constexpr int PIECES = DEPTH / 16;
    for (int i = threadIdx.x; i < min(count, TOKENS) * PIECES; i += blockDim.x) {
      const int own = i / PIECES, number = i % PIECES;
      const int64_t at = int64_t{step} * DEPTH + number * 16;
      const int8_t* row = scan.docs + (token + own) * scan.width;
      copy_async(to + piece_at<DEPTH>(own, number), row + (at < scan.width ? at : 0), at < scan.width);
    }
  }

  DEVICE void begin(const Scan&, int64_t, int) {}

  DEVICE void add(Products<INT8>& products, const Scan&, const uint8_t* shared, int stage, int) const {
    const int lane = threadIdx.x % 32;
    const uint32_t base = shared_address(shared) + stage;
#pragma unroll
    for (int at = 0; at < DEPTH / 16; at += 2) {
      uint32_t a[2][4];
      load_queries(a, base + STEP, at);
#pragma unroll
      for (int n = 0; n < 4; n += 2) {
        uint32_t b[4];
        load_matrices(b, base + piece_at<DEPTH>(8 * n + lane / 16 * 8 + lane % 8, at + lane / 8 % 2));
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          multiply(products.sums[m][n], a[m], b[0], b[1]);
          multiply(products.sums[m][n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
};

template <int WARPS, bool SYMMETRIC>
DEVICE void scan_steps_of_codes(const Scan& scan, uint8_t* shared) {
  scan_steps<CodeSteps, WARPS, SYMMETRIC>(scan, shared);
}

}  // namespace maxsim

MAXSIM(maxsim_32_steps, 32, (maxsim::scan_steps_of_codes<1, false>))
MAXSIM(maxsim_128_steps, 128, (maxsim::scan_steps_of_codes<4, false>))
MAXSIM(maxsim_32_both, 32, (maxsim::scan_steps_of_codes<1, true>))
MAXSIM(maxsim_128_both, 128, (maxsim::scan_steps_of_codes<4, true>))

}  // namespace pyengine::cuda
