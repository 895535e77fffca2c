// Checks every kernel table of the machine it runs on against plain loops; prints the tables, exits 1 at a difference.
// Lets an instruction set be checked under an emulator, without Python: see tests/test_cross_compiled.py.
#include <set>
#include <tuple>

#include "checks.h"
#include "cpu/dispatch.h"

using namespace pyengine;

namespace {

void check_float64(const KernelTable& table, int n) {
  const std::vector<float> wanted = random_floats(n * PAIR_BLOCK, 3), docs = random_floats(n * PAIR_BLOCK, 1e-3f);
  const float *queries[PAIR_BLOCK], *rows[PAIR_BLOCK];
  for (int r = 0; r < PAIR_BLOCK; ++r) queries[r] = wanted.data() + r * n, rows[r] = docs.data() + r * n;
  for (int count = 1; count <= PAIR_BLOCK; ++count)
    for (const bool difference : {false, true}) {
      double out[PAIR_BLOCK] = {NAN, NAN, NAN, NAN};
      (difference ? table.l2_f64 : table.dot_f64)(queries, rows, rows, count, n, out);
      for (int r = 0; r < count; ++r) {
        const double want = lanes(queries[r], rows[r], n, difference);
        require(same_bits(out[r], want), table, difference ? "l2_f64" : "dot_f64", n);
      }
    }
}

void check_quantize(const KernelTable& table, int n, float scale) {
  const int padded = (n + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP;
  std::vector<float> row = random_floats(n, scale);
  std::vector<uint8_t> codes(padded, 0);
  RowCode code{NAN, NAN, NAN};
  require(table.quantize_row(row.data(), n, padded, codes.data(), &code), table, "quantize_row (finite)", n);
  double squared = 0, error = 0;
  for (float x : row) squared += static_cast<double>(x) * x;
  const double norm = std::sqrt(squared);
  for (int i = 0; i < n; ++i) {
    const double left = (norm > 0 ? row[i] / norm : 0) - static_cast<double>(code.scale) * (codes[i] - 128);
    error += left * left;
  }
  require(std::sqrt(error) <= code.residual || norm == 0, table, "quantize_row (residual)", n);
  require(code.residual <= 0.6 || norm == 0, table, "quantize_row (residual too large)", n);
  require(std::fabs(code.norm - norm) <= (n / 4 + 32) * 0x1p-24 * norm, table, "quantize_row (norm)", n);
  for (int i = n; i < padded; ++i) require(codes[i] == 128, table, "quantize_row (padding)", n);
  row[n - 1] = NAN;
  require(!table.quantize_row(row.data(), n, padded, codes.data(), &code), table, "quantize_row (NaN)", n);
}

void check_scans(const KernelTable& table, int count, int depth, int n_panels, bool offsets) {
  const int n_queries = n_panels * PANEL, stride = depth + DEPTH_STEP;
  std::uniform_int_distribution<int> byte(1, 255), level(-table.query_levels, table.query_levels);
  std::vector<uint8_t> codes(static_cast<size_t>(count) * stride);
  std::vector<int8_t> queries(n_queries * depth), panels(n_queries * depth);
  for (uint8_t& c : codes) c = static_cast<uint8_t>(byte(engine));
  for (int8_t& q : queries) q = static_cast<int8_t>(level(engine));
  std::vector<int32_t> start(n_queries);
  for (int q = 0; q < n_queries; ++q)
    for (int k = 0; k < depth; ++k) {
      start[q] -= table.code_zero * queries[q * depth + k];
      panels[q / PANEL * PANEL * depth + k / 4 * PANEL * 4 + q % PANEL * 4 + k % 4] = queries[q * depth + k];
    }
  const std::vector<float> scale = random_sizes(count, 1), weight = random_sizes(count, 1),
                           residual = random_sizes(count, 1), offset = random_floats(count, 1e4f),
                           error = random_sizes(n_queries, 1e4f),
                           spread = random_sizes(n_queries, 1e4f), lift = random_sizes(n_queries, 1),
                           threshold = random_floats(n_queries, 1e4f);
  const bool weighted = count % 3 != 0;
  const DocTile tile{codes.data(), static_cast<size_t>(stride), count, scale.data(), weighted ? weight.data() : nullptr,
                     residual.data(), offsets ? offset.data() : nullptr, count % 4 == 0};
  auto check = [&](const int8_t* packed, bool as_rows) {
    const QueryBlock block{packed, start.data(), error.data(), spread.data(), lift.data(), threshold.data()};
    std::vector<Hit> hits(static_cast<size_t>(count) * n_queries);
    hits.resize(as_rows ? table.scan_rows(tile, block, n_queries, depth, hits.data())
                        : table.scan_panels(tile, block, n_panels, depth, hits.data()));
    std::set<std::tuple<int, int, int>> found;
    for (const Hit& hit : hits) found.insert({hit.doc, hit.query, hit.product});
    require(found.size() == hits.size(), table, "a scan (a pair twice)", depth);
    for (int d = 0; d < count; ++d)
      for (int q = 0; q < n_queries; ++q) {
        int32_t product = 0;
        for (int k = 0; k < depth; ++k) product += (codes[d * stride + k] - 128) * queries[q * depth + k];
        const double excess = static_cast<double>(product) * scale[d] + (weighted ? error[q] * weight[d] : 0) +
                              spread[q] * residual[d] + (offsets ? lift[q] * offset[d] : 0) - threshold[q];
        if (std::fabs(excess) < 1) continue;  // float32 rounding may decide
        require(found.count({d, q, product}) == (excess > 0), table, as_rows ? "scan_rows" : "scan_panels", depth);
      }
  };
  check(panels.data(), false);
  check(queries.data(), true);
}

// Sliced vectors: which slices are equal is drawn first, so that all of a row, some or none may be.
void check_sliced(const KernelTable& table, int count, int depth, int n_queries, bool negative) {
  const int stride = depth + DEPTH_STEP, n = depth - depth % 5;
  std::uniform_int_distribution<int> byte(1, 255), level(negative ? -table.query_levels : 0, table.query_levels), slice(0, 2);
  std::vector<uint8_t> codes(static_cast<size_t>(count) * stride), slices(static_cast<size_t>(count) * depth),
      wanted(static_cast<size_t>(n_queries) * depth);
  std::vector<int8_t> queries(static_cast<size_t>(n_queries) * depth);
  for (uint8_t& c : codes) c = static_cast<uint8_t>(byte(engine));
  for (int8_t& q : queries) q = static_cast<int8_t>(level(engine));
  for (std::vector<uint8_t>* each : {&slices, &wanted})
    for (uint8_t& s : *each) s = static_cast<uint8_t>(127 * slice(engine));
  const std::vector<float> scale(count, 1), residual(count, 0), spread(n_queries, 0), threshold(n_queries, -1e9f);
  const DocTile tile{codes.data(), static_cast<size_t>(stride), count, scale.data(), nullptr, residual.data(), nullptr, true};
  const QueryBlock block{queries.data(), nullptr, spread.data(), spread.data(), spread.data(), threshold.data()};
  std::vector<const uint8_t*> rows(count);
  for (int d = 0; d < count; ++d) rows[d] = slices.data() + d * depth;
  std::vector<Hit> hits(static_cast<size_t>(count) * n_queries);
  hits.resize(table.scan_sliced(tile, block, {rows.data(), wanted.data(), negative}, n_queries, depth, hits.data()));
  require(hits.size() == static_cast<size_t>(count) * n_queries, table, "scan_sliced (pairs)", depth);
  const std::vector<float> x = random_floats(n, 3), y = random_floats(n, 1e-3f);
  for (const Hit& hit : hits) {
    const uint8_t *code = codes.data() + hit.doc * stride, *want = wanted.data() + hit.query * depth;
    const int8_t* query = queries.data() + hit.query * depth;
    int32_t product = 0;
    double sum = 0;
    for (int k = 0; k < depth; ++k) {
      if (rows[hit.doc][k] != want[k]) continue;
      product += (code[k] - 128) * query[k];
      if (k < n) sum += static_cast<double>(x[k]) * y[k];
    }
    require(hit.product == product, table, "scan_sliced", depth);
    require(table.dot_sliced(code, rows[hit.doc], query, want, depth) == product, table, "dot_sliced", depth);
    const double found = table.sliced_f64(x.data(), want, y.data(), rows[hit.doc], n);
    require(std::memcmp(&found, &sum, sizeof sum) == 0, table, "sliced_f64", n);
  }
}

}  // namespace

int main() {
  for (const KernelTable* table : available_kernels()) {
    for (int n : {1, 3, 7, 8, 9, 15, 16, 17, 31, 64, 127, 129, 384, 771}) {
      check_float64(*table, n);
      for (float scale : {1.0f, 0.0f, 1e-38f, 1e37f, 1e-42f}) check_quantize(*table, n, scale);
    }
    for (int count : {1, 2, 11, 12, 13, 16, 31, 32, 33, 97})
      for (int depth : {64, 128, 448})
        for (int panels : {1, 2}) check_scans(*table, count, depth, panels, count % 2 == 0);
    for (int count : {1, 4, 15, 16, 17, 33})
      for (int depth : {64, 128, 448})
        for (int n_queries : {1, 3, 4, 9, 32}) check_sliced(*table, count, depth, n_queries, n_queries % 2 == 1);
    check_maxsim(*table);
    check_sparse(*table);
    std::printf("%s: ok\n", table->name);
  }
}
