// AMX int8: 16 x 16 products of 64 bytes an instruction. What is not matrix work is AVX-512's.
//
// With PYENGINE_TESTING the same code is built a second time over tiles in software (amx_emulated.cpp).
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/kernels.h"
#include "cpu/target.h"

#ifdef PYENGINE_SOFTWARE_TILES
#include "cpu/amx_software.h"
PYENGINE_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,prefer-vector-width=512")
#else
PYENGINE_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,amx-tile,amx-int8,amx-bf16,avx512bf16,prefer-vector-width=512")
#endif
namespace pyengine {
namespace {
#include "cpu/avx512.inl"

#define PYENGINE_TILED_SCAN
#include "cpu/kernels.inl"

constexpr int TILE_DOCS = 16;
constexpr size_t LINE = 64;  // bytes of a tile's row
constexpr int STEP = 64;     // codes of a row that a tile holds
constexpr int AHEAD = 64;    // document tokens that are fetched before they are needed

// The layout that ldtilecfg reads. Tiles before `whole` have a row for each document. If not said otherwise, 0-3 are
// sums [doc group * 2 + panel], 4-5 documents, 6-7 panels.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  explicit TileConfig(int docs, int whole = 6) {
    for (int tile = 0; tile < 8; ++tile) {
      row_bytes[tile] = LINE;
      rows[tile] = tile < whole ? docs : 16;
    }
  }
};

// GCC's _tile_loadconfig tells the compiler of 8 of the 64 bytes that it reads: without this the rest may not be there.
inline __attribute__((always_inline)) void configure(const TileConfig& config) {
  __asm__ volatile("" : : "m"(config));
  _tile_loadconfig(&config);
}

// The products of two groups of 16 documents (or one, of up to 16) and two panels (or one). Tile numbers must be
// literals. `next`: codes to be fetched, or null.
inline __attribute__((always_inline)) void multiply_tiles(const uint8_t* codes, size_t stride, const uint8_t* next,
                                                          int n_docs, const int8_t* panel, const int32_t* start,
                                                          int depth, int32_t (*sums)[2 * PANEL], const bool two_groups,
                                                          const bool two_panels) {
  constexpr size_t ROW = 2 * PANEL * sizeof(int32_t);
  _tile_loadd(0, start, 0);  // stride 0: every row starts at the queries' corrections
  if (two_panels) _tile_loadd(1, start + PANEL, 0);
  if (two_groups) _tile_loadd(2, start, 0);
  if (two_groups && two_panels) _tile_loadd(3, start + PANEL, 0);
  for (int k = 0; k < depth; k += LINE) {
    if (next)  // tile loads do not set the hardware prefetching
      for (int d = 0; d < n_docs; ++d) __builtin_prefetch(next + d * stride + k, 0, 2);
    _tile_loadd(4, codes + k, stride);
    _tile_loadd(6, panel + (size_t)k * PANEL, LINE);
    _tile_dpbusd(0, 4, 6);
    if (two_panels) {
      _tile_loadd(7, panel + (size_t)(depth + k) * PANEL, LINE);
      _tile_dpbusd(1, 4, 7);
    }
    if (two_groups) {
      _tile_loadd(5, codes + TILE_DOCS * stride + k, stride);
      _tile_dpbusd(2, 5, 6);
      if (two_panels) _tile_dpbusd(3, 5, 7);
    }
  }
  _tile_stored(0, sums[0], ROW);
  if (two_panels) _tile_stored(1, sums[0] + PANEL, ROW);
  if (two_groups) _tile_stored(2, sums[TILE_DOCS], ROW);
  if (two_groups && two_panels) _tile_stored(3, sums[TILE_DOCS] + PANEL, ROW);
}

