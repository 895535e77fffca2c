// float64 in the order of the specification: eight strided lanes.

constexpr int LANES = 8;
constexpr int PARTS = LANES / (W / 2);  // registers that hold the lanes

template <bool DIFFERENCE>
INLINE void add_step(const float* query, const float* row, D (&lanes)[PARTS]) {
#pragma GCC unroll 4
  for (int p = 0; p < PARTS; ++p) {
    const D a = floats_to_double(query + p * (W / 2)), b = floats_to_double(row + p * (W / 2));
    lanes[p] += DIFFERENCE ? (a - b) * (a - b) : a * b;
  }
}

INLINE double add_lanes(const D (&lanes)[PARTS]) {
  double l[LANES];
  __builtin_memcpy(l, lanes, sizeof l);
  return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
}

template <bool DIFFERENCE>
INLINE void pairs_f64(const float* const* queries, const float* const* rows, const float* const* next, const int count, int n,
                      double* out) {
  D lanes[PAIR_BLOCK][PARTS] = {};
  int i = 0;
  for (; i + 2 * LANES <= n; i += 2 * LANES)  // a cache line of each row
#pragma GCC unroll 4
    for (int r = 0; r < count; ++r) {
      __builtin_prefetch(next[r] + i);
      add_step<DIFFERENCE>(queries[r] + i, rows[r] + i, lanes[r]);
      add_step<DIFFERENCE>(queries[r] + i + LANES, rows[r] + i + LANES, lanes[r]);
    }
  for (; i + LANES <= n; i += LANES)
    for (int r = 0; r < count; ++r) add_step<DIFFERENCE>(queries[r] + i, rows[r] + i, lanes[r]);
  if (i < n) {
    float q[LANES] = {}, d[LANES] = {};  // padding adds +0.0, which changes no lane
    for (int r = 0; r < count; ++r) {
      __builtin_memcpy(q, queries[r] + i, (n - i) * sizeof(float));
      __builtin_memcpy(d, rows[r] + i, (n - i) * sizeof(float));
      add_step<DIFFERENCE>(q, d, lanes[r]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < count; ++r) out[r] = add_lanes(lanes[r]);
}

static void dot_f64(const float* const* queries, const float* const* rows, const float* const* next, int count, int n,
                    double* out) {
  if (count == PAIR_BLOCK) return pairs_f64<false>(queries, rows, next, PAIR_BLOCK, n, out);
  for (int r = 0; r < count; ++r) pairs_f64<false>(queries + r, rows + r, next + r, 1, n, out + r);
}

static void l2_f64(const float* const* queries, const float* const* rows, const float* const* next, int count, int n,
                    double* out) {
  if (count == PAIR_BLOCK) return pairs_f64<true>(queries, rows, next, PAIR_BLOCK, n, out);
  for (int r = 0; r < count; ++r) pairs_f64<true>(queries + r, rows + r, next + r, 1, n, out + r);
}
