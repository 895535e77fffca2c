// MaxSim of listed pairs in float64, by the specification and to the bit (pyengine/specification/reference_maxsim.py):
// the maxima of one set's tokens, then their sums in order. Nothing is gathered: a pair is two numbers.
//
// Eight threads take the eight lanes of 4 x 4 products at a time, so that a value that is read and widened to float64
// is multiplied four times: of 16 products and additions each, eight conversions, which have a fourth of the rate. What
// the lanes hold is folded by the specification's tree: each keeps half of the numbers at each of three exchanges, and
// with them the maximum of one token. A block takes 8 choosing tokens; 8 groups of lanes for each 4 share the other
// set.
#include "maxsim_packed.cuh"

namespace pyengine::cuda {
namespace maxsim {

constexpr int SCORE_THREADS = 128, SPLITS = 8, CHOOSERS = 8;  // of a block

struct Word { uint32_t bits; };  // of several numbers

// One side's tokens: `values` [T, stride] of floats; codes, with a step [T] as `heads`; or words of `bits` for each of the
// dimensions, with heads and `centroids` (maxsim_packed.cuh). Sets begin at `offsets`; `norms` [T] are null where products
// are not divided by them.
template <class T>
struct Tokens {
  const T* values;
  const uint32_t* heads;
  const float* centroids;
  const int64_t* offsets;
  const double* norms;
  int64_t stride, dims, bits, step_bits;

  // A value as it defines the scores.
  DEVICE double value(int64_t token, int64_t i) const {
    const T* row = values + token * stride;
    if constexpr (std::is_same_v<T, Word>) {
      const int64_t centroid = centroid_of(heads[token], step_bits);
      return packed_value(reinterpret_cast<const uint32_t*>(row), i, bits, step_of(heads[token], step_bits),
                          centroids[centroid * dims + i]);
    } else if constexpr (sizeof(T) == 1) {
      return value_of(row[i]) * bits_of<float>(heads[token]);
    } else {
      return value_of(row[i]);
    }
  }
};

// Of the sums of eight lanes, 2 HALF each, those that this lane keeps: the first HALF where its bit is 0, else the
// others.
template <int HALF>
DEVICE void fold(double* sums, int bit) {
  const bool upper = threadIdx.x & bit;
#pragma unroll
  for (int i = 0; i < HALF; ++i) {
    const double other = __shfl_xor_sync(WARP, upper ? sums[i] : sums[i + HALF], bit);
    sums[i] = (upper ? sums[i + HALF] : sums[i]) + other;
  }
}

// maxima [pairs, width]: of each token of a set, its largest product with those of another.
template <class A, class B>
DEVICE void find_maxima(double* maxima, const Tokens<A>& a, const Tokens<B>& b, int64_t own, int64_t other,
                        int64_t width) {
  __shared__ double found[SPLITS][CHOOSERS];
  const int64_t blocks = (width + CHOOSERS - 1) / CHOOSERS, pair = blockIdx.x / blocks;
  const int64_t token = blockIdx.x % blocks * CHOOSERS, begin = a.offsets[own] + token, end = a.offsets[own + 1];
  if (begin >= end) return;
  const int lane = threadIdx.x % 8, quad = threadIdx.x / 8 % 2 * 4, split = threadIdx.x / 16;
  const int64_t first = b.offsets[other], last = b.offsets[other + 1];
  int64_t i[4], j[4];
#pragma unroll
  for (int n = 0; n < 4; ++n) i[n] = min(begin + quad + n, end - 1);
  const int mine = (lane & 1) * 2 + (lane >> 1 & 1);  // the choosing token whose maximum this lane keeps
  const double norm = a.norms ? a.norms[min(begin + quad + mine, end - 1)] : 0.0;
  double best = -INFINITY;
  for (int64_t at = first; at < last; at += 4 * SPLITS) {
#pragma unroll
    for (int n = 0; n < 4; ++n) j[n] = min(at + 4 * split + n, last - 1);
    double sums[16] = {};
    for (int64_t d = lane; d < a.dims; d += 8) {
      double x[4], y[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) x[n] = a.value(i[n], d), y[n] = b.value(j[n], d);
#pragma unroll
      for (int n = 0; n < 16; ++n) sums[n] += x[n / 4] * y[n % 4];
    }
    fold<8>(sums, 1);
    fold<4>(sums, 2);
    fold<2>(sums, 4);
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int64_t chosen = at + 4 * split + (lane >> 2 & 1) * 2 + n;
      double product = sums[n];
      if (a.norms) {
        const double norms = norm * b.norms[min(chosen, last - 1)];
        product = norms > 0 ? product / norms : 0.0;
      }
      if (chosen < last) best = largest(best, product);
    }
  }
  best = largest(best, __shfl_xor_sync(WARP, best, 4));
  if (lane < 4) found[split][quad + mine] = best;
  __syncthreads();
  if (threadIdx.x >= CHOOSERS || begin + threadIdx.x >= end) return;
  best = found[0][threadIdx.x];
  for (int n = 1; n < SPLITS; ++n) best = largest(best, found[n][threadIdx.x]);
  maxima[pair * width + token + threadIdx.x] = best;
}

// The sum of a set's maxima in their order, each times its weight: by a warp, every lane of which has it.
DEVICE double ordered_sum(const double* maxima, const float* weights, int64_t begin, int64_t count) {
  const int lane = threadIdx.x % 32;
  double total = 0;
  for (int64_t at = 0; at < count; at += 32) {
    const int64_t own = min(at + lane, count - 1);
    const double term = weights ? double{weights[begin + own]} * maxima[own] : maxima[own];
    for (int n = 0; n < min(count - at, int64_t{32}); ++n) total += __shfl_sync(WARP, term, n);
  }
  return total;
}

}  // namespace maxsim