inline __attribute__((always_inline)) Hit* scan_tiles(const DocTile& docs, int doc, int n_docs,
                                                      const QueryBlock& queries, int depth, Hit* hits,
                                                      const bool two_groups, const bool two_panels) {
  alignas(64) int32_t sums[2 * TILE_DOCS][2 * PANEL];
  const uint8_t* codes = docs.codes + doc * docs.stride;
  multiply_tiles(codes, docs.stride, docs.cold ? codes + n_docs * docs.stride : nullptr, n_docs, queries.panels,
                 queries.start, depth, sums, two_groups, two_panels);
  const QueryTerms near = load_terms(queries, 0), far = two_panels ? load_terms(queries, PANEL) : near;
  const DocTile terms = docs;  // a copy, which no store can be taken to change
  for (int d = 0; d < n_docs; ++d) {
    const I first = load_i(sums[d]), second = load_i(sums[d] + PANEL);
    const unsigned passed = passing_queries(first, terms, doc + d, near);
    const unsigned more = two_panels ? passing_queries(second, terms, doc + d, far) : 0;
    if (__builtin_expect((passed | more) == 0, 1)) continue;
    hits = append_queries(hits, passed, first, doc + d, 0);
    if (two_panels) hits = append_queries(hits, more, second, doc + d, PANEL);
  }
  return hits;
}

size_t scan_panels(const DocTile& docs, const QueryBlock& queries, int n_panels, int depth, Hit* hits) {
  Hit* const first = hits;
  int doc = 0;
  configure(TileConfig(TILE_DOCS));
  for (; doc + 2 * TILE_DOCS <= docs.count; doc += 2 * TILE_DOCS)
    hits = n_panels == 2 ? scan_tiles(docs, doc, 2 * TILE_DOCS, queries, depth, hits, true, true)
                         : scan_tiles(docs, doc, 2 * TILE_DOCS, queries, depth, hits, true, false);
  while (doc < docs.count) {
    const int n_docs = docs.count - doc < TILE_DOCS ? docs.count - doc : TILE_DOCS;
    configure(TileConfig(n_docs));
    hits = n_panels == 2 ? scan_tiles(docs, doc, n_docs, queries, depth, hits, false, true)
                         : scan_tiles(docs, doc, n_docs, queries, depth, hits, false, false);
    doc += n_docs;
  }
  _tile_release();
  return hits - first;
}

// The queries' corrections, which sums start at, in every row: a tile loaded from one line, with stride 0, takes five
// times as long.
struct alignas(64) StartTiles {
  int32_t rows[2][TILE_DOCS][PANEL];

  INLINE_MEMBER StartTiles(const int32_t* start, int n_panels) {
    for (int p = 0; p < n_panels; ++p)
      for (int row = 0; row < TILE_DOCS; ++row) __builtin_memcpy(rows[p][row], start + p * PANEL, sizeof rows[p][row]);
  }
};

// Groups of 16 document tokens and `PANELS` panels. The tiles work on a group while the maxima of the one before it are
// taken. Tiles 0-1 are sums, 2-3 documents, 4-7 panels [step * 2 + panel], which stay there if they have two steps.
template <int PANELS>
struct PanelMaxima {
  const TokenTile& docs;
  const int8_t* panel;
  int depth;
  bool fetch;
  // Within 4 KiB: a load that has the last 12 bits of a store's address in common waits for it.
  StartTiles start;
  int32_t sums[TILE_DOCS][2 * PANEL];

  INLINE_MEMBER PanelMaxima(const TokenTile& docs_, const int8_t* panel_, const int32_t* start_, int depth_,
                            bool fetch_)
      : docs(docs_), panel(panel_), depth(depth_), fetch(fetch_), start(start_, PANELS) {}

  // Where a group's rows begin. The last one goes back, so that it is whole.
  INLINE_MEMBER int row_of(int first) const {
    return first + TILE_DOCS <= docs.count ? first : docs.count < TILE_DOCS ? 0 : docs.count - TILE_DOCS;
  }

  INLINE_MEMBER void load_docs(int first) const {
    const uint8_t* codes = docs.codes + row_of(first) * docs.stride;
    if (fetch)  // tile loads do not set the hardware prefetching
      for (int d = 0; d < TILE_DOCS; ++d)
        for (int k = 0; k < depth; k += STEP) __builtin_prefetch(codes + (d + AHEAD) * docs.stride + k, 0, 2);
    if (depth > 2 * STEP) return;
    _tile_loadd(2, codes, docs.stride);
    if (depth > STEP) _tile_loadd(3, codes + LINE, docs.stride);
  }

