#include "cpu/selection.h"

#include <algorithm>
#include <cmath>

namespace pyengine {
namespace {

constexpr double LARGEST_SCORE = std::numeric_limits<float>::max();  // scores beyond are clamped to it
constexpr double SMALLEST_SCORE = 0x1p-148;  // a difference that float32 shows wherever it is

float round_down(double x) { return std::nextafter(static_cast<float>(x), -INFINITY); }
float round_up(double x) { return std::nextafter(static_cast<float>(x), INFINITY); }

}  // namespace

Selection::Selection(const Wanted& wanted, int dims, std::vector<Scaling> scaling, std::vector<double> caution,
                     int threads, const KernelTable& table)
    : wanted_(wanted), dims_(dims), threads_(threads), table_(table), scaling_(std::move(scaling)),
      caution_(std::move(caution)), thresholds_(scaling_.size()), ceilings_(scaling_.size()), pools_(threads),
      above_(threads) {
  for (int thread = 0; thread < threads; ++thread) {
    pools_[thread].resize(scaling_.size());
    above_[thread].resize(scaling_.size());
  }
}

// Whether a candidate is not surely above the ceiling. One that is not likely below it does not count towards the
// threshold.
bool Selection::admit(Candidate& candidate, int64_t query, Extent extent, int thread) {
  const Ceiling& ceiling = ceilings_[query];
  if (candidate.bounds.lower > ceiling.high) {
    above_[thread][query] += extent == CORPUS;
    return false;
  }
  PreparedQueries::Bounds& bounds = candidate.bounds;
  const double above = caution_[query] * (static_cast<double>(bounds.upper) - bounds.estimate);
  if (bounds.estimate + above >= ceiling.low) bounds.lower = -INFINITY;
  return true;
}

PoolRules Selection::rules(int64_t query, Extent extent) {
  return {extent == SAMPLE ? wanted_.sample_rank : wanted_.k, wanted_.width, caution_[query], scaling_[query],
          thresholds_[query], table_};
}

void Selection::settle(Extent extent, const Interrupt& interrupt) {
  parallel_for(count(), threads_, interrupt, [&](int64_t q, int) {
    CandidatePool& pool = pools_[0][q];
    for (int thread = 1; thread < threads_; ++thread) pool.take(pools_[thread][q]);
    pool.thin(rules(q, extent));
    if (extent == SAMPLE) pool.clear();
  });
}

void Selection::settle_sharper(const Interrupt& interrupt) {
  parallel_for(count(), threads_, interrupt, [&](int64_t q, int thread) {
    std::vector<Candidate>& items = found(q);
    items.erase(std::remove_if(items.begin(), items.end(),
                               [&](Candidate& each) { return !admit(each, q, CORPUS, thread); }), items.end());
    pools_[0][q].thin(rules(q, CORPUS));
  });
}

// What float64 rounding may do to a score near `reach`, here and in the specification.
double Selection::rounding(const Scaling& s, double reach) const {
  return (dims_ + 64) * 0x1p-50 * (s.unit * std::fabs(reach) + std::fabs(s.base));
}

// The first threshold: so far below the floor that what is dropped stays below it when it is rounded to float32.
float Selection::start(const Scaling& s, double floor) const {
  if (floor <= -LARGEST_SCORE) return -INFINITY;
  if (std::isinf(floor)) return INFINITY;
  const double reach = (floor - s.base) / s.unit;
  return round_down(reach - (2 * rounding(s, reach) + SMALLEST_SCORE) / s.unit);
}

Selection::Ceiling Selection::limit(const Scaling& s, double ceiling) const {
  if (ceiling >= LARGEST_SCORE) return {};
  if (std::isinf(ceiling)) return {-INFINITY, -INFINITY};
  const double reach = (ceiling - s.base) / s.unit;
  const double margin = (0x1p-22 * std::fabs(ceiling) + SMALLEST_SCORE + 2 * rounding(s, reach)) / s.unit;
  return {round_down(reach - margin), round_up(reach + margin)};
}

void Selection::write(double sign, CandidateLists& out) {
  size_t total = out.rows.size();
  for (int64_t q = 0; q < count(); ++q) total += found(q).size();
  out.rows.reserve(total), out.estimates.reserve(total);
  for (int64_t q = 0; q < count(); ++q) {
    const Scaling& s = scaling_[q];
    for (const Candidate& each : found(q)) {
      out.rows.push_back(each.row);
      const double score = sign * (s.unit * each.bounds.estimate + s.base);
      out.estimates.push_back(static_cast<float>(std::min(std::max(score, -LARGEST_SCORE), LARGEST_SCORE)));
    }
    out.offsets.push_back(static_cast<int64_t>(out.rows.size()));
    pools_[0][q] = CandidatePool();
    const double last = reach(q);
    out.dropped.push_back(std::isinf(last) ? last : s.unit * last + s.base + rounding(s, last));
    int64_t above = 0;
    for (const std::vector<int64_t>& part : above_) above += part[q];
    out.above.push_back(above);
  }
}

}  // namespace pyengine
