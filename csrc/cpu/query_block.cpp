#include "cpu/query_block.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace pyengine {
namespace {

constexpr double SMALLEST_UNIT = 1e-20;
constexpr double ROUND_UP = 1 + 0x1p-22;  // more than float32 rounding of a positive number
constexpr double NEAREST = 0x1.8p52;  // adding it leaves the nearest integer

// Sums and maxima in lanes, so that none waits for the one before. The numbers of values are multiples of LANES.
constexpr int LANES = 8;

template <class Term>
double sum_of(const std::vector<double>& values, Term term) {
  double sums[LANES] = {};
  for (size_t i = 0; i < values.size(); i += LANES)
    for (int lane = 0; lane < LANES; ++lane) sums[lane] += term(values[i + lane]);
  return std::accumulate(sums, sums + LANES, 0.0);
}

double largest_of(const std::vector<double>& values) {
  double most[LANES] = {};
  for (size_t i = 0; i < values.size(); i += LANES)
    for (int lane = 0; lane < LANES; ++lane) {
      const double size = std::fabs(values[i + lane]);
      most[lane] = size > most[lane] ? size : most[lane];
    }
  return *std::max_element(most, most + LANES);
}

// The values in units of `scale`, rounded; they keep what that leaves of them. Returns the sum of the codes.
int32_t take_codes(std::vector<double>& values, double scale, int8_t* codes) {
  const double to_code = scale > 0 ? 1 / scale : 0;
  int32_t sum = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double rounded = values[i] * to_code + NEAREST - NEAREST;
    const int32_t code = static_cast<int32_t>(rounded);
    values[i] -= scale * rounded;
    codes[i] = static_cast<int8_t>(code);
    sum += code;
  }
  return sum;
}

Scaling scale_scores(Metric metric, double query_norm, double norm_unit, double offset_unit) {
  const double gain = metric == Metric::cosine ? 1 : metric == Metric::dot ? query_norm * norm_unit
                                                                           : 2 * query_norm * norm_unit;
  return Scaling::of(gain, metric == Metric::l2 ? -query_norm * query_norm : 0, offset_unit);
}

}  // namespace

Scaling Scaling::of(double gain, double base, double offset_unit) {
  double unit = std::max(gain, offset_unit);
  if (unit == 0) unit = 1;
  return {unit, base, gain / unit, offset_unit / unit};
}

PreparedQueries::PreparedQueries(const Corpus& corpus, const Queries& queries, int64_t first, int64_t count, int depth,
                                 bool as_rows, double norm_unit, double offset_unit, const KernelTable& table,
                                 int threads, const Interrupt& interrupt)
    : count_(count), padded_((count + PANEL - 1) / PANEL * PANEL), depth_(depth), as_rows_(as_rows),
      relative_(relative_error(corpus.dims)), first_((as_rows ? count : padded_) * depth),
      second_(count * depth), start_(padded_), second_start_(count), scale_(padded_), error_(padded_), spread_(padded_),
      lift_(padded_), unit_(padded_), filter_error_(padded_), filter_spread_(padded_), filter_lift_(padded_),
      first_scale_(count), second_scale_(count), second_error_(count), norm_(count), concentration_(count),
      scaling_(count) {
  parallel_for(count, threads, interrupt, [&](int64_t q, int) {
    const float* row = queries.rows + (first + q) * corpus.dim;
    double squared;
    table.dot_f64(&row, &row, &row, 1, corpus.dims, &squared);
    const double norm = norm_[q] = std::sqrt(squared);
    scaling_[q] = scale_scores(corpus.metric, norm, norm_unit, offset_unit);
    quantize(q, row, corpus.dims, norm, table);
  });
}