  INLINE_MEMBER void load_panels() const {
    if (depth > 2 * STEP) return;
    _tile_loadd(4, panel, LINE);
    if (PANELS == 2) _tile_loadd(5, panel + depth * PANEL, LINE);
    if (depth <= STEP) return;
    _tile_loadd(6, panel + LINE * PANEL, LINE);
    if (PANELS == 2) _tile_loadd(7, panel + (depth + LINE) * PANEL, LINE);
  }

  INLINE_MEMBER void multiply(int first) const {
    _tile_loadd(0, start.rows[0], LINE);
    if (PANELS == 2) _tile_loadd(1, start.rows[1], LINE);
    if (depth > 2 * STEP) return multiply_deep(docs.codes + row_of(first) * docs.stride);
    _tile_dpbusd(0, 2, 4);
    if (PANELS == 2) _tile_dpbusd(1, 2, 5);
    if (depth <= STEP) return;
    _tile_dpbusd(0, 3, 6);
    if (PANELS == 2) _tile_dpbusd(1, 3, 7);
  }

  INLINE_MEMBER void multiply_deep(const uint8_t* codes) const {
    for (int k = 0; k < depth; k += STEP) {
      _tile_loadd(2, codes + k, docs.stride);
      _tile_loadd(4, panel + (size_t)k * PANEL, LINE);
      _tile_dpbusd(0, 2, 4);
      if (PANELS == 1) continue;
      _tile_loadd(5, panel + (size_t)(depth + k) * PANEL, LINE);
      _tile_dpbusd(1, 2, 5);
    }
  }

  INLINE_MEMBER void run(float* maxima, size_t stride) {
    Maxima<PANELS> best(docs, maxima, stride, 0);
    load_panels();
    load_docs(0);
    int first = 0;
    for (; first < docs.count; first += TILE_DOCS) {
      multiply(first);
      if (first) best.add_rows(sums[0], first - TILE_DOCS, TILE_DOCS);
      if (first + TILE_DOCS < docs.count) load_docs(first + TILE_DOCS);
      _tile_stored(0, sums[0], sizeof sums[0]);
      if (PANELS == 2) _tile_stored(1, sums[0] + PANEL, sizeof sums[0]);
    }
    first -= TILE_DOCS;
    best.add_rows(sums[first - row_of(first)], first, docs.count - first);
    best.save();
  }
};

void token_maxima(const TokenTile& docs, const int8_t* panels, const int32_t* start, int n_panels, int depth,
                  float* maxima, size_t stride) {
  configure(TileConfig(docs.count < TILE_DOCS ? docs.count : TILE_DOCS, 4));
  for (int p = 0; p < n_panels; p += 2) {
    const int8_t* panel = panels + p * (size_t)depth * PANEL;
    const bool fetch = docs.cold && p == 0;
    const TokenTile part = for_panel(docs, p);
    if (p + 1 < n_panels)
      PanelMaxima<2>(part, panel, start + p * PANEL, depth, fetch).run(maxima + p * PANEL, stride);
    else
      PanelMaxima<1>(part, panel, start + p * PANEL, depth, fetch).run(maxima + p * PANEL, stride);
  }
  _tile_release();
}

// ---- MaxSim: token vectors in bfloat16 ----

constexpr double TOKEN_ROUNDING = 0x1p-8;  // eight significant bits
constexpr int TILE_WORDS = LINE / 4;

int token_words(int dim) { return (dim + 2 * TILE_WORDS - 1) / (2 * TILE_WORDS) * TILE_WORDS; }

#ifdef PYENGINE_SOFTWARE_TILES
INLINE H16 upper_half(F v) {
  const I bits = as_bits(v);
  return __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, H16);
}
#endif

// Two vectors of floats as one of bfloat16, to nearest even.
inline __attribute__((always_inline)) I round_floats(F low, F high) {
#ifdef PYENGINE_SOFTWARE_TILES
  const H16 halves[2] = {upper_half(low), upper_half(high)};
  return load_i(halves);
#else
  return (I)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
#endif
}

