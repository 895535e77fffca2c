#include "cpu/token_block.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace pyengine {
namespace {

constexpr double LEAST_NORM = 1e-30, LARGEST_NORM = 1e30;      // beyond, estimates could vanish or overflow
constexpr float LEAST_SQUARE = 0x1p-70f, LARGEST_SQUARE = 0x1p100f;  // beyond, float32 squares are no norm
constexpr float INF = std::numeric_limits<float>::infinity();

// A power of two that brings the largest magnitude into [1, 2).
double power_for(const float* values, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(values[i]));
  return largest > 0 ? std::ldexp(1.0, -std::ilogb(largest)) : 1.0;
}

// A row as words, for the kernels; returns by how much (Euclidean norm) that changes it.
double form_words(const KernelTable& table, const std::vector<float>& row, std::vector<uint32_t>& words) {
  if (!table.round_token) {
    std::memcpy(words.data(), row.data(), row.size() * sizeof(float));
    return 0;
  }
  table.round_token(row.data(), static_cast<int>(row.size()), words.data());
  double squared = 0;
  for (size_t k = 0; k < row.size(); ++k) {
    const uint32_t bits = words[k / 2] >> 16 * (k % 2) << 16;
    float rounded;
    std::memcpy(&rounded, &bits, sizeof rounded);
    squared += (static_cast<double>(row[k]) - rounded) * (static_cast<double>(row[k]) - rounded);
  }
  return std::sqrt(squared);
}

}  // namespace

double estimate_error(int dim) {
  const double sums = (3.0 * dim + 128) * 0x1p-24;
  return sums < 0.5 ? sums / (1 - sums) : INF;
}

double token_norm(const KernelTable& table, const float* row, int dim) {
  double squared;
  table.dot_f64(&row, &row, &row, 1, dim, &squared);
  return std::sqrt(squared);
}

PackedQuery::PackedQuery(const Tokens& queries, int64_t query, bool normalize, const KernelTable& table)
    : rows(reinterpret_cast<const float*>(queries.rows.at(queries.offsets[query]))),
      count(static_cast<int>(queries.count(query))), width((count + PANEL - 1) / PANEL * PANEL),
      panels(static_cast<size_t>(width) * table.token_words(queries.dim)), error(width, INF), sought(width / PANEL),
      present(width / PANEL), norms(count) {
  const int dim = queries.dim, n_words = table.token_words(dim);
  std::vector<float> scaled(dim);
  std::vector<uint32_t> words(n_words);
  const double gamma = estimate_error(dim), r = table.token_rounding, relative = gamma * (1 + r) + r;
  const double power = power_for(rows, static_cast<int64_t>(count) * dim);
  for (int i = 0; i < count; ++i) {
    const float* row = rows + static_cast<size_t>(i) * dim;
    norms[i] = token_norm(table, row, dim);
    const uint16_t bit = static_cast<uint16_t>(1 << i % PANEL);
    present[i / PANEL] |= bit;
    if (norms[i] > 0) sought[i / PANEL] |= bit;
    const double factor = !normalize ? power : norms[i] > 0 ? 1 / norms[i] : 0;
    for (int k = 0; k < dim; ++k) scaled[k] = static_cast<float>(row[k] * factor);
    const double m = form_words(table, scaled, words), size = norms[i] * factor + m;
    error[i] = norms[i] > 0 ? static_cast<float>((size * relative + m + FLOOR_QUERY) * (1 + 0x1p-20)) : 0.0f;
    uint32_t* panel = panels.data() + static_cast<size_t>(i / PANEL) * n_words * PANEL + i % PANEL;
    for (int k = 0; k < n_words; ++k) panel[static_cast<size_t>(k) * PANEL] = words[k];
  }
}

TokenBlock::TokenBlock(const Tokens& docs, bool normalize, int most, const KernelTable& table)
    : docs_(docs), normalize_(normalize), table_(table), reader_(docs.rows, docs.dim, table, most),
      n_words_(table.token_words(docs.dim)), slack_((1 + estimate_error(docs.dim)) * (1 + 0x1p-20)),
      scale_(most, 1.0f), weight_(most), norms_(most) {
  if (table.round_token) words_.resize(static_cast<size_t>(most + TOKEN_ROWS - 1) / TOKEN_ROWS * TOKEN_ROWS * n_words_);
}

void TokenBlock::read(int64_t first, int count) {
  first_ = first, count_ = count;
  rows_ = count ? reader_.read(first, 0) : nullptr;
  for (int i = 1; i < count; ++i) reader_.read(first + i, i);
  for (int i = 0; i < count; ++i) {
    if (table_.round_token) table_.round_token(row(i), docs_.dim, words_.data() + static_cast<size_t>(i) * n_words_);
    bound(i);
  }
}

void TokenBlock::bound(int i) {
  norms_[i] = docs_.norms ? docs_.norms[first_ + i] : std::numeric_limits<double>::quiet_NaN();
  double size = norms_[i];
  if (!docs_.norms) {
    const float squared = table_.square_f32(row(i), docs_.dim);
    size = squared > LEAST_SQUARE && squared < LARGEST_SQUARE ? std::sqrt(static_cast<double>(squared)) : norm(i);
  }
  const bool usable = size < LARGEST_NORM && (!normalize_ || size > LEAST_NORM || size == 0);
  const double t = !normalize_ ? 1 : size > 0 && usable ? 1 / size : 0;
  scale_[i] = static_cast<float>(t);
  weight_[i] = usable ? static_cast<float>(t * (size + docs_.dim * FLOOR_DOC) * slack_) : INF;
}

double TokenBlock::norm(int i) {
  if (std::isnan(norms_[i])) norms_[i] = token_norm(table_, row(i), docs_.dim);
  return norms_[i];
}

}  // namespace pyengine