// The unit query in two parts, each a scale times int8 codes; the second codes what the first leaves.
void PreparedQueries::quantize(int64_t query, const float* row, int dims, double norm, const KernelTable& table) {
  std::vector<double> rest(depth_);  // padded with zeros, which are coded as 0
  const double to_unit = norm > 0 ? 1 / norm : 0;
  for (int i = 0; i < dims; ++i) rest[i] = row[i] * to_unit;
  concentration_[query] = std::sqrt(sum_of(rest, [](double x) { return x * x * x * x; }));

  std::vector<int8_t> codes(depth_);
  auto part = [&](double* scale, int32_t* start) {
    const double largest = largest_of(rest);
    *scale = largest / table.query_levels;
    *start = -table.code_zero * take_codes(rest, *scale, codes.data());
    const double left = sum_of(rest, [](double x) { return x * x; });
    return std::sqrt(left) * (1 + 1e-9) + 1e-12;  // the float64 arithmetic here is far below these
  };

  const Scaling& s = scaling_[query];
  const double first_error = part(&first_scale_[query], &start_[query]);
  scale_[query] = static_cast<float>(s.alpha * first_scale_[query]);
  error_[query] = static_cast<float>(s.alpha * (first_error + relative_) * ROUND_UP);
  spread_[query] = static_cast<float>(s.alpha * (1 + first_error) * ROUND_UP);
  lift_[query] = static_cast<float>(s.beta);
  set_filter(query);
  pack(query, codes);
  second_error_[query] = part(&second_scale_[query], &second_start_[query]);
  std::copy(codes.begin(), codes.end(), second_.begin() + query * depth_);
}

// The terms in units of the codes' scale. Of a zero query the products are 0 in any unit. Where all but the products is
// beyond float32 in these units (a bias 1e20 times the scores), every document passes.
void PreparedQueries::set_filter(int64_t query) {
  const double unit = first_scale_[query] > 0 ? scaling_[query].alpha * first_scale_[query] : 1;
  unit_[query] = unit < SMALLEST_UNIT ? 0 : unit;
  if (unit_[query] == 0) return;
  filter_error_[query] = static_cast<float>(error_[query] / unit * ROUND_UP);
  filter_spread_[query] = static_cast<float>(spread_[query] / unit * ROUND_UP);
  filter_lift_[query] = static_cast<float>(lift_[query] / unit);
}

void PreparedQueries::pack(int64_t query, const std::vector<int8_t>& codes) {
  if (as_rows_) {
    std::copy(codes.begin(), codes.end(), first_.begin() + query * depth_);
    return;
  }
  int8_t* panel = first_.data() + query / PANEL * PANEL * depth_ + query % PANEL * 4;
  for (int k = 0; k < depth_; k += 4) std::copy_n(codes.begin() + k, 4, panel + k * PANEL);
}

QueryBlock PreparedQueries::block(int64_t first, const float* threshold) const {
  return {first_.data() + first * depth_, start_.data() + first, filter_error_.data() + first,
          filter_spread_.data() + first, filter_lift_.data() + first, threshold};
}

std::vector<double> PreparedQueries::cautions(double deviations) const {
  std::vector<double> all(count_);
  for (int64_t q = 0; q < count_; ++q) all[q] = std::min(1.0, deviations * concentration_[q]);
  return all;
}

float PreparedQueries::filter(int64_t query, double reach, bool weighted) const {
  if (std::isinf(reach)) return static_cast<float>(reach);
  if (unit_[query] == 0) return -INFINITY;
  // More than the filter's rounding.
  const double least = reach - 0x1p-20 * std::fabs(reach) - (weighted ? 0 : error_[query]);
  return std::nextafter(static_cast<float>(least / unit_[query]), -INFINITY);
}

PreparedQueries::Bounds PreparedQueries::sharpen(int64_t query, int32_t product, int32_t second,
                                                 const DocTerms& doc) const {
  const Scaling& s = scaling_[query];
  const double cosine = first_scale_[query] * product + second_scale_[query] * second;
  const double error = second_error_[query];
  const double rounding = (error + relative_) * doc.weight + (1 + error) * doc.residual;
  const double radius = s.alpha * rounding + s.beta * doc.offset_error;
  return Bounds::around(s.alpha * cosine * doc.scale + s.beta * doc.offset, radius);
}

}  // namespace pyengine
