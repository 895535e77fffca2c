// Selection without a heap, one block to a query: thresholds that tighten, and the exact select at the end. What the pools
// are and why nothing is lost: kernels/selection.py, of which these are the counterparts.
#include "device.cuh"

namespace pyengine::cuda {
namespace {

constexpr int SELECT_THREADS = 512, WARPS = SELECT_THREADS / 32, DIGITS = 256;

struct Shared {
  int counts[DIGITS];
  int digit, wanted;     // what the last pass has found
  int before[WARPS + 1]; // how many the warps before have kept
};

// Count a digit of each `active` thread: one addition for those of a warp that share it.
DEVICE void count_digit(int* counts, int digit, bool active) {
  const unsigned same = __match_any_sync(WARP, active ? digit : DIGITS);
  if (active && threadIdx.x % 32 == static_cast<unsigned>(__ffs(same)) - 1) atomicAdd(&counts[digit], __popc(same));
}

// By the first warp: the digit of the `wanted`-th largest, and which it is among those that share the digit.
DEVICE void find_digit(Shared& shared, int wanted) {
  const int lane = threadIdx.x, first = DIGITS - 1 - 8 * lane;  // eight digits each, the largest first
  int own = 0;
  for (int i = 0; i < 8; ++i) own += shared.counts[first - i];
  int larger = own;
  for (int by = 1; by < 32; by *= 2) {
    const int other = __shfl_up_sync(WARP, larger, by);
    if (lane >= by) larger += other;
  }
  larger -= own;
  for (int i = 0; i < 8; ++i) {
    const int here = shared.counts[first - i];
    if (larger < wanted && wanted <= larger + here) {
      shared.digit = first - i;
      shared.wanted = wanted - larger;
    }
    larger += here;
  }
}

// The k-th largest of the unsigned keys of `count` places, k <= count.
template <class Key, class KeyOf>
DEVICE Key kth_largest(Shared& shared, int count, int k, KeyOf key_of) {
  Key prefix = 0;
  for (int shift = 8 * sizeof(Key) - 8; shift >= 0; shift -= 8) {
    __syncthreads();
    if (threadIdx.x < DIGITS) shared.counts[threadIdx.x] = 0;
    __syncthreads();
    for (int at = 0; at < count; at += SELECT_THREADS) {
      const int place = at + threadIdx.x;
      const Key key = place < count ? key_of(place) : 0;
      const bool alike = place < count && (shift + 8 == 8 * sizeof(Key) || key >> (shift + 8) == prefix);
      count_digit(shared.counts, static_cast<int>(key >> shift & 0xFF), alike);
    }
    __syncthreads();
    if (threadIdx.x < 32) find_digit(shared, k);
    __syncthreads();
    prefix = prefix << 8 | static_cast<Key>(shared.digit);
    k = shared.wanted;
  }
  return prefix;
}

// The place of each thread that `keep`s among those of the block, from `kept` on, to which their number is added.
DEVICE int place_kept(Shared& shared, bool keep, int& kept) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const unsigned bits = __ballot_sync(WARP, keep);
  __syncthreads();  // all have read what follows is written over
  if (lane == 0) shared.before[warp + 1] = __popc(bits);
  if (threadIdx.x == 0) shared.before[0] = kept;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int i = 0; i < WARPS; ++i) shared.before[i + 1] += shared.before[i];
  __syncthreads();
  kept = shared.before[WARPS];
  return shared.before[warp] + __popc(bits & ((1u << lane) - 1));
}

}  // namespace

// Raise each threshold to the k-th largest lower bound, and keep only what may reach it.
KERNEL(tighten, SELECT_THREADS)(int32_t* rows, float* upper, float* lower, int32_t* counts, float* threshold,
                         const float* centre, int64_t capacity, int64_t k) {
  __shared__ Shared shared;
  const int64_t query = blockIdx.x, start = query * capacity;
  const int count = static_cast<int>(min(static_cast<int64_t>(counts[query]), capacity));
  int kept = count;
  if (count >= k) {
    const auto key_of = [&](int place) { return digits_of(ordered(lower[start + place])); };
    const uint32_t kth = kth_largest<uint32_t>(shared, count, static_cast<int>(k), key_of);
    const float raised = reach(unordered(static_cast<int32_t>(kth ^ 0x80000000u)), centre[query]);
    const float least = fmaxf(threshold[query], raised);
    kept = 0;
    for (int at = 0; at < count; at += SELECT_THREADS) {
      const int place = at + threadIdx.x;
      const bool held = place < count;
      const float high = held ? upper[start + place] : 0.0f, low = held ? lower[start + place] : 0.0f;
      const int32_t row = held ? rows[start + place] : 0;
      const bool keep = held && high >= least;
      const int to = place_kept(shared, keep, kept);  // after a barrier: others have read what is written over
      if (keep) {
        upper[start + to] = high;
        lower[start + to] = low;
        rows[start + to] = row;
      }
    }
    if (threadIdx.x == 0) threshold[query] = least;
  }
  __syncthreads();
  if (threadIdx.x == 0) counts[query] = kept;
}

// The keys of the k best of each query, in any order, then `PAD`: by score (falling; rising where `negate`), then by the
// place of the row in `order` (null: the row itself).
KERNEL(select_best, SELECT_THREADS)(const float* scores, const int32_t* rows, const int32_t* counts, int64_t* best,
                        const int32_t* order, int64_t capacity, int64_t k, int64_t negate) {
  __shared__ Shared shared;
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
