// Dense top-k in both directions by one pass: each tile of products of int8 codes feeds the pools of its columns and of its
// rows. The counterpart of kernels/dense_both.py, which says what the terms are, in the order of tiles that
// kernels/dense_both_plan.py plans.
#include "dense_tile.cuh"

namespace pyengine::cuda {
namespace {

constexpr int COLUMNS = 64;  // of a tile; its rows are DOCS

struct Side : Pools {  // rows, or columns
  const float* terms;  // [5, N]
  int64_t count;
};

// The parameters of a side, after the number of its members, which is a parameter, too; and the `Side` that they are.
#define SIDE_PARAMETERS(side)                                                                                        \
  const float *side##_terms, const float *side##_threshold, int32_t *side##_items, float *side##_upper,              \
      float *side##_lower, int32_t *side##_counts, int32_t *side##_lost, int64_t side##_capacity
#define SIDE(side, count)                                                                                            \
  Side {                                                                                                             \
    {side##_threshold, side##_items, side##_upper, side##_lower, side##_counts, side##_lost, side##_capacity},       \
        side##_terms, count                                                                                          \
  }

struct SideTerms { float weight, gain, high, low, lift; };

DEVICE SideTerms side_terms(const Side& side, int64_t number) {
  const float* at = side.terms + (number < side.count ? number : side.count - 1);
  const int64_t n = side.count;
  return {at[0], at[n], at[2 * n], at[3 * n], at[4 * n]};
}

// What bounds on the cosine of an owner and an item are in the units of the owner.
DEVICE Bounds owned(const SideTerms& owner, const SideTerms& item, Bounds cosine) {
  const float by = item.weight * owner.gain;
  return {fmaf(owner.lift, item.high, by * cosine.upper), fmaf(owner.lift, item.low, by * cosine.lower)};
}

struct Order {  // of tiles: kernels/dense_both_plan.py
  int64_t shorter, laps, lap_step, diagonal_step, group, rows_long;
};

struct TileAt { int64_t row, column; };

// The number-th tile. Some are beyond the last.
DEVICE TileAt tile_at(const Order& order, int64_t number) {
  const int64_t group = order.group, lap = order.shorter * order.laps;
  const int64_t diagonal = number / (lap * group * group), rest = number % (lap * group * group), row = rest % group;
  const int64_t within = diagonal == 0 ? rest / (lap * group) : rest / group % group;
  const int64_t at = diagonal == 0 ? rest / group % lap : rest / (group * group);
  const int64_t one = (at % order.shorter + diagonal * order.diagonal_step) % order.shorter;
  const int64_t other = at % order.shorter + order.shorter * (at / order.shorter * order.lap_step % order.laps);
  const int64_t rows = order.rows_long ? other : one, columns = order.rows_long ? one : other;
  return {rows * group + row, columns * group + (row + within) % group};
}

struct Sides {
  Side rows, columns;
  const float *doc_terms, *query_terms;  // [3, N] and [5, P], of cosine
  int64_t padded;

  DEVICE DocTerms doc(int64_t row) const {
    const float* at = doc_terms + (row < rows.count ? row : rows.count - 1);
    return {at[0], at[rows.count], at[2 * rows.count], 0.0f, 0.0f};
  }
};

// What is known of a tile's columns, and the places that it takes of the pools.
struct TileSides {
  QueryTerms queries[COLUMNS];
  SideTerms terms[COLUMNS];
  TilePools<COLUMNS> columns;
  TilePools<DOCS> rows;

  DEVICE void load(const Sides& sides, int64_t row, int64_t column) {
    columns.load<Block>(sides.columns, column, sides.columns.count);
    rows.load<Block>(sides.rows, row, sides.rows.count);
    for (int i = Block::rank(); i < COLUMNS; i += Block::size()) {
      const float* at = sides.query_terms + column + i;
      queries[i] = {at[0], at[sides.padded], at[2 * sides.padded], at[3 * sides.padded], 0.0f};
      terms[i] = side_terms(sides.columns, column + i);
    }
  }
};

// f(row, column, bounds of the cosine) for the products of which a thread has set bits, both as numbers in the tile.
template <class Products, class Do>
DEVICE void each_of(const Sides& sides, const TileSides& tile, const Products& products, uint32_t kept, int64_t first,
                    Do f) {
#pragma unroll
  for (int eight = 0; eight < Products::COUNT; eight += 8)
    for (uint32_t bits = kept >> eight & 0xFF; bits; bits &= bits - 1) {
      const int i = __ffs(bits) - 1, row = products.doc(i / 2), column = products.query(eight + i);
      const float sum = sum_at(products, eight, i, tile.queries[column]);
      f(row, column, bounds(sides.doc(first + row), tile.queries[column], sum));
    }
}

// Of a thread's products those that its columns, and those that its rows may keep: a bit each.
template <class Products>
DEVICE void find_passing(const Sides& sides, const TileSides& tile, const Products& products, TileAt first,
                         uint32_t& forth, uint32_t& back) {
  static_assert(Products::COUNT == 32);
  DocTerms docs[4];
  SideTerms rows[4];
  float threshold[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    docs[i] = sides.doc(first.row + products.doc(i));
    rows[i] = side_terms(sides.rows, first.row + products.doc(i));
    threshold[i] = tile.rows.threshold[products.doc(i)];
  }
#pragma unroll
  for (int number = 0; number < Products::COUNT; ++number) {
    const int column = products.query(number), i = number % 8 / 2;
    const bool there = first.row + products.doc(i) < sides.rows.count && first.column + column < sides.columns.count;
    const QueryTerms& query = tile.queries[column];
    const Bounds cosine = bounds(docs[i], query, products.sum(number, query));
    if (there && passes(owned(tile.terms[column], rows[i], cosine).upper, tile.columns.threshold[column]))
      forth |= 1u << number;
    if (there && passes(owned(rows[i], tile.terms[column], cosine).upper, threshold[i])) back |= 1u << number;
  }
}

template <class Products>
DEVICE void append_both(const Sides& sides, TileSides& tile, const Products& products, TileAt first) {
  uint32_t forth = 0, back = 0;
  find_passing(sides, tile, products, first, forth, back);
  for (uint32_t bits = forth; bits; bits &= bits - 1) atomicAdd(&tile.columns.kept[products.query(__ffs(bits) - 1)], 1);
  for (uint32_t bits = back; bits; bits &= bits - 1)
    atomicAdd(&tile.rows.kept[products.doc((__ffs(bits) - 1) % 8 / 2)], 1);
  if (!Block::any(forth || back)) return;

  tile.columns.reserve<Block>(sides.columns, first.column);
  tile.rows.reserve<Block>(sides.rows, first.row);
  Block::sync();
  each_of(sides, tile, products, forth, first.row, [&](int row, int column, Bounds cosine) {
    const SideTerms item = side_terms(sides.rows, first.row + row);
    tile.columns.append(sides.columns, first.column, column, first.row + row, owned(tile.terms[column], item, cosine));
  });
  each_of(sides, tile, products, back, first.row, [&](int row, int column, Bounds cosine) {
    const SideTerms owner = side_terms(sides.rows, first.row + row);
    tile.rows.append(sides.rows, first.row, row, first.column + column, owned(owner, tile.terms[column], cosine));
  });
  Block::sync();
  tile.columns.finish<Block>(sides.columns, first.column);
  tile.rows.finish<Block>(sides.rows, first.row);
}

}  // namespace

// `first` is the number of the first tile. Shared memory leaves room for one block or two: registers need not be few.
KERNEL(dense_both, 256, 1)(OPERAND_PARAMETERS, const float* doc_terms, const float* query_terms, int64_t padded,
                           int64_t n_docs, int64_t n_columns, SIDE_PARAMETERS(row), SIDE_PARAMETERS(column),
                           int64_t first, int64_t shorter, int64_t laps, int64_t lap_step, int64_t diagonal_step,
                           int64_t group, int64_t rows_long) {
  DYNAMIC_SHARED(shared);
  __shared__ TileSides tile;
  const Order order{shorter, laps, lap_step, diagonal_step, group, rows_long};
  const Sides sides{SIDE(row, n_docs), SIDE(column, n_columns), doc_terms, query_terms, padded};
  TileAt at = tile_at(order, first + blockIdx.x);
  at = {at.row * DOCS, at.column * COLUMNS};
  if (at.row >= n_docs || at.column >= n_columns) return;
  tile.load(sides, at.row, at.column);
  Products<INT8, COLUMNS, 1, 2> products;
  multiply_tile<COLUMNS, 1>(products, OPERAND, shared, at.row, at.column);
  append_both(sides, tile, products, at);
}

}  // namespace pyengine::cuda
