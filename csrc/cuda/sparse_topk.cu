// Sparse top-k: sums over postings, in shared memory, of a window of documents for a query; compare with a threshold
// and append what may pass.
//
// A block of threads owns one query and one window of 2^14 documents, whose sums are int32 in 64 KB of shared memory:
// three blocks share a multiprocessor of 227 KB (two of 163), so that one adds while another clears its sums or reads
// them. No array of all documents is ever made for a query. Additions of integers are atomic, come in any order with
// one result, and stay below 2^31 (pyengine/backends/shared/window_queries.py).
//
// A posting is a word of 4 bytes, read 16 at a time: a shift, a product, a mask and one atomic addition. Windows come
// in order, and all queries of a batch go over one before the next: what is read of a window, some 8 MB where documents
// have 120 terms, stays in the L2 cache, and comes from memory once for the whole batch. Within a run of 128 postings
// lane l reads those numbered l, l + 32, l + 64 and l + 96, so that in lists that nearly all documents are in
// neighbouring lanes add at neighbouring places, in banks of their own.
//
// 8.8 million documents of 120 terms, 500 queries whose lists have 7 million postings each: 4.2 GB from memory, 14 GB
// from the L2 cache; 3.5e9 additions, 2 ms if lanes at random banks leave 8 of 32 a cycle and multiprocessor (132 at
// 1.7 GHz); and 269,000 windows cleared and read, 128 KB each at 128 bytes a cycle, 1.2 ms. So shared memory should be
// the floor, a hundredth of a millisecond a query, and reading, with it the width of a weight, is not. Sums of 16 bits,
// for a window twice as large, would halve the second part and take two more operations for each posting. A product of
// the most frequent terms on tensor cores would write and read 2 bytes for each query and document: 18 GB, more than
// the postings that it saves.
#include "selection.cuh"
#include "sparse_terms.cuh"

namespace pyengine::cuda {
namespace {

constexpr int SUM_THREADS = SELECT_THREADS, SUM_WARPS = SUM_THREADS / 32;
constexpr int BLOCKS = 3;  // of a multiprocessor, by their shared memory: 42 registers a thread
constexpr int ROUNDS = WINDOW / SUM_THREADS;  // documents of a thread, a bit each of a word
constexpr int TERMS = 256;                    // of a query, looked up together
static_assert(ROUNDS == 32);

struct SparseScan {
  const int4* postings;
  const int32_t* segments;   // [3, S]: window, first four postings, and how many fours
  const int64_t *offsets, *first_segment;  // [Q + 1], and [M] of the terms of the queries
  const int32_t *held, *factors;           // [M]: the segments of each, and what a level counts
  const float *slack, *inverse, *bias;     // [Q], [Q] and [N]; null: no bias
  const uint8_t* mask;                     // null: everything is allowed
  const float* threshold;
  const int32_t* last;                     // [Q]: what ties with the threshold must come before this row; null: all may
  int32_t* rows;
  float *upper, *lower;
  int32_t *counts, *lost;
  int64_t capacity, n_docs, n_queries, n_segments, n_windows, mask_stride, stride, skip, k, most;
};

struct Piece { uint32_t start; int32_t fours, factor; };  // of the postings of a term, those of a window

// Segments of a term are in the order of their windows.
DEVICE Piece piece_of(const SparseScan& scan, int64_t term, int window) {
  const int32_t* windows = scan.segments + scan.first_segment[term];
  const int count = scan.held[term];
  int low = window;  // where every window has one
  if (count < scan.n_windows) {
    low = 0;
    for (int high = count; low < high;) {
      const int middle = (low + high) / 2;
      if (windows[middle] < window) low = middle + 1;
      else high = middle;
    }
    if (low == count || windows[low] != window) return {0, 0, 0};
  }
  const int32_t* found = windows + low;
  return {static_cast<uint32_t>(found[scan.n_segments]), found[2 * scan.n_segments], scan.factors[term]};
}

// The sums of a window, and for signed weights a bit for each document that shares a term.
template <bool SIGNED>
struct WindowSums {
  int32_t* sums;
  uint32_t* touched;

  DEVICE explicit WindowSums(uint8_t* shared)
      : sums(reinterpret_cast<int32_t*>(shared)), touched(reinterpret_cast<uint32_t*>(sums + WINDOW)) {}

  DEVICE void clear() {
    for (int i = threadIdx.x; i < WINDOW / 4; i += SUM_THREADS) reinterpret_cast<int4*>(sums)[i] = int4{0, 0, 0, 0};
    if (SIGNED)
      for (int i = threadIdx.x; i < WINDOW / 32; i += SUM_THREADS) touched[i] = 0;
  }

