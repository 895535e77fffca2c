// The scan of tokens of at most 128 dimensions, whatever they are kept as (maxsim.cu, maxsim_packed.cu): query tokens stay
// in registers while the tokens of a run of documents pass through shared memory.
//
// A block takes a run of documents and a group of queries (kernels/maxsim_plan.py: panels of BM tokens). Query tokens
// are the rows of `mma`: their codes stay in registers (16 registers for 16 tokens of 128 bytes), a maximum takes two
// registers for each 16 tokens, and lanes exchange maxima once a document. Documents come by `cp.async`, in tiles with
// what is known of their tokens, into a ring of 3 stages that runs on from document to document and from panel to panel;
// a document is neither padded nor gathered, and one that a mask forbids is not read.
#pragma once

#include "maxsim_run.cuh"

namespace pyengine::cuda::maxsim {

DEVICE uint32_t word(const int8_t* at) { return *reinterpret_cast<const uint32_t*>(at); }

// 16 MT query tokens of one warp, of WIDTH bytes, in registers, and the largest of their products with a document's
// tokens.
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

  DEVICE void take(int m, int half, float product) { best[m][half] = fmaxf(best[m][half], product); }

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

// The values of a tile's tokens from that one on, 4 bytes each, on their way to shared memory.
template <int THREADS, int BN, class T>
DEVICE void copy_values(uint32_t to, const T* from, int count) {
  static_assert(sizeof(T) == 4);
#pragma unroll
  for (int i = 0; i < BN; i += THREADS) {
    const int own = i + threadIdx.x;
    if (own < count && own < BN) copy_piece<4>(to + 4 * own, from + own);
  }
}

// A Form is what tokens are kept as: tiles of BN, which take TILE bytes of a stage, and ROWS query tokens of a warp.
template <class Form, int WARPS>
DEVICE void scan_whole(const Scan& scan, uint8_t* shared) {
  constexpr int BM = Form::ROWS * WARPS, PITCH = BM + 1;
  __shared__ Run run;
  run.load(scan);
  const int64_t group = blockIdx.x % scan.groups, first = scan.panels[group], last = scan.panels[group + 1];
  const uint32_t base = shared_address(shared);
  float* terms = reinterpret_cast<float*>(shared + STAGES * Form::TILE);
  const int warp = threadIdx.x / 32;
  Walk ahead{static_cast<int>(last - first)};
  const auto fetch = [&](int stage) {
    if (ahead.some(run)) {
      Form::template load_tile<32 * WARPS>(scan, base + stage * Form::TILE, ahead.start + ahead.token,
                                           ahead.length - ahead.token);
      ahead.token += Form::BN;
    }
    commit_copies();
  };
  for (int stage = 0; stage < STAGES - 1; ++stage) fetch(stage);
  int now = 0, next = STAGES - 1;
  for (int64_t panel = first; panel < last; ++panel) {
    Form own;
    own.load(scan, panel * BM + warp * Form::ROWS);
    for (int doc = 0; doc < run.count; ++doc) {
      const int length = run.length[doc];
      own.begin();
      for (int token = 0; token < length; token += Form::BN) {
        await_copies<STAGES - 2>();
        __syncthreads();
        fetch(next);
        own.add(scan, shared, now * Form::TILE, length - token);
        now = later(now);
        next = later(next);
      }
      if (length > 0) own.finish(terms + doc * PITCH + warp * Form::ROWS);
    }
    __syncthreads();
    add_terms<BM, PITCH>(scan, run, terms, panel);
    __syncthreads();
  }
  run.append(scan, false, 32 * WARPS);
}

}  // namespace pyengine::cuda::maxsim
