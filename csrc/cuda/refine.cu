// Scores of listed pairs in float64, by the specification and to the bit (pyengine/specification/reference.py). Eight threads to a pair,
// one for each lane; addition commutes, so that all of them arrive at the same sum of lanes.
#include "device.cuh"

namespace pyengine::cuda {
namespace {

constexpr int REFINE_THREADS = 256, PAIRS = REFINE_THREADS / 8;

DEVICE double lane_sum(double lane) {
  lane += __shfl_xor_sync(WARP, lane, 1);
  lane += __shfl_xor_sync(WARP, lane, 2);
  return lane + __shfl_xor_sync(WARP, lane, 4);
}

template <class T>
DEVICE float value_at(const T* row, int64_t i) { return value_of(row[i]); }

struct Signs { uint8_t eight; };  // bits of eight dimensions, of which the first is the lowest

DEVICE float value_at(const Signs* row, int64_t i) { return row[i / 8].eight >> i % 8 & 1 ? 1.0f : -1.0f; }

// `scores` and `rows` have the entries starts[q] .. starts[q] + counts[q] of each query q. `step` and `bias` may be null.
template <class T>
DEVICE void refine(const float* queries, const T* docs, const float* step, const double* bias, const int32_t* rows,
                   const int64_t* starts, const int32_t* counts, float* scores, int64_t query_stride,
                   int64_t doc_stride, int64_t dims, int64_t metric) {
  const int64_t query = blockIdx.x, start = starts[query], count = counts[query];
  const int lane = threadIdx.x % 8;
  const float* own = queries + query * query_stride;
  for (int64_t first = int64_t{blockIdx.y} * PAIRS; first < count; first += int64_t{gridDim.y} * PAIRS) {
    const int64_t pair = first + threadIdx.x / 8;
    const bool held = pair < count;
    const int64_t row = held ? rows[start + pair] : 0;
    const T* doc = docs + row * doc_stride;
    const float scale = step ? step[row] : 1.0f;
    Sums sums{0, 0, 0};
#pragma unroll 4
    for (int64_t i = lane; i < (held ? dims : 0); i += 8) accumulate(sums, metric, own[i], value_at(doc, i) * scale);
    sums = {lane_sum(sums.products), lane_sum(sums.own), lane_sum(sums.squares)};
    if (held && lane == 0) {
      const double score = score_of(sums, metric);
      scores[start + pair] = rounded(bias ? score + bias[row] : score);
    }
  }
}

}  // namespace

#define REFINE(name, T)                                                                                             \
  KERNEL(name, REFINE_THREADS)(const float* queries, const T* docs, const float* step, const double* bias,                \
                        const int32_t* rows, const int64_t* starts, const int32_t* counts, float* scores,          \
                        int64_t query_stride, int64_t doc_stride, int64_t dims, int64_t metric) {                  \
    refine(queries, docs, step, bias, rows, starts, counts, scores, query_stride, doc_stride, dims, metric);       \
  }

REFINE(refine_float32, float)
REFINE(refine_float16, Float16)
REFINE(refine_bfloat16, BFloat16)
REFINE(refine_int8, int8_t)
REFINE(refine_bits, Signs)

}  // namespace pyengine::cuda
