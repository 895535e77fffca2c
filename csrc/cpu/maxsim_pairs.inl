// Exact MaxSim of listed pairs: part of kernels.inl, over the same vectors. maxsim_pairs.cpp has the bound.

static float square_f32(const float* row, int n) {
  F sums[2] = {};
  int i = 0;
  for (; i + 2 * W <= n; i += 2 * W)
    for (int s = 0; s < 2; ++s) sums[s] = fma(load_f(row + i + s * W), load_f(row + i + s * W), sums[s]);
  for (; i < n; i += W) {
    const F x = n - i < W ? load_tail(row + i, n - i) : load_f(row + i);
    sums[0] = fma(x, x, sums[0]);
  }
  return lane_sum<F, float>(sums[0] + sums[1]);
}

// `n_rows` document tokens against `n_panels` panels, all accumulators in registers; both are constants after inlining.
INLINE void estimate_block(const float* rows, size_t stride, const float* panels, int dim, float* out, int width,
                           const int n_rows, const int n_panels) {
  constexpr int VECTORS = PANEL / W;
  const int vectors = n_panels * VECTORS;
  F sums[BLOCK_DOCS < 4 ? 4 : BLOCK_DOCS][2 * VECTORS];
#pragma GCC unroll 16
  for (int r = 0; r < n_rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) sums[r][v] = F{};
  for (int k = 0; k < dim; ++k) {
    F query[2 * VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v)
      query[v] = load_f(panels + (v / VECTORS * static_cast<size_t>(dim) + k) * PANEL + v % VECTORS * W);
#pragma GCC unroll 16
    for (int r = 0; r < n_rows; ++r) {
      const F x = splat(rows[r * stride + k]);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) sums[r][v] = fma(x, query[v], sums[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < n_rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) __builtin_memcpy(out + static_cast<size_t>(r) * width + v * W, &sums[r][v], sizeof(F));
}

// Blocks of `n_rows`, the last one moved back so that it is whole: some rows are then done twice.
template <int N_ROWS, int N_PANELS>
static void estimate_rows(const float* rows, size_t stride, int count, const float* panels, int dim, float* out, int width) {
  for (int done = 0; done < count; done += N_ROWS) {
    const size_t row = done + N_ROWS <= count ? done : count - N_ROWS;
    estimate_block(rows + row * stride, stride, panels, dim, out + row * width, width, N_ROWS, N_PANELS);
  }
}

template <int N_PANELS>
INLINE void estimate_panels(const float* rows, size_t stride, int count, const float* panels, int dim, float* out, int width) {
  if (count >= BLOCK_DOCS) return estimate_rows<BLOCK_DOCS, N_PANELS>(rows, stride, count, panels, dim, out, width);
  if (BLOCK_DOCS > 4 && count >= 4) return estimate_rows<4, N_PANELS>(rows, stride, count, panels, dim, out, width);
  estimate_rows<1, N_PANELS>(rows, stride, count, panels, dim, out, width);
}

static void estimate_tokens(const float* rows, size_t stride, int count, const float* panels, int n_panels, int dim, float* out) {
  const int width = n_panels * PANEL;
  int panel = 0;
  for (; panel + 2 <= n_panels; panel += 2)
    estimate_panels<2>(rows, stride, count, panels + static_cast<size_t>(panel) * dim * PANEL, dim, out + panel * PANEL, width);
  if (panel < n_panels)
    estimate_panels<1>(rows, stride, count, panels + static_cast<size_t>(panel) * dim * PANEL, dim, out + panel * PANEL, width);
}

// NaN is greater than nothing, and below nothing: it raises no bound, and passes.
INLINE F greater(F a, F b) { return a > b ? a : b; }

INLINE float largest_lane(F v) {
  float largest = v[0];
  for (int lane = 1; lane < W; ++lane) largest = v[lane] > largest ? v[lane] : largest;
  return largest;
}

static size_t window_pairs(const TokenWindow& window, TokenPair* out) {
  TokenPair* const first = out;
  for (int v = 0; v < window.width; v += W) {
    const F error = load_f(window.error + v);
    F least = load_f(window.least + v);
    for (int r = 0; r < window.count; ++r) {
      const F estimate = load_f(window.estimates + static_cast<size_t>(r) * window.width + v) * window.scale[r];
      least = greater(fma(-error, splat(window.weight[r]), estimate), least);
    }
    __builtin_memcpy(window.least + v, &least, sizeof least);
  }
  for (int r = 0; r < window.count; ++r) {
    const float* estimates = window.estimates + static_cast<size_t>(r) * window.width;
    const F scale = splat(window.scale[r]), weight = splat(window.weight[r]);
    F of_row = splat(-__builtin_inff());
    for (int v = 0; window.columns && v < window.width; v += W)
      of_row = greater(fma(-load_f(window.error + v), weight, load_f(estimates + v) * scale), of_row);
    const F row_least = splat(largest_lane(of_row));
    for (int v = 0; v < window.width; v += W) {
      const F most = fma(load_f(window.error + v), weight, load_f(estimates + v) * scale);
      const int shift = v % PANEL;
      unsigned passed = not_below(most, load_f(window.least + v)) & window.sought[v / PANEL] >> shift;
      if (window.columns) passed |= not_below(most, row_least) & window.present[v / PANEL] >> shift;
      for (; passed; passed &= passed - 1) *out++ = TokenPair{r, v + __builtin_ctz(passed)};
    }
  }
  return out - first;
}
