// Late interaction's vertical maxima: rows of products are document tokens, lanes query tokens. Part of kernels.inl.

constexpr int VECTORS = PANEL / W;

// The maxima of the document under way, in registers. Tokens come in order.
template <int PANELS>
struct Maxima {
  static constexpr int WIDTH = PANELS * VECTORS;
  const float* scale;
  const int32_t* end;
  float* row;
  size_t stride;
  const uint16_t* centroid;
  const float* added;
  int last_added;
  F best[WIDTH];

  // Goes on where document tokens up to `token` were left.
  INLINE_MEMBER Maxima(const TokenTile& docs, float* maxima, size_t stride_, int token)
      : scale(docs.scale), end(docs.ends), row(maxima), stride(stride_), centroid(docs.centroid), added(docs.added),
        last_added(docs.n_added - 1) {
    for (; *end <= token; ++end) row += stride;
    load();
  }

  INLINE_MEMBER void load() {
#pragma GCC unroll 8
    for (int v = 0; v < WIDTH; ++v) best[v] = load_f(row + v * W);
  }
  INLINE_MEMBER void save() const {
#pragma GCC unroll 8
    for (int v = 0; v < WIDTH; ++v) __builtin_memcpy(row + v * W, &best[v], sizeof(F));
  }
  INLINE_MEMBER void next_doc() {
    save();
    ++end, row += stride;
    load();
  }

  INLINE_MEMBER void add_centroid(const I* products, F factor, const float* centroids) {
#pragma GCC unroll 8
    for (int v = 0; v < WIDTH; ++v)
      best[v] = maximum(fma(__builtin_convertvector(products[v], F), factor, load_f(centroids + v * W)), best[v]);
  }

  INLINE_MEMBER void add(const I* products, int token) {
    if (__builtin_expect(token == *end, 0)) next_doc();
    const F factor = splat(scale[token]);
    if (added) {
      const int row = centroid[token] < last_added ? centroid[token] : last_added;
      return add_centroid(products, factor, added + row * stride);
    }
#pragma GCC unroll 8
    for (int v = 0; v < WIDTH; ++v) best[v] = maximum(__builtin_convertvector(products[v], F) * factor, best[v]);
  }

  // Rows of MAX_PANELS panels of products, of tokens of one document: as a tree, so that few maxima wait for others.
  INLINE_MEMBER void add_four(const int32_t* products, int token) {
#pragma GCC unroll 8
    for (int v = 0; v < WIDTH; ++v)
      best[v] = maximum(maximum(maximum(scaled(products, 0, v, token), scaled(products, 1, v, token)),
                                maximum(scaled(products, 2, v, token), scaled(products, 3, v, token))), best[v]);
  }

  INLINE_MEMBER void add_rows(const int32_t* products, int token, int count) {
    if (added) return add_each(products, token, count);
    for (int i = 0; i < count;) {
      if (token + i == *end) next_doc();
      const int until = *end - token < count ? *end - token : count;
      for (; i + 4 <= until; i += 4) add_four(products + i * ROW, token + i);
      for (; i < until; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < WIDTH; ++v) best[v] = maximum(scaled(products, i, v, token), best[v]);
    }
  }

 private:
  static constexpr int ROW = MAX_PANELS * PANEL;

  INLINE_MEMBER void add_each(const int32_t* products, int token, int count) {
    for (int i = 0; i < count; ++i) {
      I row_products[WIDTH];
#pragma GCC unroll 8
      for (int v = 0; v < WIDTH; ++v) row_products[v] = load_i(products + i * ROW + v * W);
      add(row_products, token + i);
    }
  }

  INLINE_MEMBER F scaled(const int32_t* products, int row, int v, int token) const {
    return __builtin_convertvector(load_i(products + row * ROW + v * W), F) * splat(scale[token + row]);
  }
};

// The tile as panels from `panel` on see it.
INLINE TokenTile for_panel(const TokenTile& docs, int panel) {
  TokenTile part = docs;
  if (part.added) part.added += panel * PANEL;
  return part;
}

static float dot_f32(const float* a, const float* b, int n) {
  F sum = F{};
  int i = 0;
  for (; i + W <= n; i += W) sum = fma(load_f(a + i), load_f(b + i), sum);
  if (i < n) sum = fma(load_tail(a + i, n - i), load_tail(b + i, n - i), sum);
  float parts[W];
  __builtin_memcpy(parts, &sum, sizeof sum);
  for (int half = W / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) parts[lane] += parts[lane + half];
  return parts[0];
}
