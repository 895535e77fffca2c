// What the blocks of all scans do (maxsim_whole.cuh, maxsim_steps.cuh): the documents of a block, the order in which it
// reads them, and what goes to the pools.
#pragma once

#include "device.cuh"
#include "maxsim.cuh"

#ifdef __CUDACC__
namespace pyengine::cuda {

// 4, 8 or 16 bytes on their way to shared memory.
template <int BYTES>
DEVICE void copy_piece(uint32_t to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(BYTES) : "memory");
}

// sums [16 x 8] = start + a b^T.
DEVICE void multiply_first(int32_t (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, int32_t start) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%10, %10, %10, %10};"
               : "=r"(sums[0]), "=r"(sums[1]), "=r"(sums[2]), "=r"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(start));
}

}  // namespace pyengine::cuda
#endif

namespace pyengine::cuda::maxsim {

constexpr int SLOTS = 16;   // queries of a group at most
constexpr int RUN = 16;     // documents of a block at most
constexpr int STAGES = 3;   // of the ring

struct Scan {
  int32_t* rows;  // the pools
  float *upper, *lower;
  int32_t *counts, *lost;
  const float* threshold;
  const int8_t* queries;                                      // [panels BM, width or more], and what is known of these
  const float *coefficients, *factors;                        // a f, and f, which is NaN where a panel is filled up
  const int32_t *begins, *lengths, *panels, *group_queries;  // [Q], [Q], [groups + 1], [groups + 1]
  const double* query_terms;                                  // [Q, 7]
  const int8_t* docs;                                         // [T, width]: codes, or the words of few bits
  const float *weights, *shares;                              // [T]: w, and b w
  const int64_t* offsets;
  const double *doc_terms, *biases;  // [N, 2 or 4]; biases and mask may be null
  const uint8_t* mask;
  const uint32_t* heads;      // [T], of tokens of few bits (maxsim_packed.cuh)
  const uint8_t* centroids;
  int64_t capacity, mask_stride, n_docs, groups, first, count, stride, run, width, step_bits, scale;
};

// The documents of a block, and the sums of its queries with them.
struct Run {
  int64_t row[RUN], start[RUN];
  int length[RUN];     // of what is read
  unsigned may[RUN];   // the queries of the group that may list it
  float forth[RUN][SLOTS], back[RUN];
  int count, n_queries;
  int64_t query;

  DEVICE void load(const Scan& scan) {
    const int64_t group = blockIdx.x % scan.groups, first = blockIdx.x / scan.groups * scan.run;
    const int i = threadIdx.x;
    if (i == 0) {
      query = scan.group_queries[group];
      n_queries = static_cast<int>(scan.group_queries[group + 1] - query);
      count = static_cast<int>(min(scan.run, scan.count - first));
    }
    __syncthreads();
    if (i < count) take(scan, i, spread_row(scan.first + first + i, scan.stride, scan.n_docs));
    for (int at = i; at < RUN * SLOTS; at += blockDim.x) forth[at / SLOTS][at % SLOTS] = 0;
    if (i < RUN) back[i] = 0;
    __syncthreads();
  }

  DEVICE void take(const Scan& scan, int i, int64_t own) {
    const int64_t tokens = scan.offsets[own + 1] - scan.offsets[own];
    unsigned some = 0;
    bool read = false;
    for (int q = 0; q < n_queries; ++q) {
      const bool asks = scan.lengths[query + q] > 0;  // a query without tokens lists documents without tokens, too
      if ((asks && tokens == 0) || (scan.mask && !allowed(scan.mask, scan.mask_stride, query + q, own))) continue;
      some |= 1u << q;
      read |= asks;
    }
    row[i] = own;
    start[i] = scan.offsets[own];
    length[i] = read ? static_cast<int>(tokens) : 0;
    may[i] = some;
  }

  // After a barrier, by the first so many threads: what may reach its threshold goes to the pools. What finds no room is
  // counted all the same.
  DEVICE void append(const Scan& scan, bool both, int threads) const {
    for (int i = threadIdx.x; i < count * n_queries; i += threads) {
      const int doc = i / n_queries, q = i % n_queries;
      if (!(may[doc] >> q & 1)) continue;
      const int64_t own = query + q;
      const Bounds found = known(pair_bounds(
          scan.query_terms + 7 * own, scan.doc_terms + (both ? 4 : 2) * row[doc], forth[doc][q], back[doc], both,
          scan.lengths[own] > 0, scan.biases ? scan.biases[row[doc]] : 0.0));
      if (!passes(found.upper, scan.threshold[own])) continue;
      const int64_t place = atomicAdd(&scan.counts[own], 1), to = own * scan.capacity + place;
      if (place < scan.capacity) {
        scan.rows[to] = static_cast<int32_t>(row[doc]);
        scan.upper[to] = found.upper;
        scan.lower[to] = found.lower;
      } else {
        atomicMax(&scan.lost[own], ordered(found.upper));
      }
    }
  }
};

// How far a block has read ahead: so many times all its documents, each from its first token on.
struct Walk {
  int times, doc = -1, token = 0, length = 0;
  int64_t start = 0;

  // Whether there is more, which is then at `token` of `length` from `start` on.
  DEVICE bool some(const Run& run) {
    while (token >= length && times > 0) {
      if (++doc == run.count) {
        doc = -1;
        --times;
      } else {
        token = 0;
        length = run.length[doc];
        start = run.start[doc];
      }
    }
    return times > 0;
  }
};

DEVICE float larger_of(float a, int by) { return fmaxf(a, __shfl_xor_sync(WARP, a, by)); }

DEVICE float warp_sum(float own) {
  for (int by = 16; by > 0; by /= 2) own += __shfl_xor_sync(WARP, own, by);
  return own;
}

DEVICE int later(int stage) { return stage == STAGES - 1 ? 0 : stage + 1; }

}  // namespace pyengine::cuda::maxsim

#define MAXSIM_PARAMETERS                                                                                            \
  int32_t *rows, float *upper, float *lower, int32_t *counts, int32_t *lost, const float *threshold,                 \
      const int8_t *queries, const float *coefficients, const float *factors, const int32_t *begins,                 \
      const int32_t *lengths, const int32_t *panels, const int32_t *group_queries, const double *query_terms,        \
      const int8_t *docs, const float *weights, const float *shares, const int64_t *offsets,                         \
      const double *doc_terms, const double *biases, const uint8_t *mask, const uint32_t *heads,                     \
      const uint8_t *centroids, int64_t capacity, int64_t mask_stride, int64_t n_docs, int64_t groups,               \
      int64_t first, int64_t count, int64_t stride, int64_t run, int64_t width, int64_t step_bits, int64_t scale

#define MAXSIM_SCAN                                                                                                  \
  maxsim::Scan {                                                                                                     \
    rows, upper, lower, counts, lost, threshold, queries, coefficients, factors, begins, lengths, panels,            \
        group_queries, query_terms, docs, weights, shares, offsets, doc_terms, biases, mask, heads, centroids,       \
        capacity, mask_stride, n_docs, groups, first, count, stride, run, width, step_bits, scale                    \
  }

#define MAXSIM(name, threads, body)                                                                                  \
  KERNEL(name, threads)(MAXSIM_PARAMETERS) {                                                                         \
    DYNAMIC_SHARED(shared);                                                                                          \
    body(MAXSIM_SCAN, shared);                                                                                       \
  }