void round_token(const float* row, int n, uint32_t* words) {
  auto part = [&](int at) __attribute__((always_inline)) {
    return at + W <= n ? load_f(row + at) : load_tail(row + at, n > at ? n - at : 0);
  };
  for (int i = 0; i < n; i += 2 * W) {
    const I rounded = round_floats(part(i), part(i + W));
    __builtin_memcpy(words + i / 2, &rounded, sizeof rounded);
  }
}

// One or two groups of 16 document tokens against one or two panels.
inline __attribute__((always_inline)) void estimate_tiles(const uint8_t* rows, size_t stride, const uint8_t* panel,
                                                          int words, float* out, size_t out_stride,
                                                          const bool two_groups, const bool two_panels) {
  const uint8_t* const other_panel = panel + words * LINE;
  _tile_zero(0);
  if (two_panels) _tile_zero(1);
  if (two_groups) _tile_zero(2);
  if (two_groups && two_panels) _tile_zero(3);
  for (int word = 0; word < words; word += TILE_WORDS) {
    _tile_loadd(4, rows + word * 4, stride);
    _tile_loadd(6, panel + word * LINE, LINE);
    _tile_dpbf16ps(0, 4, 6);
    if (two_panels) {
      _tile_loadd(7, other_panel + word * LINE, LINE);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (two_groups) {
      _tile_loadd(5, rows + TILE_DOCS * stride + word * 4, stride);
      _tile_dpbf16ps(2, 5, 6);
      if (two_panels) _tile_dpbf16ps(3, 5, 7);
    }
  }
  float* const far = out + TILE_DOCS * (out_stride / sizeof(float));
  _tile_stored(0, out, out_stride);
  if (two_panels) _tile_stored(1, out + PANEL, out_stride);
  if (two_groups) _tile_stored(2, far, out_stride);
  if (two_groups && two_panels) _tile_stored(3, far + PANEL, out_stride);
}

void estimate_tokens(const void* rows, size_t stride, int count, const void* panels, int n_panels, int words,
                     float* out) {
  const size_t out_stride = sizeof(float) * n_panels * PANEL;
  configure(TileConfig(TILE_DOCS));
  for (int panel = 0; panel < n_panels; panel += 2) {
    const bool two_panels = panel + 2 <= n_panels;
    const uint8_t* query = static_cast<const uint8_t*>(panels) + static_cast<size_t>(panel) * words * LINE;
    for (int doc = 0; doc < count; doc += 2 * TILE_DOCS) {
      const bool two_groups = doc + TILE_DOCS < count;
      const uint8_t* tokens = static_cast<const uint8_t*>(rows) + doc * stride * 4;
      float* to = out + static_cast<size_t>(doc) * n_panels * PANEL + panel * PANEL;
      if (two_groups && two_panels) estimate_tiles(tokens, stride * 4, query, words, to, out_stride, true, true);
      else if (two_groups) estimate_tiles(tokens, stride * 4, query, words, to, out_stride, true, false);
      else if (two_panels) estimate_tiles(tokens, stride * 4, query, words, to, out_stride, false, true);
      else estimate_tiles(tokens, stride * 4, query, words, to, out_stride, false, false);
    }
  }
  _tile_release();
}

int64_t multiply_in_registers(int64_t rounds) {
  configure(TileConfig(TILE_DOCS));
  for (int64_t round = 0; round < rounds; ++round) {
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  }
  _tile_release();
  return rounds * 4 * TILE_DOCS * PANEL * static_cast<int64_t>(LINE);
}
}  // namespace

#ifdef PYENGINE_SOFTWARE_TILES
extern const KernelTable AMX_EMULATED_KERNELS = PYENGINE_KERNEL_TABLE("amx-emulated", 127, 128);
#else
extern const KernelTable AMX_KERNELS = PYENGINE_KERNEL_TABLE("amx", 127, 128);
#endif
}  // namespace pyengine
PYENGINE_TARGET_END
#endif
