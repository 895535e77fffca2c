// Unit vectors as they are multiplied, one block to a row: int8 codes of documents that have none, and queries in one part or
// two, of int8 codes or of 16 bits, or in float32.
#include "device.cuh"

namespace pyengine::cuda {
namespace {

constexpr int CODE_THREADS = 128;

template <class T>
DEVICE double norm_of(const T* row, int64_t dims, double* scratch) {
  double squares = 0, unused = 0;
  for (int64_t i = threadIdx.x; i < dims; i += CODE_THREADS) squares += double{value_of(row[i])} * value_of(row[i]);
  reduce_block(squares, unused, scratch);
  return sqrt(squares);
}

// codes [N, width], zero from `dims` on; scale, residual and norms [N], which are not finite where a row is not.
template <class T>
DEVICE void code_docs(const T* rows, int8_t* codes, float* scales, float* residuals, double* norms, int64_t dims,
                      int64_t stride, int64_t width) {
  __shared__ double scratch[2 * CODE_THREADS / 32];
  const T* row = rows + blockIdx.x * stride;
  int8_t* own = codes + blockIdx.x * width;
  const double norm = norm_of(row, dims, scratch), by = norm > 0 ? norm : 1.0;
  double squares = 0, most = 0;
  for (int64_t i = threadIdx.x; i < dims; i += CODE_THREADS) most = largest(most, fabs(value_of(row[i]) / by));
  reduce_block(squares, most, scratch);
  const double scale = most / LEVELS;
  squares = 0;
  for (int64_t i = threadIdx.x; i < width; i += CODE_THREADS) {
    const double u = i < dims ? value_of(row[i]) / by : 0.0, code = code_of(u, scale), rest = u - scale * code;
    own[i] = static_cast<int8_t>(code);
    squares += rest * rest;
  }
  reduce_block(squares, most, scratch);
  if (threadIdx.x > 0) return;
  const double residual = norm > 0 ? length_of(squares) : 0.0;
  scales[blockIdx.x] = static_cast<float>(scale);
  residuals[blockIdx.x] = static_cast<float>(residual * (1 + 2.384185791015625e-07));
  norms[blockIdx.x] = norm;
}

}  // namespace

#define CODE_DOCS(name, T)                                                                                            \
  KERNEL(name, CODE_THREADS)(const T* rows, int8_t* codes, float* scales, float* residuals, double* norms, int64_t dims,   \
                        int64_t stride, int64_t width) {                                                              \
    code_docs(rows, codes, scales, residuals, norms, dims, stride, width);                                            \
  }

CODE_DOCS(code_float32, float)
CODE_DOCS(code_float16, Float16)
CODE_DOCS(code_bfloat16, BFloat16)

// norms [N] of the first `dims` of each row, which are not finite where a row is not.
#define NORMS(name, T)                                                                                            \
  KERNEL(name, CODE_THREADS)(const T* rows, double* norms, int64_t dims, int64_t stride) {                        \
    __shared__ double scratch[2 * CODE_THREADS / 32];                                                             \
    const double norm = norm_of(rows + blockIdx.x * stride, dims, scratch);                                       \
    if (threadIdx.x == 0) norms[blockIdx.x] = norm;                                                               \
  }

NORMS(norms_float32, float)
NORMS(norms_float16, Float16)
NORMS(norms_bfloat16, BFloat16)

namespace {

// How a part of a query is kept: its scale, given the largest magnitude, and a value in units of that, coded and decoded.
template <Kind KIND>
struct Part {
  using Value = int8_t;
  static DEVICE double scale(int, double most) { return most / LEVELS; }
  static DEVICE Value code(double u, double scale) { return static_cast<int8_t>(code_of(u, scale)); }
  static DEVICE double value(Value code) { return code; }
};

template <>
struct Part<FLOAT32> {
  using Value = float;
  static DEVICE double scale(int, double) { return 1.0; }
  static DEVICE Value code(double u, double) { return static_cast<float>(u); }
  static DEVICE double value(Value code) { return code; }
};

template <class T>
struct Half {
  using Value = T;
  static DEVICE double scale(int part, double) { return part == 0 ? 1.0 : 0.00048828125; }  // 2^-11: what is left is small
  static DEVICE double value(Value code) { return value_of(code); }
};

template <>
struct Part<FLOAT16> : Half<Float16> {
  static DEVICE Value code(double u, double scale) { return {nearest_float16(static_cast<float>(u / scale))}; }
};

template <>
struct Part<BFLOAT16> : Half<BFloat16> {
  static DEVICE Value code(double u, double scale) { return {nearest_bfloat16(static_cast<float>(u / scale))}; }
};

// Of queries [Q, D] the `parts` [P, width] of a document's kind, `terms` [5, P], `scaling` [P, 2] of unit and base, and
// `centre` [P], their quotient: kernels/dense_topk.py. P >= Q blocks.
template <Kind KIND>
DEVICE void code_query(const float* queries, typename Part<KIND>::Value* first_part,
                       typename Part<KIND>::Value* second_part, float* terms, double* scaling, float* centre,
                       const double* units, int64_t n_queries, int64_t dims, int64_t stride, int64_t width,
                       int64_t metric, int64_t parts) {
  using Kept = Part<KIND>;
  if constexpr (KIND == FLOAT32) parts = 1;  // rounded to float32 they leave nothing to another
  __shared__ double scratch[2 * CODE_THREADS / 32];
  const int64_t query = blockIdx.x, padded = gridDim.x;
  const int held = query < n_queries ? static_cast<int>(dims) : 0, all = static_cast<int>(width);
  const float* row = queries + (held ? query : 0) * stride;
  const double norm = norm_of(row, held, scratch), by = norm > 0 ? norm : 1.0;
  double scale = 0, second = 0, squares = 0;
  for (int part = 0; part < parts; ++part) {
    const auto rest_of = [&](int i) {  // what the part before has left
      const double u = i < held ? row[i] / by : 0.0;
      return part == 0 ? u : u - scale * Kept::value(Kept::code(u, scale));
    };
    double most = 0;
    squares = 0;
    for (int i = threadIdx.x; i < held; i += CODE_THREADS) most = largest(most, fabs(rest_of(i)));
    reduce_block(squares, most, scratch);
    const double step = Kept::scale(part, most);
    typename Kept::Value* codes = (part == 0 ? first_part : second_part) + query * width;
    for (int i = threadIdx.x; i < all; i += CODE_THREADS) {
      const double value = rest_of(i);
      codes[i] = Kept::code(value, step);
      const double rest = value - step * Kept::value(codes[i]);
      squares += rest * rest;
    }
    reduce_block(squares, most, scratch);
    (part == 0 ? scale : second) = step;
  }
  if (threadIdx.x > 0) return;
  QueryTerms own;
  const double miss = norm > 0 ? length_of(squares) : 0.0;
  const QueryScale made = query_terms(metric, norm, scale, second, miss, units[0], units[1], own);
  const float columns[5] = {own.scale, own.second, own.spread, own.miss, own.lift};
  for (int i = 0; i < 5; ++i) terms[i * padded + query] = columns[i];
  scaling[2 * query] = made.unit;
  scaling[2 * query + 1] = made.base;
  centre[query] = static_cast<float>(made.base / made.unit);
}

}  // namespace

#define CODE_QUERIES(name, kind)                                                                                    \
  KERNEL(name, CODE_THREADS)(const float* queries, Part<kind>::Value* first_part, Part<kind>::Value* second_part,   \
                             float* terms, double* scaling, float* centre, const double* units, int64_t n_queries,  \
                             int64_t dims, int64_t stride, int64_t width, int64_t metric, int64_t parts) {          \
    code_query<kind>(queries, first_part, second_part, terms, scaling, centre, units, n_queries, dims, stride,      \
                     width, metric, parts);                                                                         \
  }

CODE_QUERIES(code_queries, INT8)
CODE_QUERIES(code_queries_float32, FLOAT32)
CODE_QUERIES(code_queries_float16, FLOAT16)
CODE_QUERIES(code_queries_bfloat16, BFLOAT16)

}  // namespace pyengine::cuda
