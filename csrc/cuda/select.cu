// Selection without a heap, one block to a query: thresholds that tighten, and the exact select at the end. What the pools
// are and why nothing is lost: kernels/selection.py, of which these are the counterparts.
#include "selection.cuh"

namespace pyengine::cuda {
namespace {

// Of the first `count` places of a pool those that are to `keep`, in their order: how many.
template <class Keep>
DEVICE int compacted(SelectShared& shared, int32_t* rows, float* upper, float* lower, int count, Keep keep_of) {
  int kept = 0;
  for (int at = 0; at < count; at += SELECT_THREADS) {
    const int place = at + threadIdx.x;
    const bool held = place < count;
    const float high = held ? upper[place] : 0.0f, low = held ? lower[place] : 0.0f;
    const int32_t row = held ? rows[place] : 0;
    const bool keep = held && keep_of(high, low, row);
    const int to = place_kept(shared, keep, kept);  // after a barrier: others have read what is written over
    if (keep) {
      upper[to] = high;
      lower[to] = low;
      rows[to] = row;
    }
  }
  return kept;
}

}  // namespace

// Raise each threshold to the k-th largest lower bound, and keep only what may reach it.
KERNEL(tighten, SELECT_THREADS)(int32_t* rows, float* upper, float* lower, int32_t* counts, float* threshold,
                         const float* centre, int64_t capacity, int64_t k) {
  __shared__ SelectShared shared;
  const int64_t query = blockIdx.x, start = query * capacity;
  const int count = static_cast<int>(min(static_cast<int64_t>(counts[query]), capacity));
  int kept = count;
  if (count >= k) {
    const auto key_of = [&](int place) { return digits_of(ordered(lower[start + place])); };
    const uint32_t kth = kth_largest<uint32_t>(shared, count, static_cast<int>(k), key_of);
    const float raised = reach(unordered(static_cast<int32_t>(kth ^ 0x80000000u)), centre[query]);
    const float least = fmaxf(threshold[query], raised);
    const auto keep = [&](float high, float, int32_t) { return high >= least; };
    kept = compacted(shared, rows + start, upper + start, lower + start, count, keep);
    if (threadIdx.x == 0) threshold[query] = least;
  }
  __syncthreads();
  if (threadIdx.x == 0) counts[query] = kept;
}

// The same of scores that are known, where of equal ones the first rows come first: the k best stay, and the last of them
// is the threshold.
KERNEL(tighten_ties, SELECT_THREADS)(int32_t* rows, float* upper, float* lower, int32_t* counts, float* threshold,
                              int32_t* last, int64_t capacity, int64_t k) {
  __shared__ SelectShared shared;
  const int64_t query = blockIdx.x, start = query * capacity;
  const int count = static_cast<int>(min(static_cast<int64_t>(counts[query]), capacity));
  int kept = count;
  if (count >= k) {
    const auto key_of = [&](int place) { return digits_of(ranking_key(lower[start + place], rows[start + place])); };
    const uint64_t kth = kth_largest<uint64_t>(shared, count, static_cast<int>(k), key_of);
    const auto keep = [&](float, float low, int32_t row) { return digits_of(ranking_key(low, row)) >= kth; };
    kept = compacted(shared, rows + start, upper + start, lower + start, count, keep);
    const int64_t key = static_cast<int64_t>(kth ^ (uint64_t{1} << 63));
    if (threadIdx.x == 0) {
      threshold[query] = unordered(static_cast<int32_t>(key >> 32));
      last[query] = 0x7FFFFFFF - static_cast<int32_t>(key & 0x7FFFFFFF);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) counts[query] = kept;
}

// What pools hold, one after another: of each the first counts[q] places, from starts[q] on.
KERNEL(pack_pools, SELECT_THREADS)(const int32_t* rows, const float* upper, const float* lower, const int32_t* counts,
                        const int64_t* starts, int32_t* packed_rows, float* packed_upper, float* packed_lower,
                        int64_t capacity) {
  const int64_t query = blockIdx.x, from = query * capacity, to = starts[query];
  for (int place = threadIdx.x; place < counts[query]; place += SELECT_THREADS) {
    packed_rows[to + place] = rows[from + place];
    packed_upper[to + place] = upper[from + place];
    packed_lower[to + place] = lower[from + place];
  }
}

// The keys of the k best of each query, in any order, then `PAD`: by score (falling; rising where `negate`), then by the
// place of the row in `order` (null: the row itself).
KERNEL(select_best, SELECT_THREADS)(const float* scores, const int32_t* rows, const int32_t* counts, int64_t* best,
                        const int32_t* order, int64_t capacity, int64_t k, int64_t negate) {
  __shared__ SelectShared shared;
  const int64_t query = blockIdx.x, start = query * capacity;
  const int count = static_cast<int>(min(static_cast<int64_t>(counts[query]), capacity));
  const auto key_of = [&](int place) {
    const float score = scores[start + place];
    const int32_t row = rows[start + place];
    return digits_of(ranking_key(negate ? -score : score, order ? order[row] : row));
  };
  uint64_t least = 0;
  if (count > k) least = kth_largest<uint64_t>(shared, count, static_cast<int>(k), key_of);
  int taken = 0;
  for (int at = 0; at < count; at += SELECT_THREADS) {
    const int place = at + threadIdx.x;
    const uint64_t key = place < count ? key_of(place) : 0;
    const bool keep = place < count && key >= least;
    const int to = place_kept(shared, keep, taken);
    if (keep) best[query * k + to] = static_cast<int64_t>(key ^ (uint64_t{1} << 63));
  }
  for (int64_t to = taken + threadIdx.x; to < k; to += SELECT_THREADS) best[query * k + to] = PAD;
}

}  // namespace pyengine::cuda
