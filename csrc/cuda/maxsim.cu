// MaxSim over int8 codes of tokens: multiply, keep the largest product of each query token, add up by query, bound,
// compare with a threshold and append what may pass. The counterpart of kernels/maxsim_topk.py, whose docstring derives
// the bounds, for tokens of at most 128 dimensions; the others, and sums over both sides: maxsim_steps.cu.
//
// A block takes a run of documents and a group of queries (kernels/maxsim_plan.py: panels of BM tokens). Query tokens
// are the rows of `mma.m16n8k32`: their codes stay in registers while documents pass (16 registers for 16 tokens of 128
// dimensions), a maximum takes two registers for each 16 tokens, and lanes exchange maxima once a document. Documents
// come by `cp.async`, in tiles with their weights, into a ring of 3 stages that runs on from document to document and
// from panel to panel; a document is neither padded nor gathered, and one that a mask forbids is not read.
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
//   instructions, of which 384 are for the maxima: wgmma would issue fewer mma, but leaves these as they are.
#include "maxsim_run.cuh"

namespace pyengine::cuda {
namespace maxsim {

DEVICE uint32_t word(const int8_t* at) { return *reinterpret_cast<const uint32_t*>(at); }

// 16 MT query tokens of one warp, in registers, and the largest of their products with a document's tokens.
template <int MT, int WIDTH>
struct Panel {
  uint32_t codes[MT][WIDTH / 32][4];
  float coefficients[MT][2], best[MT][2];

  DEVICE void load(const Scan& scan, int64_t first) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t token = first + 16 * m + 8 * half + lane / 4;
        coefficients[m][half] = scan.coefficients[token];
        const int8_t* at = scan.queries + token * WIDTH + lane % 4 * 4;
#pragma unroll
        for (int k = 0; k < WIDTH / 32; ++k) {
          codes[m][k][half] = word(at + 32 * k);
          codes[m][k][half + 2] = word(at + 32 * k + 16);
        }
      }
  }

  DEVICE void begin() {
#pragma unroll
    for (int m = 0; m < MT; ++m) best[m][0] = best[m][1] = -INFINITY;
  }

  // A tile of BN tokens, of which there are `count`. What is beyond weighs NaN, which no maximum takes.
  template <int BN>
  DEVICE void add(uint32_t base, const float* weights, int count) {
    const int lane = threadIdx.x % 32, eighth = lane % 8, matrix = lane / 8;
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
            multiply_first(sums[m][0], codes[m][k], b[0], b[1], BIASED);
            multiply_first(sums[m][1], codes[m][k], b[2], b[3], BIASED);
          } else {
            multiply(sums[m][0], codes[m][k], b[0], b[1]);
            multiply(sums[m][1], codes[m][k], b[2], b[3]);
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
            best[m][half] = fmaxf(best[m][half], product_of(sums[m][i / 2][2 * half + i % 2]) * weight);
      }
    }
  }

  // The terms a f M of the query tokens.
  DEVICE void finish(float* terms) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float largest = larger_of(larger_of(best[m][half], 1), 2);
        if (lane % 4 == 0) terms[16 * m + 8 * half + lane / 4] = coefficients[m][half] * largest;
      }
  }
};

// Add the terms of a panel, `terms` [RUN, PITCH], to the sums of its queries: a warp for each query and document.
template <int BM, int PITCH>
DEVICE void add_terms(const Scan& scan, Run& run, const float* terms, int64_t panel) {
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (int i = threadIdx.x / 32; i < run.count * run.n_queries; i += warps) {
    const int doc = i / run.n_queries, q = i % run.n_queries;
    if (run.length[doc] == 0) continue;
    const int64_t first = scan.begins[run.query + q] - panel * BM, last = first + scan.lengths[run.query + q];
    float sum = 0;
    for (int at = static_cast<int>(first > 0 ? first : 0) + lane; at < min(last, int64_t{BM}); at += 32)
      sum += terms[doc * PITCH + at];
    sum = warp_sum(sum);
    if (lane == 0) run.forth[doc][q] += sum;
  }
}

