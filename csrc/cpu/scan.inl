// Integer products of tiles of documents, compared while they are in registers.

static int32_t dot_codes(const uint8_t* codes, const int8_t* query, int depth) {
  I sum = I{}, odd = I{};
  for (int i = 0; i < depth; i += 8 * W) {
    sum = dot4(sum, load_i(codes + i), load_i(query + i));
    if (i + 4 * W < depth) odd = dot4(odd, load_i(codes + i + 4 * W), load_i(query + i + 4 * W));
  }
  return lane_sum<I, int32_t>(sum + odd);
}

INLINE Hit* append(Hit* hits, unsigned passed, const int32_t* products, int doc, int query, int doc_step, int query_step) {
  for (; passed; passed &= passed - 1) {
    const int lane = __builtin_ctz(passed);
    *hits++ = Hit{doc + lane * doc_step, query + lane * query_step, products[lane]};
  }
  return hits;
}

// The terms of W queries.
struct QueryTerms {
  F threshold, spread, error, lift;
};

INLINE QueryTerms load_terms(const QueryBlock& queries, int query) {
  return {load_f(queries.threshold + query), load_f(queries.spread + query), load_f(queries.error + query),
          load_f(queries.lift + query)};
}

// Of one document and W queries, which pass.
INLINE unsigned passing_queries(I product, const DocTile& docs, int doc, const QueryTerms& queries) {
  F excess = fma(__builtin_convertvector(product, F), splat(docs.scale[doc]), -queries.threshold);
  excess = fma(queries.spread, splat(docs.residual[doc]), excess);
  if (docs.weight) excess = fma(queries.error, splat(docs.weight[doc]), excess);
  if (docs.offset) excess = fma(queries.lift, splat(docs.offset[doc]), excess);
  return not_below(excess, F{});
}

INLINE Hit* append_queries(Hit* hits, unsigned passed, I product, int doc, int query) {
  int32_t products[W];
  __builtin_memcpy(products, &product, sizeof product);
  return append(hits, passed, products, doc, query, 0, 1);
}

// W documents (fewer at the end) against one query.
INLINE Hit* filter_docs(const int32_t* products, int count, const DocTile& docs, int doc, const QueryBlock& queries,
                        int query, Hit* hits) {
  auto term = [&](const float* p) __attribute__((always_inline)) {
    return count == W ? load_f(p + doc) : load_tail(p + doc, count);
  };
  F excess = fma(__builtin_convertvector(load_i(products), F), term(docs.scale), splat(-queries.threshold[query]));
  excess = fma(splat(queries.spread[query]), term(docs.residual), excess);
  if (docs.weight) excess = fma(splat(queries.error[query]), term(docs.weight), excess);
  if (docs.offset) excess = fma(splat(queries.lift[query]), term(docs.offset), excess);
  const unsigned passed = not_below(excess, F{}) & ((1u << (count - 1) << 1) - 1);
  return passed ? append(hits, passed, products, doc, query, 1, 0) : hits;
}

static size_t scan_rows(const DocTile& docs, const QueryBlock& queries, int n_queries, int depth, Hit* hits) {
  Hit* const first = hits;
  for (int doc = 0; doc < docs.count; doc += W) {
    const int count = docs.count - doc < W ? docs.count - doc : W;
    for (int query = 0; query < n_queries; ++query) {
      int32_t products[W] = {};
      for (int i = 0; i < count; ++i) {
        const uint8_t* codes = docs.codes + (doc + i) * docs.stride;
        if (query == 0 && docs.cold)  // the hardware's prefetching stops at every page
          for (int line = 0; line < depth; line += DEPTH_STEP) __builtin_prefetch(codes + W * docs.stride + line);
        products[i] = queries.start[query] + dot_codes(codes, queries.panels + (size_t)query * depth, depth);
      }
      hits = filter_docs(products, count, docs, doc, queries, query, hits);
    }
  }
  return hits - first;
}

#ifndef PYENGINE_TILED_SCAN  // a file with matrix tiles brings its own scan_panels

