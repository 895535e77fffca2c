#include "cpu/sparse_queries.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace pyengine {
namespace {

constexpr double LARGEST_LEVEL = 255;
constexpr double LARGEST_FACTOR = 32767, ONE = 1 << FACTOR_BITS;
constexpr double LARGEST_SUM = 32767;
constexpr int64_t MOST_TERMS = 1 << 13;  // whose rounding takes at most half of that

// A term of the query that occurs in one of the postings.
struct Found {
  double weight;
  int64_t term;
};

std::vector<Found> find_terms(const TermRows& queries, int64_t query, const Postings& postings) {
  std::vector<Found> found;
  for (int64_t at = queries.offsets[query]; at < queries.offsets[query + 1]; ++at) {
    const int32_t wanted = static_cast<int32_t>(queries.term(at));
    for (int64_t term = postings.find(wanted); term < postings.n_terms && postings.terms[term] == wanted; ++term)
      found.push_back({static_cast<const float*>(queries.values)[at], term});
  }
  return found;
}

// A unit of which all products of weights and scales are small multiples, so that sums tell scores exactly; 0 if there
// is none. Nothing may have been rounded when the postings were made, nor be in the specification's sums: multiples by
// 15 bits of a unit of 38 bits.
double exact_unit(const std::vector<std::vector<Found>>& found, const std::vector<Postings>& postings) {
  double unit = std::numeric_limits<double>::infinity();
  for (size_t p = 0; p < found.size(); ++p)
    for (const Found& own : found[p]) {
      if (postings[p].residual[own.term] > 0) return 0;
      unit = std::min(unit, std::fabs(own.weight) * postings[p].scale[own.term]);
    }
  int exponent;
  const double bits = std::ldexp(std::frexp(unit, &exponent), 38);
  if (bits != std::nearbyint(bits)) return 0;
  for (size_t p = 0; p < found.size(); ++p) {
    double sum = 0;
    for (const Found& own : found[p]) {
      const double size = std::fabs(own.weight) * postings[p].scale[own.term], times = std::nearbyint(size / unit);
      sum += times;
      if (times * unit != size || times * ONE > LARGEST_FACTOR || sum * LARGEST_LEVEL > LARGEST_SUM) return 0;
    }
  }
  return unit;
}

// So that neither a factor nor a sum of `n` rounded weights overflows.
double unit_for(double sum, double largest, int64_t n) {
  const double room = LARGEST_SUM - 2 * static_cast<double>(n);
  return std::max(sum * LARGEST_LEVEL / room, largest * ONE / LARGEST_FACTOR) * (1 + 0x1p-20);
}

// The nearest integer that is not 0, so that every shared term shows in a sum.
double whole(double exact) {
  const double nearest = std::nearbyint(exact);
  return nearest != 0 ? nearest : std::copysign(1.0, exact);
}

QueryTerm locate(const Postings& postings, int64_t term, int32_t factor) {
  const int64_t place = postings.place[term];
  const int32_t zero = postings.zero[term];
  QueryTerm out{factor, zero, nullptr, nullptr, nullptr, nullptr, 0};
  switch (static_cast<PostingKind>(postings.kinds[term])) {
    case PostingKind::column:
      out.levels = postings.columns + place * postings.column_stride();
      break;
    case PostingKind::list:
      out.levels = postings.list_levels + postings.lists[place], out.docs = postings.list_docs + postings.lists[place];
      out.starts = postings.starts + place * (postings.windows() + 1);
      out.n = postings.lists[place + 1] - postings.lists[place];
      break;
    case PostingKind::rare:
      out.rare = postings.rare + place;
      out.n = std::min<int64_t>(postings.counts[term], postings.n_rare - place);
      break;
  }
  return out;
}

}  // namespace

SparseQuery prepare_query(const TermRows& queries, int64_t query, const std::vector<Postings>& postings) {
  SparseQuery out;
  const size_t n = postings.size();
  int64_t n_terms = 0, n_down = 0;  // the most in one of the postings
  std::vector<std::vector<Found>> found(n);
  double largest = 0, most = 0;  // |weight| * scale: the largest, and the largest sum
  for (size_t p = 0; p < n; ++p) {
    found[p] = find_terms(queries, query, postings[p]);
    double sum = 0;
    int64_t down = 0;
    for (const Found& own : found[p]) {
      const double size = std::fabs(own.weight) * postings[p].scale[own.term];
      sum += size, largest = std::max(largest, size);
      const bool positive = own.weight > 0, one_sign = postings[p].zero[own.term] == 0;
      out.positive = out.positive && positive && one_sign, out.negative = out.negative && !positive && one_sign;
      down += !positive && one_sign;
    }
    most = std::max(most, sum), n_down = std::max(n_down, down);
    n_terms = std::max(n_terms, static_cast<int64_t>(found[p].size()));
  }
  out.columns.resize(n), out.lists.resize(n), out.rare.resize(n);
  out.many = n_terms > MOST_TERMS;
  if (largest == 0 || out.many) return out;
  const double whole_unit = exact_unit(found, postings);
  out.unit = whole_unit > 0 ? whole_unit : unit_for(most, largest, n_terms);
  for (size_t p = 0; p < n; ++p) {
    double error = 0;
    for (const Found& own : found[p]) {
      const double exact = ONE * (own.weight * postings[p].scale[own.term] / out.unit), factor = whole(exact);
      error += std::fabs(exact - factor) * (LARGEST_LEVEL / ONE);
      error += std::fabs(own.weight) * postings[p].residual[own.term] / out.unit;
      const PostingKind kind = static_cast<PostingKind>(postings[p].kinds[own.term]);
      auto& terms = kind == PostingKind::column ? out.columns : kind == PostingKind::list ? out.lists : out.rare;
      terms[p].push_back(locate(postings[p], own.term, static_cast<int32_t>(factor)));
    }
    out.error = std::max(out.error, error);
  }
  if (whole_unit > 0) return out;
  out.rounded_up = static_cast<double>(n_terms), out.rounded_down = static_cast<double>(n_down);
  // Of the specification's sums and of this function's: each of so many operations is off by a relative 2^-53.
  out.error = out.error * (1 + 0x1p-40) + most * LARGEST_LEVEL / out.unit * static_cast<double>(n_terms + 64) * 0x1p-50;
  return out;
}

}  // namespace pyengine
