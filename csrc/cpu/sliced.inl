// Sliced vectors: a product counts where the bytes of the two slices are equal. Part of kernels.inl. Defined before, in
// the ISA file:
//   I gated4(I sum, I codes, I query, I slices, I wanted, const bool negative)
//       per lane, add (code - 128) * query of those of its four bytes whose slices are equal; queries are below 0
//       only where `negative`
//   void sum_lanes(const I* vectors, int32_t* sums)           of four vectors
//   uint64_t equal64(const uint8_t* a, const uint8_t* b)      bit i set where byte i of 64 is equal

constexpr int SLICED_BLOCK = W == 16 ? 4 : 2;  // documents, and queries, whose products are in registers together

// Products of DOCS documents with QUERIES queries, both rows of `depth` bytes; those of a query are W apart.
template <int DOCS, int QUERIES, bool NEGATIVE>
INLINE void sliced_products(const uint8_t* codes, size_t stride, const uint8_t* const* slices, const int8_t* queries,
                            const uint8_t* wanted, int depth, int32_t* out) {
  constexpr int PAIRS = DOCS * QUERIES;
  I sums[(PAIRS + 3) / 4 * 4] = {};  // [QUERIES][DOCS]
  for (int k = 0; k < depth; k += 4 * W) {
    I code[DOCS], slice[DOCS];
#pragma GCC unroll 4
    for (int d = 0; d < DOCS; ++d) code[d] = load_i(codes + d * stride + k), slice[d] = load_i(slices[d] + k);
#pragma GCC unroll 4
    for (int q = 0; q < QUERIES; ++q) {
      const I query = load_i(queries + q * (size_t)depth + k), want = load_i(wanted + q * (size_t)depth + k);
#pragma GCC unroll 4
      for (int d = 0; d < DOCS; ++d) {
        I& sum = sums[q * DOCS + d];
        sum = gated4(sum, code[d], query, slice[d], want, NEGATIVE);
      }
    }
  }
  int32_t found[(PAIRS + 3) / 4 * 4];
#pragma GCC unroll 4
  for (int i = 0; i < PAIRS; i += 4) sum_lanes(sums + i, found + i);
#pragma GCC unroll 4
  for (int q = 0; q < QUERIES; ++q) __builtin_memcpy(out + q * W, found + q * DOCS, DOCS * sizeof(int32_t));
}

// QUERIES queries from `query` on, and `count` <= W documents from `doc` on.
template <int QUERIES, bool NEGATIVE>
INLINE Hit* scan_sliced_block(const DocTile& docs, int doc, int count, const QueryBlock& queries,
                              const SlicedBlock& slices, int query, int depth, Hit* hits) {
  int32_t products[QUERIES * W] = {};
  const int8_t* rows = queries.panels + query * (size_t)depth;
  const uint8_t* wanted = slices.queries + query * (size_t)depth;
  for (int d = 0; d < count;) {
    const uint8_t* codes = docs.codes + (doc + d) * docs.stride;
    int32_t* out = products + d;
    if (d + SLICED_BLOCK <= count) {
      sliced_products<SLICED_BLOCK, QUERIES, NEGATIVE>(codes, docs.stride, slices.docs + doc + d, rows, wanted, depth,
                                                       out);
      d += SLICED_BLOCK;
    } else {
      sliced_products<1, QUERIES, NEGATIVE>(codes, docs.stride, slices.docs + doc + d, rows, wanted, depth, out);
      ++d;
    }
  }
  for (int q = 0; q < QUERIES; ++q) hits = filter_docs(products + q * W, count, docs, doc, queries, query + q, hits);
  return hits;
}

// Some of the W documents that come next, before each block of queries: memory is then always at work.
INLINE void fetch_sliced(const DocTile& docs, const SlicedBlock& slices, int doc, int first, int last, int depth) {
  if (!docs.cold) return;
  for (int d = doc + W + first; d < doc + W + last && d < docs.count; ++d)
    for (int line = 0; line < depth; line += DEPTH_STEP) {
      __builtin_prefetch(docs.codes + d * docs.stride + line, 0, 2);
      __builtin_prefetch(slices.docs[d] + line, 0, 2);
    }
}

template <bool NEGATIVE>
static size_t scan_sliced_rows(const DocTile& docs, const QueryBlock& queries, const SlicedBlock& slices, int n_queries,
                               int depth, Hit* hits) {
  Hit* const first = hits;
  for (int doc = 0; doc < docs.count; doc += W) {
    const int count = docs.count - doc < W ? docs.count - doc : W;
    int query = 0;
    for (; query + SLICED_BLOCK <= n_queries; query += SLICED_BLOCK) {
      fetch_sliced(docs, slices, doc, W * query / n_queries, W * (query + SLICED_BLOCK) / n_queries, depth);
      hits = scan_sliced_block<SLICED_BLOCK, NEGATIVE>(docs, doc, count, queries, slices, query, depth, hits);
    }
    for (; query < n_queries; ++query) {
      fetch_sliced(docs, slices, doc, W * query / n_queries, W * (query + 1) / n_queries, depth);
      hits = scan_sliced_block<1, NEGATIVE>(docs, doc, count, queries, slices, query, depth, hits);
    }
  }
  return hits - first;
}

static size_t scan_sliced(const DocTile& docs, const QueryBlock& queries, const SlicedBlock& slices, int n_queries,
                          int depth, Hit* hits) {
  return slices.negative ? scan_sliced_rows<true>(docs, queries, slices, n_queries, depth, hits)
                         : scan_sliced_rows<false>(docs, queries, slices, n_queries, depth, hits);
}

static int32_t dot_sliced(const uint8_t* codes, const uint8_t* slices, const int8_t* query, const uint8_t* wanted,
                          int depth) {
  I sum = I{};
  for (int i = 0; i < depth; i += 4 * W)
    sum = gated4(sum, load_i(codes + i), load_i(query + i), load_i(slices + i), load_i(wanted + i), true);
  return lane_sum<I, int32_t>(sum);
}

static double sliced_f64(const float* query, const uint8_t* wanted, const float* row, const uint8_t* slices, int n) {
  double sum = 0;
  for (int i = 0; i < n; i += 64) {
    uint64_t equal = equal64(slices + i, wanted + i);
    if (n - i < 64) equal &= (uint64_t{1} << (n - i)) - 1;
    for (; equal; equal &= equal - 1) {
      const int at = i + __builtin_ctzll(equal);
      sum += static_cast<double>(query[at]) * row[at];
    }
  }
  return sum;
}
