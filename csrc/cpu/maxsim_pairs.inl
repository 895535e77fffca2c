// Exact MaxSim of listed pairs: part of kernels.inl, over the same vectors. maxsim_pairs.cpp has the bound.

static float square_f32(const float* row, int n) {
  F sums[2] = {};
  int i = 0;
  for (; i + 2 * W <= n; i += 2 * W)
    for (int s = 0; s < 2; ++s) {
      __builtin_prefetch(row + i + s * W + 8 * n);  // rows mostly follow one another
      sums[s] = fma(load_f(row + i + s * W), load_f(row + i + s * W), sums[s]);
    }
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
    for (int v = 0; v < vectors; ++v)
      __builtin_memcpy(out + static_cast<size_t>(r) * width + v * W, &sums[r][v], sizeof(F));
}

// Blocks of `n_rows`, the last one moved back so that it is whole: some rows are then done twice.
template <int N_ROWS, int N_PANELS>
static void estimate_rows(const float* rows, size_t stride, int count, const float* panels, int dim, float* out,
                          int width) {
  for (int done = 0; done < count; done += N_ROWS) {
    const size_t row = done + N_ROWS <= count ? done : count - N_ROWS;
    estimate_block(rows + row * stride, stride, panels, dim, out + row * width, width, N_ROWS, N_PANELS);
  }
}

template <int N_PANELS>
INLINE void estimate_panels(const float* rows, size_t stride, int count, const float* panels, int dim, float* out,
                            int width) {
  if (count >= BLOCK_DOCS) return estimate_rows<BLOCK_DOCS, N_PANELS>(rows, stride, count, panels, dim, out, width);
  if (BLOCK_DOCS > 4 && count >= 4) return estimate_rows<4, N_PANELS>(rows, stride, count, panels, dim, out, width);
  estimate_rows<1, N_PANELS>(rows, stride, count, panels, dim, out, width);
}

static void multiply_tokens(const float* rows, size_t stride, int count, const float* panels, int n_panels, int dim,
                            float* out) {
  const size_t panel_floats = static_cast<size_t>(dim) * PANEL;
  const int width = n_panels * PANEL;
  int panel = 0;
  for (; panel + 2 <= n_panels; panel += 2)
    estimate_panels<2>(rows, stride, count, panels + panel * panel_floats, dim, out + panel * PANEL, width);
  if (panel < n_panels)
    estimate_panels<1>(rows, stride, count, panels + panel * panel_floats, dim, out + panel * PANEL, width);
}

#ifndef PYENGINE_TILED_SCAN  // a file with matrix tiles brings its own

static int token_words(int dim) { return dim; }
constexpr double TOKEN_ROUNDING = 0;
constexpr decltype(KernelTable::round_token) round_token = nullptr;

static void estimate_tokens(const void* rows, size_t stride, int count, const void* panels, int n_panels, int words,
                            float* out) {
  multiply_tokens(static_cast<const float*>(rows), stride, count, static_cast<const float*>(panels), n_panels, words,
                  out);
}

#endif

// What the best products of `VECTORS * W` query tokens, and of each row among them, reach for sure. NaN raises nothing.
template <int VECTORS>
INLINE void raise_least(const TokenWindow& window, int column) {
  F error[VECTORS], least[VECTORS];
#pragma GCC unroll 8
  for (int v = 0; v < VECTORS; ++v)
    error[v] = load_f(window.error + column + v * W), least[v] = load_f(window.least + column + v * W);
  for (int r = 0; r < window.count; ++r) {
    const float* estimates = window.estimates + static_cast<size_t>(r) * window.width + column;
    F of_row = splat(-__builtin_inff());
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) {
      const F reached = fma(-error[v], splat(window.weight[r]), load_f(estimates + v * W) * window.scale[r]);
      least[v] = greater(reached, least[v]);
      of_row = greater(reached, of_row);
    }
    if (!window.row_least) continue;
    const float best = largest_lane(of_row);
    if (column == 0 || best > window.row_least[r]) window.row_least[r] = best;
  }
#pragma GCC unroll 8
  for (int v = 0; v < VECTORS; ++v) __builtin_memcpy(window.least + column + v * W, &least[v], sizeof(F));
}

// The pairs that may reach as much. NaN passes.
template <int VECTORS>
INLINE TokenPair* list_pairs(const TokenWindow& window, int column, TokenPair* out) {
  F error[VECTORS], least[VECTORS];
#pragma GCC unroll 8
  for (int v = 0; v < VECTORS; ++v)
    error[v] = load_f(window.error + column + v * W), least[v] = load_f(window.least + column + v * W);
  uint32_t sought = window.sought[column / PANEL], present = window.present[column / PANEL];
  if (VECTORS * W > PANEL)
    sought |= static_cast<uint32_t>(window.sought[column / PANEL + 1]) << PANEL,
    present |= static_cast<uint32_t>(window.present[column / PANEL + 1]) << PANEL;
  for (int r = 0; r < window.count; ++r) {
    const float* estimates = window.estimates + static_cast<size_t>(r) * window.width + column;
    const F row_least = splat(window.row_least ? window.row_least[r] : 0);
    uint32_t of_query = 0, of_row = 0;
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) {
      const F most = fma(error[v], splat(window.weight[r]), load_f(estimates + v * W) * window.scale[r]);
      of_query |= not_below(most, least[v]) << v * W;
      if (window.row_least) of_row |= not_below(most, row_least) << v * W;
    }
    for (uint32_t passed = (of_query & sought) | (of_row & present); passed; passed &= passed - 1)
      *out++ = TokenPair{r, column + __builtin_ctz(passed)};
  }
  return out;
}

static size_t window_pairs(const TokenWindow& window, TokenPair* out) {
  constexpr int VECTORS = PANEL / W;
  TokenPair* const first = out;
  int column = 0;
  for (; column + 2 * PANEL <= window.width; column += 2 * PANEL) raise_least<2 * VECTORS>(window, column);
  if (column < window.width) raise_least<VECTORS>(window, column);
  for (column = 0; column + 2 * PANEL <= window.width; column += 2 * PANEL)
    out = list_pairs<2 * VECTORS>(window, column, out);
  if (column < window.width) out = list_pairs<VECTORS>(window, column, out);
  return out - first;
}
