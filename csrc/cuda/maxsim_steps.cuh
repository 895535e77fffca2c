// The scan of tokens of more than 128 dimensions, or summed over both sides, whatever they are kept as (maxsim_steps.cu,
// maxsim_packed_steps.cu): each warp takes tiles of 32 x 32 tokens whose operands both come by the ring, in steps of 128
// bytes of the query's. All panels of a query meet a tile before the next, so that the maxima of the document's tokens are
// whole when it ends; those of the query's lie in shared memory, 4 bytes a token.
#pragma once

#include "maxsim_run.cuh"

namespace pyengine::cuda::maxsim {

constexpr int TOKENS = 32;  // of a document, in a tile
constexpr int DEPTH = 128;  // bytes of a row in a step

// 32 query tokens of a warp as an operand: 32 bytes of each, from that piece of 16 bytes on.
DEVICE void load_queries(uint32_t (&a)[2][4], uint32_t base, int piece) {
  const int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 32 + lane / 8 % 2 * 8 + lane % 8;
#pragma unroll
  for (int m = 0; m < 2; ++m) load_matrices(a[m], base + piece_at<DEPTH>(own + 16 * m, piece + lane / 16));
}

// The products of 32 query tokens of a warp and a tile.
template <Kind KIND>
struct Products {
  SumOf<KIND> sums[2][4][4];

  // The largest product of each query token goes to `best`, that of each of the eight document tokens of this thread to
  // `columns`.
  template <bool SYMMETRIC>
  DEVICE void largest(const float (&weights)[8], const float* factors, float* best, float (&columns)[8]) const {
    const int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 32 + lane / 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int m = i / 2, half = i % 2, token = own + 16 * m + 8 * half;
      const float factor = SYMMETRIC ? factors[token] : 0.0f;
      float most = -INFINITY;
#pragma unroll
      for (int column = 0; column < 8; ++column) {
        const float product = static_cast<float>(sums[m][column / 2][2 * half + column % 2]);
        most = fmaxf(most, product * weights[column]);
        if (SYMMETRIC) columns[column] = fmaxf(columns[column], product * factor);
      }
      most = larger_of(larger_of(most, 1), 2);
      if (lane % 4 == 0) best[token] = fmaxf(best[token], most);
    }
  }
};

// A step of a panel of BM query tokens, whose rows have so many bytes.
template <int BM>
DEVICE void load_query_step(const Scan& scan, uint32_t base, int64_t query, int64_t bytes, int64_t depth) {
  constexpr int PIECES = DEPTH / 16;
  for (int i = threadIdx.x; i < BM * PIECES; i += blockDim.x) {
    const int own = i / PIECES, number = i % PIECES;
    const int64_t at = depth + number * 16;
    const int8_t* row = scan.queries + (query + own) * bytes;
    copy_async(base + piece_at<DEPTH>(own, number), row + (at < bytes ? at : 0), at < bytes);
  }
}

// sum_j b_j max_i f_i <c_i, c_j> over a tile, from what the warps have found: of one document token for each thread.
template <int WARPS>
DEVICE float add_columns(float (&columns)[8], const float* shares, int count) {
  __shared__ float found[WARPS][TOKENS];
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float most = larger_of(larger_of(larger_of(columns[i], 4), 8), 16);
    if (lane < 4) found[threadIdx.x / 32][i / 2 * 8 + lane * 2 + i % 2] = most;
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) >= min(count, TOKENS)) return 0;
  float most = found[0][threadIdx.x];
  for (int warp = 1; warp < WARPS; ++warp) most = fmaxf(most, found[warp][threadIdx.x]);
  return shares[threadIdx.x] * most;
}

// A Form is what documents are kept as: their part of a step takes STEP bytes, before that of the queries.
template <class Form, int WARPS, bool SYMMETRIC>
DEVICE void scan_steps(const Scan& scan, uint8_t* shared) {
  constexpr int BM = 32 * WARPS, STEP = Form::STEP + BM * DEPTH;
  __shared__ Run run;
  run.load(scan);
  const int64_t group = blockIdx.x % scan.groups, first = scan.panels[group] * BM;
  const int panels = static_cast<int>(scan.panels[group + 1] - scan.panels[group]);
  const int64_t bytes = Form::query_bytes(scan.width);
  const int steps = static_cast<int>((bytes + DEPTH - 1) / DEPTH), lane = threadIdx.x % 32;
  const uint32_t base = shared_address(shared);
  float* best = reinterpret_cast<float*>(shared + STAGES * STEP);  // [panels * BM]
  Walk ahead{1};
  int ahead_panel = 0, ahead_step = 0;
  const auto fetch = [&](int stage) {
    if (ahead.some(run)) {
      Form::load_step(scan, base + stage * STEP, ahead.start + ahead.token, ahead.length - ahead.token, ahead_step);
      load_query_step<BM>(scan, base + stage * STEP + Form::STEP, first + ahead_panel * BM, bytes,
                          int64_t{ahead_step} * DEPTH);
      if (++ahead_step == steps) {
        ahead_step = 0;
        if (++ahead_panel == panels) {
          ahead_panel = 0;
          ahead.token += TOKENS;
        }
      }
    }
    commit_copies();
  };
  for (int stage = 0; stage < STAGES - 1; ++stage) fetch(stage);
  int now = 0, next = STAGES - 1;
  for (int doc = 0; doc < run.count; ++doc) {
    const int length = run.length[doc];
    if (length == 0) continue;
    for (int i = threadIdx.x; i < panels * BM; i += 32 * WARPS) best[i] = -INFINITY;
    float back = 0;
    for (int token = 0; token < length; token += TOKENS) {
      const int64_t here = run.start[doc] + token;
      float weights[8], columns[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int own = i / 2 * 8 + lane % 4 * 2 + i % 2;
        weights[i] = own < length - token ? scan.weights[here + own] : NAN;
        columns[i] = -INFINITY;
      }
      Form tile;
      tile.begin(scan, here, length - token);
      for (int panel = 0; panel < panels; ++panel) {
        Products<Form::KIND> products{};
        for (int step = 0; step < steps; ++step) {
          await_copies<STAGES - 2>();
          __syncthreads();
          fetch(next);
          tile.add(products, scan, shared, now * STEP, step);
          now = later(now);
          next = later(next);
        }
        products.template largest<SYMMETRIC>(weights, scan.factors + first + panel * BM, best + panel * BM, columns);
      }
      if (SYMMETRIC) back += add_columns<WARPS>(columns, scan.shares + here, length - token);
    }
    __syncthreads();
    for (int q = threadIdx.x / 32; q < run.n_queries; q += WARPS) {
      const int64_t begin = scan.begins[run.query + q];
      float sum = 0;
      for (int i = lane; i < scan.lengths[run.query + q]; i += 32)
        sum += scan.coefficients[begin + i] * best[begin - first + i];
      sum = warp_sum(sum);
      if (lane == 0) run.forth[doc][q] = sum;
    }
    if (SYMMETRIC && threadIdx.x < 32) {
      back = warp_sum(back);
      if (lane == 0) run.back[doc] = back;
    }
    __syncthreads();
  }
  run.append(scan, SYMMETRIC, 32 * WARPS);
}

}  // namespace pyengine::cuda::maxsim