// The products of `n_docs` documents and `n_panels` panels, all in registers; both are constants after inlining.
INLINE void multiply_block(const uint8_t* codes, size_t stride, const int8_t* panel, const int32_t* start, int depth,
                           I (&sums)[BLOCK_DOCS][MAX_PANELS * VECTORS], const int n_docs, const int n_panels) {
  const int width = n_panels * VECTORS;
#pragma GCC unroll 16
  for (int d = 0; d < n_docs; ++d)
#pragma GCC unroll 8
    for (int v = 0; v < width; ++v) sums[d][v] = load_i(start + v * W);
  for (int line = 0; line < depth; line += DEPTH_STEP) {
    for (int d = 0; d < n_docs; ++d) __builtin_prefetch(codes + (n_docs + d) * stride + line);  // the next block
    for (int k = line; k < line + DEPTH_STEP; k += 4, panel += PANEL * 4) {
      I query[MAX_PANELS * VECTORS];
#pragma GCC unroll 8
      for (int v = 0; v < width; ++v)
        query[v] = load_i(panel + (v / VECTORS) * (size_t)depth * PANEL + (v % VECTORS) * W * 4);
#pragma GCC unroll 16
      for (int d = 0; d < n_docs; ++d) {
        const I code = splat4(codes + d * stride + k);
#pragma GCC unroll 8
        for (int v = 0; v < width; ++v) sums[d][v] = dot4(sums[d][v], code, query[v]);
      }
    }
  }
}

INLINE Hit* scan_block(const DocTile& docs, int doc, const QueryBlock& queries, int depth, Hit* hits, const int n_docs,
                       const int n_panels) {
  I sums[BLOCK_DOCS][MAX_PANELS * VECTORS];
  const int width = n_panels * VECTORS;
  multiply_block(docs.codes + doc * docs.stride, docs.stride, queries.panels, queries.start, depth, sums, n_docs, n_panels);
#pragma GCC unroll 16
  for (int d = 0; d < n_docs; ++d) {
    unsigned passed[MAX_PANELS * VECTORS], any = 0;
#pragma GCC unroll 8
    for (int v = 0; v < width; ++v) any |= passed[v] = passing_queries(sums[d][v], docs, doc + d, load_terms(queries, v * W));
    if (__builtin_expect(any == 0, 1)) continue;
#pragma GCC unroll 8
    for (int v = 0; v < width; ++v) hits = append_queries(hits, passed[v], sums[d][v], doc + d, v * W);
  }
  return hits;
}

static size_t scan_panels(const DocTile& docs, const QueryBlock& queries, int n_panels, int depth, Hit* hits) {
  Hit* const first = hits;
  int doc = 0;
  for (; doc + BLOCK_DOCS <= docs.count; doc += BLOCK_DOCS)
    hits = n_panels == 2 ? scan_block(docs, doc, queries, depth, hits, BLOCK_DOCS, 2)
                         : scan_block(docs, doc, queries, depth, hits, BLOCK_DOCS, 1);
  for (; doc < docs.count; ++doc)
    hits = n_panels == 2 ? scan_block(docs, doc, queries, depth, hits, 1, 2)
                         : scan_block(docs, doc, queries, depth, hits, 1, 1);
  return hits - first;
}

template <int PANELS>
static void panel_maxima(const TokenTile& docs, const int8_t* panel, const int32_t* start, int depth, float* maxima,
                         size_t stride) {
  Maxima<PANELS> best(docs, maxima, stride, 0);
  I sums[BLOCK_DOCS][MAX_PANELS * VECTORS];
  int token = 0;
  for (; token + BLOCK_DOCS <= docs.count; token += BLOCK_DOCS) {
    multiply_block(docs.codes + token * docs.stride, docs.stride, panel, start, depth, sums, BLOCK_DOCS, PANELS);
#pragma GCC unroll 16
    for (int d = 0; d < BLOCK_DOCS; ++d) best.add(sums[d], token + d);
  }
  for (; token < docs.count; ++token) {
    multiply_block(docs.codes + token * docs.stride, docs.stride, panel, start, depth, sums, 1, PANELS);
    best.add(sums[0], token);
  }
  best.save();
}

static void token_maxima(const TokenTile& docs, const int8_t* panels, const int32_t* start, int n_panels, int depth,
                         float* maxima, size_t stride) {
  int panel = 0;
  for (; panel + 2 <= n_panels; panel += 2)
    panel_maxima<2>(for_panel(docs, panel), panels + panel * (size_t)depth * PANEL, start + panel * PANEL, depth, maxima + panel * PANEL, stride);
  if (panel < n_panels)
    panel_maxima<1>(for_panel(docs, panel), panels + panel * (size_t)depth * PANEL, start + panel * PANEL, depth, maxima + panel * PANEL, stride);
}

#endif