  DEVICE void add(uint32_t posting, int32_t factor) {
    const int32_t level = level_of(posting), doc = static_cast<int32_t>(offset_of(posting) / 4);
    atomicAdd(&sums[doc], level * factor);
    if (SIGNED && level != 0) atomicOr(&touched[doc / 32], 1u << (doc % 32));
  }

  // Warps take runs of 128 postings in turn, from one piece to the next.
  DEVICE void add(const int4* postings, const Piece* pieces, int count) {
    const int lane = threadIdx.x % 32;
    int turn = threadIdx.x / 32;
    for (int i = 0; i < count; ++i) {
      const Piece piece = pieces[i];
      const int runs = (piece.fours + 31) / 32;
#pragma unroll 1
      for (; turn < runs; turn += SUM_WARPS) {
        const int at = 32 * turn + lane;
        if (at >= piece.fours) continue;
        const int4 own = postings[int64_t{piece.start} + at];
        add(static_cast<uint32_t>(own.x), piece.factor);
        add(static_cast<uint32_t>(own.y), piece.factor);
        add(static_cast<uint32_t>(own.z), piece.factor);
        add(static_cast<uint32_t>(own.w), piece.factor);
      }
      turn -= runs;
    }
  }

  DEVICE bool shares(int doc) const { return SIGNED ? touched[doc / 32] >> (doc % 32) & 1 : sums[doc] != 0; }
};

DEVICE bool anyone_may(const SparseScan& scan, int64_t query, int64_t base, int count) {
  if (!scan.mask) return true;
  bool some = false;
  for (int i = threadIdx.x; i < (count + 7) / 8; i += SUM_THREADS)
    some |= scan.mask[query * scan.mask_stride + base / 8 + i] != 0;
  return __syncthreads_or(some);
}

// The window of a query as it is judged: which documents may be among the k best.
template <bool SIGNED>
struct Judged {
  const SparseScan& scan;
  const WindowSums<SIGNED>& window;
  int64_t query, base;
  float slack, inverse, threshold;
  int32_t last;

  DEVICE Bounds of(int doc) const {
    return sum_bounds(window.sums[doc], slack, scan.bias ? scan.bias[base + doc] * inverse : 0.0f);
  }

  // Without a bias what shares no term scores 0, and is not listed.
  DEVICE bool keeps(int doc, int32_t least) const {
    if (!scan.bias && (window.sums[doc] < least || !window.shares(doc))) return false;
    if (scan.mask && !allowed(scan.mask, scan.mask_stride, query, base + doc)) return false;
    const float upper = of(doc).upper;
    return passes(upper, threshold) && !(upper == threshold && base + doc > last);
  }

  // A bit for each document of this thread.
  DEVICE uint32_t kept(int count) const {
    const int32_t least = least_sum(threshold, slack);
    uint32_t bits = 0;
    for (int i = 0; i < ROUNDS; ++i) {
      const int doc = i * SUM_THREADS + static_cast<int>(threadIdx.x);
      if (doc < count && keeps(doc, least)) bits |= 1u << i;
    }
    return bits;
  }

  // Those that k others of this window leave a chance: either these are listed, so that the threshold rises as far, or
  // what found no room bounds what is left out here.
  DEVICE uint32_t thinned(uint32_t bits, SelectShared& shared) const {
    const int k = static_cast<int>(scan.k);
    if (scan.last) {
      const auto key_of = [&](int doc) {
        return digits_of(ranking_key(of(doc).lower, static_cast<int32_t>(base + doc)));
      };
      const uint64_t kth = kth_largest<uint64_t>(
          shared, WINDOW, k, [&](int doc) { return bits >> (doc / SUM_THREADS) & 1 ? key_of(doc) : uint64_t{0}; });
      return those(bits, [&](int doc) { return key_of(doc) >= kth; });
    }
    const uint32_t kth = kth_largest<uint32_t>(shared, WINDOW, k, [&](int doc) {
      return bits >> (doc / SUM_THREADS) & 1 ? digits_of(ordered(known(of(doc)).lower)) : 0u;
    });
    const float least = reach(unordered(static_cast<int32_t>(kth ^ 0x80000000u)), 0.0f);
    return those(bits, [&](int doc) { return passes(of(doc).upper, least); });
  }

