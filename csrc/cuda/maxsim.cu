// MaxSim over int8 codes of tokens: multiply, keep the largest product of each query token, add up by query, bound,
// compare with a threshold and append what may pass. The counterpart of kernels/maxsim_topk.py, whose docstring derives
// the bounds, for tokens of at most 128 dimensions; the others, and sums over both sides: maxsim_steps.cu; tokens of few
// bits: maxsim_packed.cu; pages on Hopper: maxsim_sm90.cu.
//
// What it costs, of T document tokens and M query tokens of D <= 128: T (D + 4) bytes for each group of queries, once
// from memory since groups of a document run side by side, and 2 T M D operations; beside every 4 mma (16 x 8 products
// of 128 dimensions) 4 times an addition, a multiplication and a maximum. Two forms follow from that:
// - One query of 32 tokens, documents of 300 x 128: 39 KB and 2.5 million operations a document, 63 a byte, where an
//   H100 by its datasheet multiplies 590 for each byte it reads: bound by memory. So a block is one warp, with tiles of
//   32 tokens: 120 registers, 17 KB of shared memory, so that 13 blocks have 100 KB of copies on their way at once.
// - Queries of a page (1,024 tokens), or many: bound by mma. A block is four warps, each with 64 query tokens of its
//   own (168 registers: three blocks); all read the same tiles of 64 tokens, so that 132 bytes come from L2 for 32,768
//   products, and what `ldmatrix` reads is multiplied four times. A tile is 128 mma of a warp, and 630 other
//   instructions, of which 384 are for the maxima.
#include "maxsim_whole.cuh"

namespace pyengine::cuda {
namespace maxsim {

// `weighed` would take a register for each weight, of which there are none to spare.
DEVICE float product_of(int32_t biased) { return bits_of<float>(biased) - 12582912.0f; }

// A tile is the rows of its tokens, then their weights.
template <int MT, int WARPS, int WIDTH>
struct Codes : Panel<MT, WIDTH> {
  static constexpr int BN = WARPS == 1 ? 32 : 64, ROWS = 16 * MT, CODES = BN * WIDTH, TILE = CODES + 4 * BN;

  template <int THREADS>
  static DEVICE void load_tile(const Scan& scan, uint32_t to, int64_t token, int count) {
    constexpr int PIECES = WIDTH / 16;
    const int8_t* from = scan.docs + token * WIDTH;
#pragma unroll
    for (int i = 0; i < BN * PIECES / THREADS; ++i) {
      const int at = i * THREADS + threadIdx.x, own = at / PIECES;
      if (own < count) copy_async(to + piece_at<WIDTH>(own, at % PIECES), from + 16 * at, true);
    }
    copy_values<THREADS, BN>(to + CODES, scan.weights + token, count);
  }

  // A tile of tokens, of which there are `count`. What is beyond weighs NaN, which no maximum takes.
  DEVICE void add(const Scan&, const uint8_t* shared, int tile, int count) {
    const int lane = threadIdx.x % 32, eighth = lane % 8, matrix = lane / 8;
    const uint32_t base = shared_address(shared) + tile;
    const float* weights = reinterpret_cast<const float*>(shared + tile + CODES);
#pragma unroll
    for (int n = 0; n < BN; n += 16) {
      if (n >= count) break;
      int32_t sums[MT][2][4];
#pragma unroll
      for (int k = 0; k < WIDTH / 32; ++k) {
        uint32_t b[4];
        load_matrices(b, base + piece_at<WIDTH>(n + matrix / 2 * 8 + eighth, 2 * k + matrix % 2));
#pragma unroll
        for (int m = 0; m < MT; ++m) {
          if (k == 0) {
            multiply_first(sums[m][0], this->codes[m][k], b[0], b[1], BIASED);
            multiply_first(sums[m][1], this->codes[m][k], b[2], b[3], BIASED);
          } else {
            multiply(sums[m][0], this->codes[m][k], b[0], b[1]);
            multiply(sums[m][1], this->codes[m][k], b[2], b[3]);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = n + i / 2 * 8 + lane % 4 * 2 + i % 2;
        const float weight = token < count ? weights[token] : NAN;
#pragma unroll
        for (int m = 0; m < MT; ++m)
#pragma unroll
          for (int half = 0; half < 2; ++half)
            this->take(m, half, product_of(sums[m][i / 2][2 * half + i % 2]) * weight);
      }
    }
  }
};

template <int MT, int WARPS, int WIDTH>
DEVICE void scan_codes(const Scan& scan, uint8_t* shared) {
  scan_whole<Codes<MT, WARPS, WIDTH>, WARPS>(scan, shared);
}

}  // namespace maxsim

MAXSIM(maxsim_16_64, 32, (maxsim::scan_codes<1, 1, 64>))
MAXSIM(maxsim_32_64, 32, (maxsim::scan_codes<2, 1, 64>))
MAXSIM(maxsim_64_64, 32, (maxsim::scan_codes<4, 1, 64>))
MAXSIM(maxsim_128_64, 64, (maxsim::scan_codes<4, 2, 64>))
MAXSIM(maxsim_256_64, 128, (maxsim::scan_codes<4, 4, 64>))
MAXSIM(maxsim_16_128, 32, (maxsim::scan_codes<1, 1, 128>))
MAXSIM(maxsim_32_128, 32, (maxsim::scan_codes<2, 1, 128>))
MAXSIM(maxsim_64_128, 32, (maxsim::scan_codes<4, 1, 128>))
MAXSIM(maxsim_128_128, 64, (maxsim::scan_codes<4, 2, 128>))
MAXSIM(maxsim_256_128, 128, (maxsim::scan_codes<4, 4, 128>))

}  // namespace pyengine::cuda
