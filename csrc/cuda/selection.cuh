// The select of a block of threads: the k-th largest of keys that each thread can tell, without sorting them.
#pragma once

#include "device.cuh"

namespace pyengine::cuda {

constexpr int SELECT_THREADS = 512, SELECT_WARPS = SELECT_THREADS / 32, DIGITS = 256;

struct SelectShared {
  int counts[DIGITS];
  int digit, wanted;            // what the last pass has found
  int before[SELECT_WARPS + 1];  // how many the warps before have kept
};

// Count a digit of each `active` thread: one addition for those of a warp that share it.
DEVICE void count_digit(int* counts, int digit, bool active) {
  const unsigned same = __match_any_sync(WARP, active ? digit : DIGITS);
  if (active && threadIdx.x % 32 == static_cast<unsigned>(__ffs(same)) - 1) atomicAdd(&counts[digit], __popc(same));
}

// By the first warp: the digit of the `wanted`-th largest, and which it is among those that share the digit.
DEVICE void find_digit(SelectShared& shared, int wanted) {
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
DEVICE Key kth_largest(SelectShared& shared, int count, int k, KeyOf key_of) {
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
DEVICE int place_kept(SelectShared& shared, bool keep, int& kept) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const unsigned bits = __ballot_sync(WARP, keep);
  __syncthreads();  // all have read what follows is written over
  if (lane == 0) shared.before[warp + 1] = __popc(bits);
  if (threadIdx.x == 0) shared.before[0] = kept;
  __syncthreads();
  if (threadIdx.x == 0)
    for (int i = 0; i < SELECT_WARPS; ++i) shared.before[i + 1] += shared.before[i];
  __syncthreads();
  kept = shared.before[SELECT_WARPS];
  return shared.before[warp] + __popc(bits & ((1u << lane) - 1));
}

}  // namespace pyengine::cuda
