// The kernels of late interaction against plain loops: to the bit where the specification sees their results, within
// the bound that a search relies on where not.
#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "checks.h"

using namespace pyengine;

namespace {

constexpr float INF = std::numeric_limits<float>::infinity();

int padded(int n, int step) { return (n + step - 1) / step * step; }

// Document tokens as codes and query tokens in panels, and the maxima that they must give.
struct ScannedTokens {
  int count, depth, n_queries, stride;
  std::vector<uint8_t> codes;
  std::vector<int8_t> queries, panels;
  std::vector<int32_t> start, ends;
  std::vector<float> scale, added;
  std::vector<uint16_t> centroid;

  ScannedTokens(const KernelTable& table, int count_, int depth_, int n_panels, int n_added)
      : count(count_), depth(depth_), n_queries(n_panels * PANEL), stride(depth_ + DEPTH_STEP),
        codes(static_cast<size_t>(count_) * stride), queries(n_queries * depth_), panels(n_queries * depth_),
        start(n_queries), scale(random_sizes(count_, 1)), added(random_floats(n_added * row_floats(), 1e4f)) {
    std::uniform_int_distribution<int> byte(1, 255), level(-table.query_levels, table.query_levels), coin(0, 3);
    for (uint8_t& c : codes) c = static_cast<uint8_t>(byte(engine));
    for (int8_t& q : queries) q = static_cast<int8_t>(level(engine));
    for (int q = 0; q < n_queries; ++q)
      for (int k = 0; k < depth; ++k) {
        start[q] -= table.code_zero * queries[q * depth + k];
        panels[q / PANEL * PANEL * depth + k / 4 * PANEL * 4 + q % PANEL * 4 + k % 4] = queries[q * depth + k];
      }
    for (int token = 1; token < count; ++token)
      if (coin(engine) == 0) ends.push_back(token);
    ends.push_back(count);
    for (int token = 0; n_added && token < count; ++token)
      centroid.push_back(static_cast<uint16_t>(byte(engine) % (n_added + 1)));  // one is beyond: it counts as the last
  }

  size_t row_floats() const { return n_queries + PANEL; }  // from row to row of maxima