  template <class Keep>
  DEVICE uint32_t those(uint32_t bits, Keep keep) const {
    uint32_t left = 0;
    for (int i = 0; i < ROUNDS; ++i)
      if (bits >> i & 1 && keep(i * SUM_THREADS + static_cast<int>(threadIdx.x))) left |= 1u << i;
    return left;
  }
};

// Adds the number of each thread to `total`, which begins as 0: how many come before it.
DEVICE int counted(int own, int& total) {
  __syncthreads();
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  const int before = own ? atomicAdd(&total, own) : 0;
  __syncthreads();
  return before;
}

template <bool SIGNED>
DEVICE void append(const Judged<SIGNED>& judged, uint32_t bits, int before, int total) {
  __shared__ int start, beyond;
  const SparseScan& scan = judged.scan;
  if (threadIdx.x == 0) {
    start = atomicAdd(&scan.counts[judged.query], total);
    beyond = LEAST;
  }
  __syncthreads();
  for (; bits; bits &= bits - 1, ++before) {
    const int doc = (__ffs(bits) - 1) * SUM_THREADS + static_cast<int>(threadIdx.x);
    const Bounds found = known(judged.of(doc));
    const int64_t place = int64_t{start} + before, to = judged.query * scan.capacity + place;
    if (place < scan.capacity) {
      scan.rows[to] = static_cast<int32_t>(judged.base + doc);
      scan.upper[to] = found.upper;
      scan.lower[to] = found.lower;
    } else {
      atomicMax(&beyond, ordered(found.upper));
    }
  }
  __syncthreads();
  if (threadIdx.x == 0 && beyond != LEAST) atomicMax(&scan.lost[judged.query], beyond);
}

template <bool SIGNED>
DEVICE void sum_terms(const SparseScan& scan, WindowSums<SIGNED>& window, int64_t query, int number) {
  __shared__ Piece pieces[TERMS];
  const int64_t last = scan.offsets[query + 1];
  window.clear();
  for (int64_t first = scan.offsets[query]; first < last; first += TERMS) {
    const int count = static_cast<int>(min(last - first, int64_t{TERMS}));
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < count) pieces[threadIdx.x] = piece_of(scan, first + threadIdx.x, number);
    __syncthreads();
    window.add(scan.postings, pieces, count);
  }
  __syncthreads();
}

// Windows come in parts of a scan: kernels/sparse_plan.py, `levels`.
template <bool SIGNED>
DEVICE void scan_window(const SparseScan& scan, uint8_t* shared) {
  __shared__ SelectShared select;
  __shared__ int total;
  const int64_t query = blockIdx.x % scan.n_queries, part = blockIdx.x / scan.n_queries;
  const int64_t number = scan.stride * (part + scan.skip * (part / 3 + 1)), base = number * WINDOW;
  const int count = static_cast<int>(min(scan.n_docs - base, int64_t{WINDOW}));
  if (!scan.bias && scan.offsets[query] == scan.offsets[query + 1]) return;
  if (!anyone_may(scan, query, base, count)) return;
  WindowSums<SIGNED> window(shared);
  sum_terms(scan, window, query, static_cast<int>(number));

  const float slack = scan.slack[query], inverse = scan.inverse[query], threshold = scan.threshold[query];
  const int32_t last = scan.last ? scan.last[query] : INT32_MAX;
  const Judged<SIGNED> judged{scan, window, query, base, slack, inverse, threshold, last};
  uint32_t bits = judged.kept(count);
  int before = counted(__popc(bits), total);
  if (total > scan.most) {
    bits = judged.thinned(bits, select);
    before = counted(__popc(bits), total);
  }
  if (total > 0) append(judged, bits, before, total);
}

}  // namespace

#define SPARSE(name, SIGNED)                                                                                           \
  KERNEL(name, SUM_THREADS, BLOCKS)(                                                                                   \
      const int4* postings, const int32_t* segments, const int64_t* offsets, const int64_t* first_segment,             \
      const int32_t* held, const int32_t* factors, const float* slack, const float* inverse, const float* bias,        \
      const uint8_t* mask, const float* threshold, const int32_t* last, int32_t* rows, float* upper, float* lower,     \
      int32_t* counts, int32_t* lost, int64_t capacity, int64_t n_docs, int64_t n_queries, int64_t n_segments,         \
      int64_t n_windows, int64_t mask_stride, int64_t stride, int64_t skip, int64_t k, int64_t most) {                 \
    DYNAMIC_SHARED(shared);                                                                                            \
    scan_window<SIGNED>(SparseScan{postings, segments, offsets, first_segment, held, factors, slack, inverse, bias,    \
                                   mask, threshold, last, rows, upper, lower, counts, lost, capacity, n_docs,          \
                                   n_queries, n_segments, n_windows, mask_stride, stride, skip, k, most}, shared);     \
  }

SPARSE(sparse_topk, false)
SPARSE(sparse_topk_signed, true)

}  // namespace pyengine::cuda
