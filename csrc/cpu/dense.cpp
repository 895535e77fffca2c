// Propose: strided sample -> a threshold per query -> filter while scoring -> tighten while scanning.
#include "cpu/dense.h"

#include <algorithm>
#include <cmath>

#include "cpu/candidate_pool.h"
#include "cpu/dispatch.h"
#include "cpu/doc_tiles.h"
#include "cpu/query_block.h"
#include "cpu/row_order.h"
#include "cpu/sign_scan.h"

namespace pyengine {
namespace {

constexpr int64_t SOON = 8;     // candidates whose codes are fetched while others are worked on
constexpr int64_t SHARE = 1024;  // candidates handed to a thread at a time
constexpr int64_t SORTED = 1 << 18;  // candidates brought into the order of their rows at a time, or one query's

constexpr double LARGEST_SCORE = std::numeric_limits<float>::max();  // scores beyond are clamped to it

constexpr double SMALLEST_SCORE = 0x1p-148;  // a difference that float32 shows wherever it is

// What a pass goes over: a sample, only to find a threshold, or the corpus.
enum Extent { SAMPLE, CORPUS };

// One pass over every step-th of the rows considered.
struct Pass {
  int64_t rows, step;
  Extent extent;
};

float round_down(double x) { return std::nextafter(static_cast<float>(x), -INFINITY); }
float round_up(double x) { return std::nextafter(static_cast<float>(x), INFINITY); }

// A query's ceiling in units of s: documents above `high` surely exceed it, those below `low` surely do not.
struct Ceiling {
  float low = INFINITY, high = INFINITY;
};

// One block of queries against the whole corpus.
class Scan {
 public:
  Scan(const Corpus& corpus, const Queries& queries, int64_t first_query, int64_t count, int64_t k, const ScanPlan& plan,
       int threads, const Interrupt& interrupt)
      : corpus_(corpus), first_query_(first_query), k_(k), plan_(plan), threads_(threads), interrupt_(interrupt),
        table_(kernels()), depth_((corpus.dims + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP),
        as_rows_(count <= plan.row_queries), group_(as_rows_ ? static_cast<int>(count) : MAX_PANELS * PANEL),
        norm_unit_(DocTiles::norm_unit(corpus, table_)), offset_unit_(DocTiles::offset_unit(corpus, norm_unit_)),
        queries_(corpus, queries, first_query, count, depth_, as_rows_, norm_unit_, offset_unit_, table_, threads,
                 interrupt),
        signs_(corpus, queries, first_query, count), thresholds_(count), ceilings_(count), pools_(threads),
        above_(threads) {
    for (int64_t q = 0; q < count; ++q) {
      if (queries.floor) thresholds_[q].raise(start(queries_.scaling(q), queries.floor[first_query + q]));
      if (queries.ceiling) ceilings_[q] = ceiling(queries_.scaling(q), queries.ceiling[first_query + q]);
    }
    for (int thread = 0; thread < threads; ++thread) {
      pools_[thread].resize(count);
      above_[thread].resize(count);
      tiles_.emplace_back(corpus, plan.tile, depth_, norm_unit_, offset_unit_, table_);
      hits_.emplace_back(static_cast<size_t>(plan.tile) * group_);
    }
  }

  void run(CandidateLists& out) {
    if (plan_.sample) {
      scan({plan_.sample, corpus_.considered() / plan_.sample, SAMPLE});
      parallel_for(queries_.count(), threads_, interrupt_, [&](int64_t q, int) { settle(q, SAMPLE).clear(); });
    }
    scan({corpus_.considered(), 1, CORPUS});
    parallel_for(queries_.count(), threads_, interrupt_, [&](int64_t q, int) { settle(q, CORPUS); });
    sharpen();
    size_t total = out.rows.size();
    for (CandidatePool& found : pools_[0]) total += found.items().size();
    out.rows.reserve(total), out.estimates.reserve(total);
    for (int64_t q = 0; q < queries_.count(); ++q) write(q, pools_[0][q], out);
  }

 private:
  void scan(Pass pass) {
    const int64_t items = (pass.rows + plan_.tile - 1) / plan_.tile;
    parallel_for(items, threads_, interrupt_, [&](int64_t item, int thread) {
      const int64_t start = item * plan_.tile;
      const int count = static_cast<int>(std::min<int64_t>(plan_.tile, pass.rows - start));
      const RowSequence rows{start * pass.step, pass.step, corpus_.listed};
      DocTile tile = tiles_[thread].make(rows, count, signs_.empty());
      for (int64_t q = 0; q < queries_.count(); q += group_) {
        scan_group(tile, rows, pass.extent, q, thread);
        tile.cold = false;
      }
    });
  }

  void scan_group(const DocTile& tile, const RowSequence& rows, Extent extent, int64_t first, int thread) {
    const int n = static_cast<int>(std::min<int64_t>(group_, queries_.count() - first));
    std::vector<Hit>& hits = hits_[thread];
    alignas(64) float least[MAX_PANELS * PANEL];
    std::fill(std::begin(least), std::end(least), INFINITY);
    for (int i = 0; i < n; ++i) {
      const double reach = queries_.scaling(first + i).reach(thresholds_[first + i].get());
      least[i] = queries_.filter(first + i, reach, tile.weight != nullptr);
      pools_[thread][first + i].prefetch();
    }
    const QueryBlock block = queries_.block(first, least);
    const size_t found = !signs_.empty() ? signs_.scan(tile, block, first, n, table_.query_levels, hits.data())
                         : as_rows_ ? table_.scan_rows(tile, block, n, depth_, hits.data())
                                  : table_.scan_panels(tile, block, (n + PANEL - 1) / PANEL, depth_, hits.data());
    for (size_t i = 0; i < found; ++i) {
      const Hit& hit = hits[i];
      const int64_t query = first + hit.query, row = rows[hit.doc];
      if (hit.query >= n || !corpus_.allowed(first_query_ + query, row)) continue;
      const auto bounds = queries_.rough(query, hit.product, tiles_[thread].terms(hit.doc));
      Candidate candidate{static_cast<int32_t>(row), hit.product, bounds};
      if (admit(candidate, query, extent, thread)) pools_[thread][query].add(candidate, rules(query, extent));
    }
  }

  // Whether a candidate is not surely above the ceiling. One that is not likely below it does not count towards the
  // threshold.
  bool admit(Candidate& candidate, int64_t query, Extent extent, int thread) {
    const Ceiling& ceiling = ceilings_[query];
    if (candidate.bounds.lower > ceiling.high) {
      above_[thread][query] += extent == CORPUS;
      return false;
    }
    PreparedQueries::Bounds& bounds = candidate.bounds;
    const double above = queries_.caution(query, plan_.deviations) * (static_cast<double>(bounds.upper) - bounds.estimate);
    if (bounds.estimate + above >= ceiling.low) bounds.lower = -INFINITY;
    return true;
  }

  // Sharper bounds for what is left, in the order of the rows, and what remains by them. Without stored codes refining
  // costs no more.
  void sharpen() {
    if (!corpus_.codes) return;
    std::vector<Place> places;
    for (int64_t q = 0; q < queries_.count();) {
      places.clear();
      for (; q < queries_.count() && static_cast<int64_t>(places.size()) < SORTED; ++q)
        for (size_t i = 0; i < pools_[0][q].items().size(); ++i)
          places.push_back({pools_[0][q].items()[i].row, q, static_cast<int64_t>(i)});
      order_by_row(places, corpus_.n);
      const int64_t total = static_cast<int64_t>(places.size());
      parallel_for((total + SHARE - 1) / SHARE, threads_, interrupt_, [&](int64_t share, int thread) {
        for (int64_t i = share * SHARE; i < std::min(total, (share + 1) * SHARE); ++i) {
          prefetch(places[std::min(i + SOON, total - 1)].row);
          sharpen(places[i], thread);
        }
      });
    }
    parallel_for(queries_.count(), threads_, interrupt_, [&](int64_t q, int thread) {
      std::vector<Candidate>& found = pools_[0][q].items();
      found.erase(std::remove_if(found.begin(), found.end(),
                                 [&](Candidate& each) { return !admit(each, q, CORPUS, thread); }), found.end());
      pools_[0][q].thin(rules(q, CORPUS));
    });
  }

  void sharpen(const Place& place, int thread) {
    Candidate& candidate = pools_[0][place.query].items()[place.at];
    const DocTile& tile = tiles_[thread].make({place.row, 1, nullptr}, 1);
    candidate.bounds = queries_.sharpen(place.query, candidate.product, tile.codes, tiles_[thread].terms(0), table_);
  }

  void prefetch(int64_t row) const {
    const uint8_t* codes = corpus_.codes + row * corpus_.code_stride;
    for (int64_t line = 0; line < corpus_.code_stride; line += DEPTH_STEP) __builtin_prefetch(codes + line);
    __builtin_prefetch(corpus_.scale + row), __builtin_prefetch(corpus_.residual + row);
  }

  PoolRules rules(int64_t query, Extent extent) {
    return {extent == SAMPLE ? plan_.sample_rank : k_, plan_.width, queries_.caution(query, plan_.deviations),
            queries_.scaling(query), thresholds_[query], table_};
  }

  // What float64 rounding may do to a score near `reach`, here and in the specification.
  double rounding(const Scaling& s, double reach) const {
    return (corpus_.dims + 64) * 0x1p-50 * (s.unit * std::fabs(reach) + std::fabs(s.base));
  }

  // The first threshold: so far below the floor that what is dropped stays below it when it is rounded to float32.
  float start(const Scaling& s, double floor) const {
    if (floor <= -LARGEST_SCORE) return -INFINITY;
    if (std::isinf(floor)) return INFINITY;
    const double reach = (floor - s.base) / s.unit;
    return round_down(reach - (2 * rounding(s, reach) + SMALLEST_SCORE) / s.unit);
  }

  Ceiling ceiling(const Scaling& s, double ceiling) const {
    if (ceiling >= LARGEST_SCORE) return {};
    if (std::isinf(ceiling)) return {-INFINITY, -INFINITY};
    const double reach = (ceiling - s.base) / s.unit;
    const double margin = (0x1p-22 * std::fabs(ceiling) + SMALLEST_SCORE + 2 * rounding(s, reach)) / s.unit;
    return {round_down(reach - margin), round_up(reach + margin)};
  }

  // Bring the threads' candidates together and thin them by what all of them know.
  CandidatePool& settle(int64_t query, Extent extent) {
    CandidatePool& pool = pools_[0][query];
    for (int thread = 1; thread < threads_; ++thread) pool.take(pools_[thread][query]);
    pool.thin(rules(query, extent));
    return pool;
  }

  void write(int64_t query, CandidatePool& found, CandidateLists& out) {
    const Scaling& s = queries_.scaling(query);
    const double sign = corpus_.metric == Metric::l2 ? -1 : 1, most = LARGEST_SCORE;
    for (const Candidate& each : found.items()) {
      out.rows.push_back(each.row);
      const double score = sign * (s.unit * each.bounds.estimate + s.base);
      out.estimates.push_back(static_cast<float>(std::min(std::max(score, -most), most)));
    }
    out.offsets.push_back(static_cast<int64_t>(out.rows.size()));
    found = CandidatePool();
    const double reach = s.reach(thresholds_[query].get());
    out.dropped.push_back(std::isinf(reach) ? reach : s.unit * reach + s.base + rounding(s, reach));
    int64_t above = 0;
    for (const std::vector<int64_t>& part : above_) above += part[query];
    out.above.push_back(above);
  }

  const Corpus& corpus_;
  int64_t first_query_, k_;
  const ScanPlan& plan_;
  int threads_;
  const Interrupt& interrupt_;
  const KernelTable& table_;
  int depth_;
  bool as_rows_;
  int group_;
  double norm_unit_, offset_unit_;
  PreparedQueries queries_;
  SignQueries signs_;
  std::vector<Threshold> thresholds_;
  std::vector<Ceiling> ceilings_;
  std::vector<std::vector<CandidatePool>> pools_;  // [thread][query]
  std::vector<std::vector<int64_t>> above_;        // [thread][query]
  std::vector<DocTiles> tiles_;                    // [thread]
  std::vector<std::vector<Hit>> hits_;             // [thread]
};

}  // namespace

CandidateLists propose(const Corpus& corpus, const Queries& queries, int64_t k, const ScanPlan& plan, int threads,
                       const Interrupt& interrupt) {
  const DefaultFloatEnvironment environment;
  CandidateLists out;
  const int useful = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, corpus.considered() / plan.tile)));
  for (int64_t first = 0; first < queries.n; first += plan.query_block) {
    const int64_t count = std::min<int64_t>(plan.query_block, queries.n - first);
    Scan(corpus, queries, first, count, k, plan, useful, interrupt).run(out);
  }
  return out;
}

}  // namespace pyengine