  int product(int token, int q) const {
    int sum = 0;
    for (int k = 0; k < depth; ++k) sum += (codes[token * stride + k] - 128) * queries[q * depth + k];
    return sum;
  }
};

// Without centroids to the bit; with them a product and a sum may be fused or not.
void check_token_maxima(const KernelTable& table, int count, int depth, int n_panels, int n_added) {
  const ScannedTokens given(table, count, depth, n_panels, n_added);
  const size_t stride = given.row_floats();
  const std::vector<float> before = random_floats(given.ends.size() * stride, 1e3f);
  std::vector<float> maxima = before;
  TokenTile tile{given.codes.data(), static_cast<size_t>(given.stride), count, given.scale.data(), given.ends.data(),
                 count % 2 == 0};
  if (n_added) tile.centroid = given.centroid.data(), tile.added = given.added.data(), tile.n_added = n_added;
  table.token_maxima(tile, given.panels.data(), given.start.data(), n_panels, depth, maxima.data(), stride);
  for (size_t doc = 0; doc < given.ends.size(); ++doc)
    for (int q = 0; q < given.n_queries; ++q) {
      float best = before[doc * stride + q], slack = 0;
      for (int token = doc ? given.ends[doc - 1] : 0; token < given.ends[doc]; ++token) {
        const float scaled = static_cast<float>(given.product(token, q)) * given.scale[token];
        const int row = n_added ? std::min<int>(given.centroid[token], n_added - 1) : 0;
        const float plus = n_added ? given.added[row * stride + q] : 0;
        best = std::max(best, scaled + plus);
        if (n_added) slack = std::max(slack, 0x1p-22f * (std::fabs(scaled) + std::fabs(plus)));
      }
      require(std::fabs(maxima[doc * stride + q] - best) <= slack, table, "token_maxima", depth);
    }
  for (size_t doc = 0; doc < given.ends.size(); ++doc)
    for (size_t q = given.n_queries; q < stride; ++q)
      require(maxima[doc * stride + q] == before[doc * stride + q], table, "token_maxima (beyond its panels)", depth);
}

float bfloat16(const std::vector<uint32_t>& words, int i) {
  const uint32_t bits = i % 2 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// `row` as words, and what these stand for.
std::vector<uint32_t> as_words(const KernelTable& table, std::vector<float>& row) {
  const int n = static_cast<int>(row.size());
  std::vector<uint32_t> words(table.token_words(n), 0xffffffffu);
  if (!table.round_token) {
    std::memcpy(words.data(), row.data(), n * sizeof(float));
    return words;
  }
  table.round_token(row.data(), n, words.data());
  for (int i = 0; i < 2 * static_cast<int>(words.size()); ++i) {
    const float rounded = bfloat16(words, i), wanted = i < n ? row[i] : 0;
    require(std::fabs(rounded - wanted) <= table.token_rounding * std::fabs(wanted), table, "round_token", n);
    if (i < n) row[i] = rounded;
  }
  return words;
}

void check_products(const KernelTable& table, const std::vector<std::vector<float>>& rows,
                    const std::vector<std::vector<float>>& queries, const std::vector<float>& out, const char* what) {
  const int dim = static_cast<int>(rows[0].size());
  const size_t width = padded(static_cast<int>(queries.size()), PANEL);
  for (size_t r = 0; r < rows.size(); ++r)
    for (size_t q = 0; q < queries.size(); ++q) {
      double product = 0, size = 0;
      for (int k = 0; k < dim; ++k) {
        const double term = static_cast<double>(rows[r][k]) * queries[q][k];
        product += term, size += std::fabs(term);
      }
      require(std::fabs(out[r * width + q] - product) <= (dim + 2) * 0x1p-24 * size, table, what, dim);
    }
}

void check_estimates(const KernelTable& table, int count, int n_queries, int dim) {
  const int n_panels = padded(n_queries, PANEL) / PANEL, words = table.token_words(dim);
  std::vector<std::vector<float>> rows(count), queries(n_queries);
  std::vector<float> plain(static_cast<size_t>(count) * dim), plain_panels(static_cast<size_t>(n_panels) * dim * PANEL);
  std::vector<uint32_t> packed(static_cast<size_t>(padded(count, TOKEN_ROWS)) * words);
  std::vector<uint32_t> panels(static_cast<size_t>(n_panels) * words * PANEL);
  const size_t n_out = static_cast<size_t>(padded(count, TOKEN_ROWS)) * n_panels * PANEL;
  for (int r = 0; r < count; ++r) {
    rows[r] = random_floats(dim, 1);
    std::copy(rows[r].begin(), rows[r].end(), plain.begin() + static_cast<size_t>(r) * dim);
  }
  for (int q = 0; q < n_queries; ++q) {
    queries[q] = random_floats(dim, 1);
    for (int k = 0; k < dim; ++k)
      plain_panels[(q / PANEL * static_cast<size_t>(dim) + k) * PANEL + q % PANEL] = queries[q][k];
  }
  std::vector<float> out(n_out, NAN);
  table.multiply_tokens(plain.data(), dim, count, plain_panels.data(), n_panels, dim, out.data());
  check_products(table, rows, queries, out, "multiply_tokens");
  for (int r = 0; r < count; ++r) {
    const std::vector<uint32_t> own = as_words(table, rows[r]);
    std::copy(own.begin(), own.end(), packed.begin() + static_cast<size_t>(r) * words);
  }
  for (int q = 0; q < n_queries; ++q) {
    const std::vector<uint32_t> own = as_words(table, queries[q]);
    for (int k = 0; k < words; ++k) panels[(q / PANEL * static_cast<size_t>(words) + k) * PANEL + q % PANEL] = own[k];
  }
  out.assign(n_out, NAN);
  table.estimate_tokens(packed.data(), words, count, panels.data(), n_panels, words, out.data());
  check_products(table, rows, queries, out, "estimate_tokens");
}

void check_window(const KernelTable& table, int count, int n_queries, bool by_row) {
  const int width = padded(n_queries, PANEL);
  std::vector<float> estimates = random_floats(static_cast<size_t>(count) * width, 1);
  std::vector<float> error = random_sizes(width, 0.1f);
  const std::vector<float> scale = random_sizes(count, 1), weight = random_sizes(count, 1);
  if (count > 2) estimates[2 * width] = NAN;
  std::vector<uint16_t> sought(width / PANEL, 0), present(width / PANEL, 0);
  for (int q = 0; q < width; ++q) {
    if (q < n_queries) present[q / PANEL] |= 1 << q % PANEL;
    if (q < n_queries && q % 5) sought[q / PANEL] |= 1 << q % PANEL;
    if (q >= n_queries) error[q] = INF;
  }
  const std::vector<float> before = random_floats(width, 1);
  std::vector<float> least = before, row_least(count, NAN);
  const TokenWindow window{estimates.data(), count, width, scale.data(), weight.data(), error.data(), sought.data(),
                           present.data(), least.data(), by_row ? row_least.data() : nullptr};
  std::vector<TokenPair> listed(static_cast<size_t>(count) * width);
  listed.resize(table.window_pairs(window, listed.data()));

  auto reach = [&](int r, int q, int sign) {
    return static_cast<double>(estimates[r * width + q]) * scale[r] + sign * static_cast<double>(error[q]) * weight[r];
  };
  std::vector<double> best(before.begin(), before.end()), row_best(count, -INF);
  for (int r = 0; r < count; ++r)
    for (int q = 0; q < width; ++q)
      if (const double low = reach(r, q, -1); !std::isnan(low))
        best[q] = std::max(best[q], low), row_best[r] = std::max(row_best[r], low);
  constexpr double SLACK = 1e-5;  // float32 rounding may decide
  for (int q = 0; q < width; ++q) require(std::fabs(least[q] - best[q]) < SLACK, table, "window_pairs (least)", count);
  for (int r = 0; by_row && r < count; ++r)
    require(std::fabs(row_least[r] - row_best[r]) < SLACK, table, "window_pairs (row_least)", count);

  std::set<std::pair<int, int>> found;
  std::vector<int> last_doc(width, -1), last_query(count, -1);
  for (const TokenPair& pair : listed) {
    require(last_doc[pair.query] < pair.doc && last_query[pair.doc] < pair.query, table, "window_pairs (order)", count);
    last_doc[pair.query] = pair.doc, last_query[pair.doc] = pair.query;
    found.insert({pair.doc, pair.query});
  }
  for (int r = 0; r < count; ++r)
    for (int q = 0; q < width; ++q) {
      const bool wanted = sought[q / PANEL] >> q % PANEL & 1, there = present[q / PANEL] >> q % PANEL & 1;
      const double high = reach(r, q, 1), over = wanted ? best[q] - high : INF;
      const double row_over = by_row && there ? row_best[r] - high : INF;
      if (std::fabs(over) < SLACK || std::fabs(row_over) < SLACK) continue;
      const bool passes = (wanted && !(over > 0)) || (by_row && there && !(row_over > 0));
      require(found.count({r, q}) == passes, table, "window_pairs", count);
    }
}

// What float32 holds, as doubles.
std::vector<double> random_doubles(size_t n, float scale) {
  const std::vector<float> values = random_floats(n, scale);
  return std::vector<double>(values.begin(), values.end());
}

void check_products_f64(const KernelTable& table, int n_queries, int n_rows, int n) {
  const std::vector<double> queries = random_doubles(n_queries * n, 3), rows = random_doubles(n_rows * n, 1e-3f);
  const size_t stride = n_rows + 3;
  std::vector<double> out(n_queries * stride, NAN);
  table.products_f64(queries.data(), n_queries, rows.data(), n_rows, n, out.data(), stride);
  for (int q = 0; q < n_queries; ++q)
    for (int r = 0; r < n_rows; ++r) {
      const double want = lanes(queries.data() + q * n, rows.data() + r * n, n, false);
      require(same_bits(out[q * stride + r], want), table, "products_f64", n);
    }
  std::vector<double> sums = random_doubles(n, 1), wanted = sums;
  table.add_scaled_f64(rows.data(), queries[0], n, sums.data());
  for (int k = 0; k < n; ++k) {
    const double term = rows[k] * queries[0];
    wanted[k] += term;
    require(same_bits(sums[k], wanted[k]), table, "add_scaled_f64", n);
  }
}

// pyengine/specification/reference_softmax.py, for x in [-200, 0].
double specified_exp(double x) {
  const double shifted = x * 1.4426950408889634 + 0x1.8p52, k = shifted - 0x1.8p52;
  const double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  const double factorials[] = {6227020800, 479001600, 39916800, 3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1, 1};
  double sum = 1 / factorials[0];
  for (int i = 1; i < 14; ++i) {
    const double product = sum * r;
    sum = product + 1 / factorials[i];
  }
  return std::ldexp(sum, static_cast<int>(k));
}

void check_soften(const KernelTable& table, int n, double temperature) {
  const int n_all = padded(n, 8);
  std::vector<double> products = random_doubles(n_all, 2);
  std::fill(products.begin() + n, products.end(), -static_cast<double>(INF));
  const double largest = *std::max_element(products.begin(), products.end());
  double powers[8] = {}, weighted[8] = {};
  std::vector<double> wanted(n_all);
  for (int j = 0; j < n_all; ++j) {
    const double below = products[j] - largest, x = below / temperature;
    wanted[j] = x < -200 ? 0 : specified_exp(x);
    powers[j % 8] += wanted[j];
    const double term = x < -200 ? 0 : wanted[j] * below;
    weighted[j % 8] += term;
  }
  const double mean = table.soften(products.data(), n_all, temperature);
  require(same_bits(mean, largest + add_lanes(weighted) / add_lanes(powers)), table, "soften (mean)", n);
  for (int j = 0; j < n_all; ++j) require(same_bits(products[j], wanted[j]), table, "soften", n);
}

void check_square(const KernelTable& table, int n) {
  const std::vector<float> row = random_floats(n, 3);
  double square = 0;
  for (const float x : row) square += static_cast<double>(x) * x;
  const double off = std::fabs(table.square_f32(row.data(), n) - square);
  require(off <= (n / 4 + 32) * 0x1p-24 * square, table, "square_f32", n);
}

}  // namespace

void check_maxsim(const KernelTable& table) {
  for (int count : {1, 2, 15, 16, 17, 33, 70})
    for (int panels : {1, 2, 3, 5}) {
      for (int depth : {64, 192})
        for (int added : {0, 6}) check_token_maxima(table, count, depth, panels, added);
      for (int dim : {1, 7, 33, 96, 128}) check_estimates(table, count, panels * PANEL - 3, dim);
      for (bool by_row : {false, true}) check_window(table, count, panels * PANEL - 3, by_row);
    }
  for (int n : {8, 16, 40, 128})
    for (int rows : {1, 2, 3, 4, 5, 9}) check_products_f64(table, rows % 5 + 1, rows, n);
  for (int n : {1, 7, 8, 9, 100, 1001})
    for (double temperature : {1e-3, 0.05, 1.0, 1e6}) check_soften(table, n, temperature);
  for (int n : {1, 3, 8, 17, 96, 129, 771}) check_square(table, n);
}
