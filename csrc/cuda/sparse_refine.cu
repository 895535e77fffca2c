// The specification's scores of listed documents, for sparse and for sliced rows, to the bit (reference_sparse.py and
// reference_sliced.py in pyengine/specification). A warp to a pair: each lane finds the product of one term, or of one
// position, and what 32 lanes have found is added in their order.
#include "device.cuh"

namespace pyengine::cuda {
namespace {

constexpr int ROW_THREADS = 128, ROW_WARPS = ROW_THREADS / 32;

// Pairs of a query: `scores` and `rows` have the entries starts[q] .. starts[q] + counts[q]. `bias` may be null.
struct Pairs {
  const double* bias;
  const int32_t* rows;
  const int64_t* starts;
  const int32_t* counts;
  float* scores;
};

// `find(row, i, product)` says whether term i of the query, first <= i < last, takes part, and gives its product.
template <class Find>
DEVICE void refine_rows(const Pairs& pairs, int64_t first, int64_t last, Find find) {
  const int64_t start = pairs.starts[blockIdx.x];
  const int lane = threadIdx.x % 32, count = pairs.counts[blockIdx.x], warps = gridDim.y * ROW_WARPS;
  for (int64_t pair = int64_t{blockIdx.y} * ROW_WARPS + threadIdx.x / 32; pair < count; pair += warps) {
    const int64_t row = pairs.rows[start + pair];
    double total = 0;
    for (int64_t at = first; at < last; at += 32) {
      double product = 0;
      const bool shared = at + lane < last && find(row, at + lane, product);
      for (unsigned bits = __ballot_sync(WARP, shared); bits; bits &= bits - 1)
        total += __shfl_sync(WARP, product, __ffs(bits) - 1);
    }
    if (lane == 0) pairs.scores[start + pair] = rounded(pairs.bias ? total + pairs.bias[row] : total);
  }
}

// Rows as they are kept: terms rising in each; `low` and `step` are null where values are no codes.
template <class Term, class Value>
struct KeptRows {
  const int64_t* offsets;
  const Term* terms;
  const Value* values;
  const float *low, *step;

  DEVICE bool find(int64_t row, int32_t term, float& weight) const {
    int64_t from = offsets[row];
    const int64_t end = offsets[row + 1];
    for (int64_t high = end; from < high;) {
      const int64_t middle = (from + high) / 2;
      if (static_cast<int32_t>(terms[middle]) < term) from = middle + 1;
      else high = middle;
    }
    if (from == end || static_cast<int32_t>(terms[from]) != term) return false;
    weight = value_of(values[from]);
    if (low) weight = step[row] * weight + low[row];
    return true;
  }
};

template <class Term, class Value>
DEVICE void refine_terms(const KeptRows<Term, Value>& docs, const int64_t* query_offsets, const int32_t* query_terms,
                         const float* query_values, const Pairs& pairs) {
  const auto find = [&](int64_t row, int64_t at, double& product) {
    float weight = 0;
    if (!docs.find(row, query_terms[at], weight)) return false;
    product = double{query_values[at]} * weight;
    return true;
  };
  refine_rows(pairs, query_offsets[blockIdx.x], query_offsets[blockIdx.x + 1], find);
}

}  // namespace

#define REFINE_TERMS(name, Term, Value)                                                                                \
  KERNEL(name, ROW_THREADS)(const int64_t* offsets, const Term* terms, const Value* values, const float* low,          \
                            const float* step, const int64_t* query_offsets, const int32_t* query_terms,               \
                            const float* query_values, const double* bias, const int32_t* rows, const int64_t* starts, \
                            const int32_t* counts, float* scores) {                                                    \
    refine_terms(KeptRows<Term, Value>{offsets, terms, values, low, step}, query_offsets, query_terms, query_values,   \
                 {bias, rows, starts, counts, scores});                                                                \
  }

REFINE_TERMS(sparse_refine_uint16_float32, uint16_t, float)
REFINE_TERMS(sparse_refine_uint16_float16, uint16_t, Float16)
REFINE_TERMS(sparse_refine_uint16_uint8, uint16_t, uint8_t)
REFINE_TERMS(sparse_refine_int32_float32, int32_t, float)
REFINE_TERMS(sparse_refine_int32_float16, int32_t, Float16)
REFINE_TERMS(sparse_refine_int32_uint8, int32_t, uint8_t)

// Weights float32 [N or Q, dims], their indices uint8 [N or Q, width].
KERNEL(sliced_refine, ROW_THREADS)(const float* docs, const uint8_t* slices, const float* queries,
                                   const uint8_t* query_slices, const double* bias, const int32_t* rows,
                                   const int64_t* starts, const int32_t* counts, float* scores, int64_t dims,
                                   int64_t width) {
  const int64_t query = blockIdx.x;
  refine_rows({bias, rows, starts, counts, scores}, 0, dims, [&](int64_t row, int64_t at, double& product) {
    if (slices[row * width + at] != query_slices[query * width + at]) return false;
    product = double{queries[query * dims + at]} * docs[row * dims + at];
    return true;
  });
}

}  // namespace pyengine::cuda