// A tile on its way to shared memory: the rows of its tokens, then their weights.
template <int THREADS, int WIDTH, int BN>
DEVICE void load_tile(const Scan& scan, uint32_t to, int64_t token, int count) {
  constexpr int PIECES = WIDTH / 16;
  const int8_t* from = scan.docs + token * WIDTH;
#pragma unroll
  for (int i = 0; i < BN * PIECES / THREADS; ++i) {
    const int at = i * THREADS + threadIdx.x, own = at / PIECES;
    if (own < count) copy_async(to + piece_at<WIDTH>(own, at % PIECES), from + 16 * at, true);
  }
#pragma unroll
  for (int i = 0; i < BN; i += THREADS) {
    const int own = i + threadIdx.x;
    if (own < count && own < BN) copy_word(to + BN * WIDTH + 4 * own, scan.weights + token + own);
  }
}

template <int MT, int WARPS, int WIDTH>
DEVICE void scan_whole(const Scan& scan, uint8_t* shared) {
  constexpr int BN = WARPS == 1 ? 32 : 64, BM = 16 * MT * WARPS, PITCH = BM + 1;
  constexpr int CODES = BN * WIDTH, STEP = CODES + 4 * BN;
  __shared__ Run run;
  run.load(scan);
  const int64_t group = blockIdx.x % scan.groups, first = scan.panels[group], last = scan.panels[group + 1];
  const uint32_t base = shared_address(shared);
  float* terms = reinterpret_cast<float*>(shared + STAGES * STEP);
  const int warp = threadIdx.x / 32;
  Walk ahead{static_cast<int>(last - first)};
  const auto fetch = [&](int stage) {
    if (ahead.some(run)) {
      load_tile<32 * WARPS, WIDTH, BN>(scan, base + stage * STEP, ahead.start + ahead.token,
                                       ahead.length - ahead.token);
      ahead.token += BN;
    }
    commit_copies();
  };
  for (int stage = 0; stage < STAGES - 1; ++stage) fetch(stage);
  int now = 0, next = STAGES - 1;
  for (int64_t panel = first; panel < last; ++panel) {
    Panel<MT, WIDTH> own;
    own.load(scan, panel * BM + warp * 16 * MT);
    for (int doc = 0; doc < run.count; ++doc) {
      const int length = run.length[doc];
      own.begin();
      for (int token = 0; token < length; token += BN) {
        await_copies<STAGES - 2>();
        __syncthreads();
        fetch(next);
        const float* weights = reinterpret_cast<const float*>(shared + now * STEP + CODES);
        own.template add<BN>(base + now * STEP, weights, length - token);
        now = later(now);
        next = later(next);
      }
      if (length > 0) own.finish(terms + doc * PITCH + warp * 16 * MT);
    }
    __syncthreads();
    add_terms<BM, PITCH>(scan, run, terms, panel);
    __syncthreads();
  }
  run.append(scan, false);
}

}  // namespace maxsim

MAXSIM(maxsim_16_64, 32, (maxsim::scan_whole<1, 1, 64>))
MAXSIM(maxsim_32_64, 32, (maxsim::scan_whole<2, 1, 64>))
MAXSIM(maxsim_64_64, 32, (maxsim::scan_whole<4, 1, 64>))
MAXSIM(maxsim_128_64, 64, (maxsim::scan_whole<4, 2, 64>))
MAXSIM(maxsim_256_64, 128, (maxsim::scan_whole<4, 4, 64>))
MAXSIM(maxsim_16_128, 32, (maxsim::scan_whole<1, 1, 128>))
MAXSIM(maxsim_32_128, 32, (maxsim::scan_whole<2, 1, 128>))
MAXSIM(maxsim_64_128, 32, (maxsim::scan_whole<4, 1, 128>))
MAXSIM(maxsim_128_128, 64, (maxsim::scan_whole<4, 2, 128>))
MAXSIM(maxsim_256_128, 128, (maxsim::scan_whole<4, 4, 128>))

}  // namespace pyengine::cuda
