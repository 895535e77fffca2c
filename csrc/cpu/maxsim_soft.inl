// Softmax over document tokens in float64, part of kernels.inl: no operation but those of the specification, so that
// the bits are the same everywhere. (Products of two float32 are exact in float64, and fma then rounds as the sum
// would.) Rows of doubles are padded with zeros to LANES, which changes no lane.

typedef uint64_t L __attribute__((vector_size(4 * W)));

INLINE D load_d(const double* p) { D v; __builtin_memcpy(&v, p, sizeof v); return v; }

constexpr int SOFT_TILE = PARTS == 1 ? 4 : PARTS == 2 ? 2 : 1;  // queries, and rows, whose sums are in registers

template <int N_QUERIES, int N_ROWS>
INLINE void multiply_tile(const double* queries, const double* rows, int n, double* out, size_t stride) {
  D lanes[N_QUERIES][N_ROWS][PARTS] = {};
  for (int k = 0; k < n; k += LANES)
#pragma GCC unroll 4
    for (int p = 0; p < PARTS; ++p) {
      D row[N_ROWS];
#pragma GCC unroll 4
      for (int r = 0; r < N_ROWS; ++r) row[r] = load_d(rows + r * static_cast<size_t>(n) + k + p * (W / 2));
#pragma GCC unroll 4
      for (int q = 0; q < N_QUERIES; ++q) {
        const D query = load_d(queries + q * static_cast<size_t>(n) + k + p * (W / 2));
#pragma GCC unroll 4
        for (int r = 0; r < N_ROWS; ++r) lanes[q][r][p] = fma(query, row[r], lanes[q][r][p]);
      }
    }
#pragma GCC unroll 4
  for (int q = 0; q < N_QUERIES; ++q)
#pragma GCC unroll 4
    for (int r = 0; r < N_ROWS; ++r) out[q * stride + r] = add_lanes(lanes[q][r]);
}

template <int N_QUERIES>
INLINE void multiply_rows(const double* queries, const double* rows, int n_rows, int n, double* out, size_t stride) {
  int r = 0;
  for (; r + SOFT_TILE <= n_rows; r += SOFT_TILE)
    multiply_tile<N_QUERIES, SOFT_TILE>(queries, rows + r * static_cast<size_t>(n), n, out + r, stride);
  for (; r < n_rows; ++r) multiply_tile<N_QUERIES, 1>(queries, rows + r * static_cast<size_t>(n), n, out + r, stride);
}

static void products_f64(const double* queries, int n_queries, const double* rows, int n_rows, int n, double* out,
                         size_t stride) {
  int q = 0;
  for (; q + SOFT_TILE <= n_queries; q += SOFT_TILE)
    multiply_rows<SOFT_TILE>(queries + q * static_cast<size_t>(n), rows, n_rows, n, out + q * stride, stride);
  for (; q < n_queries; ++q)
    multiply_rows<1>(queries + q * static_cast<size_t>(n), rows, n_rows, n, out + q * stride, stride);
}

// e^x for x in [EXP_LEAST, 0]: 2^k e^r with |r| <= ln 2 / 2, by the Taylor series.
constexpr double EXP_LEAST = -200;
INLINE D exp_d(D x) {
  constexpr double LOG2_E = 1.4426950408889634;
  constexpr double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;
  constexpr double NEAREST = 0x1.8p52;  // adding it leaves the nearest integer in the low bits
  constexpr double SERIES[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880,
                               1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1, 1};
  const D shifted = x * LOG2_E + NEAREST, k = shifted - NEAREST;
  const D r = (x - k * LN2_HIGH) - k * LN2_LOW;
  D sum = SERIES[0] + D{};
#pragma GCC unroll 13
  for (int i = 1; i < 14; ++i) sum = sum * r + SERIES[i];
  L bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 1023) << 52;
  D power;
  __builtin_memcpy(&power, &bits, sizeof power);
  return sum * power;
}

static double soften(double* products, int64_t n, double temperature) {
  double largest = -__builtin_inf();
  D most[PARTS];
  for (int p = 0; p < PARTS; ++p) most[p] = largest + D{};
  for (int64_t j = 0; j < n; j += LANES)
#pragma GCC unroll 4
    for (int p = 0; p < PARTS; ++p) {
      const D some = load_d(products + j + p * (W / 2));
      most[p] = some > most[p] ? some : most[p];
    }
  for (int p = 0; p < PARTS; ++p)
    for (int lane = 0; lane < W / 2; ++lane) largest = most[p][lane] > largest ? most[p][lane] : largest;
  D powers[PARTS] = {}, weighted[PARTS] = {};
  for (int64_t j = 0; j < n; j += LANES)
#pragma GCC unroll 4
    for (int p = 0; p < PARTS; ++p) {
      const D below = load_d(products + j + p * (W / 2)) - largest, x = below / temperature;
      const D power = x < EXP_LEAST ? D{} : exp_d(x);
      __builtin_memcpy(products + j + p * (W / 2), &power, sizeof power);
      powers[p] += power;
      weighted[p] += x < EXP_LEAST ? D{} : power * below;
    }
  return largest + add_lanes(weighted) / add_lanes(powers);
}

static void add_scaled_f64(const double* row, double factor, int n, double* sums) {
  for (int k = 0; k < n; k += W / 2) {
    const D sum = load_d(sums + k) + load_d(row + k) * factor;
    __builtin_memcpy(sums + k, &sum, sizeof sum);
  }
}
