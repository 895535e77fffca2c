// How many of the documents that a pool lists come before a given one, by their refined scores. The counterpart of
// kernels/dense_rank.py.
#include "device.cuh"

namespace pyengine::cuda {

constexpr int RANK_THREADS = 256;

// Adds to above[q] how many of the first counts[q] of a pool rank before the row targets[q], which has the rank score own[q].
// Rank scores are the scores, negated where `negate`; `order` has the places of rows by id (null: the rows). One block to a
// query.
KERNEL(count_before, RANK_THREADS)(const float* scores, const int32_t* rows, const int32_t* counts, const float* own,
                                   const int32_t* targets, const int32_t* order, int32_t* above, int64_t capacity,
                                   int64_t negate) {
  __shared__ int before;
  const int64_t query = blockIdx.x, start = query * capacity;
  const float rank = own[query];
  const int32_t place = order ? order[targets[query]] : targets[query];
  if (threadIdx.x == 0) before = 0;
  __syncthreads();
  int found = 0;
  for (int at = threadIdx.x; at < counts[query]; at += RANK_THREADS) {
    const float other = negate ? -scores[start + at] : scores[start + at];
    const int32_t row = rows[start + at];
    found += other > rank || (other == rank && (order ? order[row] : row) < place);
  }
  if (found) atomicAdd(&before, found);
  __syncthreads();
  if (threadIdx.x == 0) above[query] += before;
}

}  // namespace pyengine::cuda