// Pairs are `first` .. of the list: `places` [P] say where a pair's row, and its score, stand; `owners` [P] are its
// queries. The documents' tokens choose where `exchanged`.
#define MAXIMA(name, T)                                                                                              \
  KERNEL(name, maxsim::SCORE_THREADS)(                                                                               \
      double* maxima, const float* queries, const int64_t* query_offsets, const double* query_norms, const T* docs,  \
      const uint32_t* heads, const float* centroids, const int64_t* doc_offsets, const double* doc_norms,            \
      const int32_t* owners, const int64_t* places, const int32_t* rows, int64_t first, int64_t width,               \
      int64_t query_stride, int64_t doc_stride, int64_t dims, int64_t bits, int64_t step_bits, int64_t exchanged) {  \
    const maxsim::Tokens<float> asked{queries, nullptr, nullptr, query_offsets, query_norms, query_stride, dims, 0,  \
                                      0};                                                                            \
    const maxsim::Tokens<T> offered{docs, heads, centroids, doc_offsets, doc_norms, doc_stride, dims, bits,          \
                                    step_bits};                                                                      \
    const int64_t pair = first + blockIdx.x / ((width + maxsim::CHOOSERS - 1) / maxsim::CHOOSERS);                   \
    const int64_t query = owners[pair], doc = rows[places[pair]];                                                    \
    if (exchanged) maxsim::find_maxima(maxima, offered, asked, doc, query, width);                                   \
    else maxsim::find_maxima(maxima, asked, offered, query, doc, width);                                             \
  }

MAXIMA(maxsim_maxima_float32, float)
MAXIMA(maxsim_maxima_float16, Float16)
MAXIMA(maxsim_maxima_bfloat16, BFloat16)
MAXIMA(maxsim_maxima_int8, int8_t)
MAXIMA(maxsim_maxima_packed, maxsim::Word)

// A score for each warp. `back` is null but for a sum over both sides; weights and biases may be.
KERNEL(maxsim_sum, maxsim::SCORE_THREADS)(
    float* scores, const double* forth, const double* back, const float* query_weights, const float* doc_weights,
    const double* biases, const int64_t* query_offsets, const int64_t* doc_offsets, const int32_t* owners,
    const int64_t* places, const int32_t* rows, int64_t first, int64_t pairs, int64_t query_width, int64_t doc_width,
    int64_t mean) {
  const int64_t own = int64_t{blockIdx.x} * (maxsim::SCORE_THREADS / 32) + threadIdx.x / 32;
  if (own >= pairs) return;
  const int64_t place = places[first + own], query = owners[first + own], row = rows[place];
  const int64_t asked = query_offsets[query + 1] - query_offsets[query];
  const int64_t offered = doc_offsets[row + 1] - doc_offsets[row];
  double total = 0;
  if (asked > 0 && offered > 0) {
    total = maxsim::ordered_sum(forth + own * query_width, query_weights, query_offsets[query], asked);
    if (mean) total /= static_cast<double>(asked);
    if (back) {
      double other = maxsim::ordered_sum(back + own * doc_width, doc_weights, doc_offsets[row], offered);
      if (mean) other /= static_cast<double>(offered);
      total = (total + other) / 2;
    }
  }
  const double score = biases ? total + biases[row] : total;
  if (threadIdx.x % 32 == 0) scores[place] = asked > 0 && offered == 0 ? -INFINITY : rounded(score);
}

// norms [T] of tokens, eight threads to each.
#define TOKEN_NORMS(name, T)                                                                                         \
  KERNEL(name, maxsim::SCORE_THREADS)(const T* rows, const uint32_t* heads, const float* centroids, double* norms,   \
                                      int64_t count, int64_t stride, int64_t dims, int64_t bits,                     \
                                      int64_t step_bits) {                                                           \
    const maxsim::Tokens<T> tokens{rows, heads, centroids, nullptr, nullptr, stride, dims, bits, step_bits};         \
    const int64_t token = int64_t{blockIdx.x} * (maxsim::SCORE_THREADS / 8) + threadIdx.x / 8;                       \
    double lane = 0;                                                                                                 \
    for (int64_t i = threadIdx.x % 8; i < (token < count ? dims : 0); i += 8) {                                      \
      const double value = tokens.value(token, i);                                                                   \
      lane += value * value;                                                                                         \
    }                                                                                                                \
    for (int by = 1; by < 8; by *= 2) lane += __shfl_xor_sync(WARP, lane, by);                                       \
    if (token < count && threadIdx.x % 8 == 0) norms[token] = sqrt(lane);                                            \
  }

TOKEN_NORMS(token_norms_float32, float)
TOKEN_NORMS(token_norms_float16, Float16)
TOKEN_NORMS(token_norms_bfloat16, BFloat16)
TOKEN_NORMS(token_norms_int8, int8_t)
TOKEN_NORMS(token_norms_packed, maxsim::Word)

}  // namespace pyengine::cuda
