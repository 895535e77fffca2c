// Propose: strided sample -> a threshold per query -> filter while scoring -> tighten while scanning.
#include "cpu/dense.h"

#include <algorithm>
#include <cmath>

#include "cpu/candidate_pool.h"
#include "cpu/dispatch.h"
#include "cpu/doc_tiles.h"
#include "cpu/query_block.h"
#include "cpu/sign_scan.h"

namespace pyengine {
namespace {

// One pass over rows 0, step, 2 step, ...: of a sample, only to find a threshold, or of the corpus.
struct Pass {
  int64_t rows, step;
  bool sample;
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
        signs_(corpus, queries, first_query, count), thresholds_(count), pools_(threads) {
    for (int thread = 0; thread < threads; ++thread) {
      pools_[thread].resize(count);
      tiles_.emplace_back(corpus, plan.tile, depth_, norm_unit_, offset_unit_, table_);
      hits_.emplace_back(static_cast<size_t>(plan.tile) * group_);
    }
  }

  void run(CandidateLists& out) {
    if (plan_.sample) {
      scan({plan_.sample, corpus_.n / plan_.sample, true});
      parallel_for(queries_.count(), threads_, interrupt_, [&](int64_t q, int) { settle(q).clear(); });
    }
    scan({corpus_.n, 1, false});
    parallel_for(queries_.count(), threads_, interrupt_, [&](int64_t q, int) { settle(q); });
    for (int64_t q = 0; q < queries_.count(); ++q) write(q, pools_[0][q], out);
  }

 private:
  void scan(Pass pass) {
    const int64_t items = (pass.rows + plan_.tile - 1) / plan_.tile;
    parallel_for(items, threads_, interrupt_, [&](int64_t item, int thread) {
      const int64_t start = item * plan_.tile;
      const int count = static_cast<int>(std::min<int64_t>(plan_.tile, pass.rows - start));
      const DocTile& tile = tiles_[thread].make(start * pass.step, pass.step, count, signs_.empty());
      for (int64_t q = 0; q < queries_.count(); q += group_) scan_group(tile, start * pass.step, pass, q, thread);
    });
  }

  void scan_group(const DocTile& tile, int64_t first_row, const Pass& pass, int64_t first, int thread) {
    const int n = static_cast<int>(std::min<int64_t>(group_, queries_.count() - first));
    std::vector<Hit>& hits = hits_[thread];
    float least[MAX_PANELS * PANEL];
    std::fill(std::begin(least), std::end(least), INFINITY);
    for (int i = 0; i < n; ++i) {  // the margin is more than the filter's own float32 rounding
      const float threshold = thresholds_[first + i].get();
      const double reach = queries_.scaling(first + i).reach(threshold);
      least[i] = std::isfinite(threshold) ? static_cast<float>(reach - 0x1p-20 * std::fabs(reach)) : threshold;
    }
    const QueryBlock block = queries_.block(first, least);
    const size_t found = !signs_.empty() ? signs_.scan(tile, block, first, n, table_.query_levels, hits.data())
                         : as_rows_ ? table_.scan_rows(tile, block, n, depth_, hits.data())
                                  : table_.scan_panels(tile, block, (n + PANEL - 1) / PANEL, depth_, hits.data());
    for (size_t i = 0; i < found; ++i) {
      const Hit& hit = hits[i];
      const int64_t query = first + hit.query, row = first_row + hit.doc * pass.step;
      if (hit.query >= n || !corpus_.allowed(first_query_ + query, row)) continue;
      pools_[thread][query].add(static_cast<int32_t>(row), bounds(hit, query, pass, thread), rules(query));
    }
  }

  PreparedQueries::Bounds bounds(const Hit& hit, int64_t query, const Pass& pass, int thread) {
    const DocTerms doc = tiles_[thread].terms(hit.doc);
    if (pass.sample) return {0, queries_.lower(query, hit.product, doc), INFINITY};
    return queries_.sharpen(query, hit.product, tiles_[thread].codes(hit.doc), doc, table_);
  }

  PoolRules rules(int64_t query) { return {k_, plan_.width, queries_.scaling(query), thresholds_[query], table_}; }

  // Bring the threads' candidates together and thin them by what all of them know.
  CandidatePool& settle(int64_t query) {
    CandidatePool& pool = pools_[0][query];
    for (int thread = 1; thread < threads_; ++thread) pool.take(pools_[thread][query]);
    pool.thin(rules(query));
    return pool;
  }

  void write(int64_t query, CandidatePool& found, CandidateLists& out) {
    const Scaling& s = queries_.scaling(query);
    const double sign = corpus_.metric == Metric::l2 ? -1 : 1, most = std::numeric_limits<float>::max();
    for (int64_t i = 0; i < found.size(); ++i) {
      out.rows.push_back(found.row(i));
      const double score = sign * (s.unit * found.estimate(i) + s.base);
      out.estimates.push_back(static_cast<float>(std::min(std::max(score, -most), most)));
    }
    out.offsets.push_back(static_cast<int64_t>(out.rows.size()));
    found = CandidatePool();
    // The margin is for float64 rounding, here and in the scores.
    const double reach = s.reach(thresholds_[query].get());
    const double margin = (corpus_.dims + 64) * 0x1p-50 * (s.unit * std::fabs(reach) + std::fabs(s.base));
    out.dropped.push_back(reach == -INFINITY ? reach : s.unit * reach + s.base + margin);
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
  std::vector<std::vector<CandidatePool>> pools_;  // [thread][query]
  std::vector<DocTiles> tiles_;                    // [thread]
  std::vector<std::vector<Hit>> hits_;             // [thread]
};

}  // namespace

CandidateLists propose(const Corpus& corpus, const Queries& queries, int64_t k, const ScanPlan& plan, int threads,
                       const Interrupt& interrupt) {
  const DefaultFloatEnvironment environment;
  CandidateLists out;
  const int useful = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, corpus.n / plan.tile)));
  for (int64_t first = 0; first < queries.n; first += plan.query_block) {
    const int64_t count = std::min<int64_t>(plan.query_block, queries.n - first);
    Scan(corpus, queries, first, count, k, plan, useful, interrupt).run(out);
  }
  return out;
}

}  // namespace pyengine
