// Propose: strided sample -> a threshold per query -> filter while scoring -> tighten while scanning.
#include "cpu/dense.h"

#include <algorithm>
#include <cmath>

#include "cpu/dispatch.h"
#include "cpu/doc_tiles.h"
#include "cpu/query_block.h"
#include "cpu/row_order.h"
#include "cpu/selection.h"
#include "cpu/sign_scan.h"
#include "cpu/sliced_scan.h"

namespace pyengine {
namespace {

constexpr int64_t SOON = 8;     // candidates whose codes are fetched while others are worked on
constexpr int64_t SHARE = 1024;  // candidates handed to a thread at a time
constexpr int64_t SORTED = 1 << 18;  // candidates brought into the order of their rows at a time, or one query's

// One pass over every step-th of the rows considered.
struct Pass {
  int64_t rows, step;
  Extent extent;
};

// One block of queries against the whole corpus.
class Scan {
 public:
  Scan(const Corpus& corpus, const Queries& queries, int64_t first_query, int64_t count, int64_t k,
       const ScanPlan& plan, int threads, const Interrupt& interrupt)
      : corpus_(corpus), first_query_(first_query), plan_(plan), threads_(threads), interrupt_(interrupt),
        table_(kernels()), depth_((corpus.dims + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP),
        as_rows_(corpus.slices || count <= plan.row_queries),
        group_(as_rows_ ? static_cast<int>(std::min<int64_t>(count, MAX_PANELS * PANEL)) : MAX_PANELS * PANEL),
        norm_unit_(DocTiles::norm_unit(corpus, table_)), offset_unit_(DocTiles::offset_unit(corpus, norm_unit_)),
        queries_(corpus, queries, first_query, count, depth_, as_rows_, norm_unit_, offset_unit_, table_, threads,
                 interrupt),
        signs_(corpus, queries, first_query, count), slices_(corpus, queries, first_query, count),
        selection_({k, plan.sample_rank, plan.width}, corpus.dims, queries_.scalings(),
                   queries_.cautions(plan.deviations), threads, table_) {
    for (int64_t q = 0; q < count; ++q) {
      if (queries.floor) selection_.set_floor(q, queries.floor[first_query + q]);
      if (queries.ceiling) selection_.set_ceiling(q, queries.ceiling[first_query + q]);
    }
    for (int thread = 0; thread < threads; ++thread) {
      tiles_.emplace_back(corpus, plan.tile, depth_, norm_unit_, offset_unit_, table_);
      hits_.emplace_back(static_cast<size_t>(plan.tile) * group_);
    }
  }

  void run(CandidateLists& out) {
    if (plan_.sample) {
      scan({plan_.sample, corpus_.considered() / plan_.sample, SAMPLE});
      selection_.settle(SAMPLE, interrupt_);
    }
    scan({corpus_.considered(), 1, CORPUS});
    selection_.settle(CORPUS, interrupt_);
    sharpen();
    selection_.write(corpus_.metric == Metric::l2 ? -1 : 1, out);
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
      least[i] = queries_.filter(first + i, selection_.reach(first + i), tile.weight != nullptr);
      selection_.prefetch(first + i, thread);
    }
    const QueryBlock block = queries_.block(first, least);
    const size_t found = !signs_.empty() ? signs_.scan(tile, block, first, n, table_.query_levels, hits.data())
                         : !slices_.empty() ? slices_.scan(tile, rows, block, first, n, hits.data())
                         : as_rows_ ? table_.scan_rows(tile, block, n, depth_, hits.data())
                                  : table_.scan_panels(tile, block, (n + PANEL - 1) / PANEL, depth_, hits.data());
    for (size_t i = 0; i < found; ++i) {
      const Hit& hit = hits[i];
      const int64_t query = first + hit.query, row = rows[hit.doc];
      if (hit.query >= n || !corpus_.allowed(first_query_ + query, row)) continue;
      const auto bounds = queries_.rough(query, hit.product, tiles_[thread].terms(hit.doc));
      selection_.add({static_cast<int32_t>(row), hit.product, bounds}, query, extent, thread);
    }
  }

  // Sharper bounds for what is left, in the order of the rows, and what remains by them. Without stored codes refining
  // costs no more.
  void sharpen() {
    if (!corpus_.codes) return;
    std::vector<Place> places;
    for (int64_t q = 0; q < queries_.count();) {
      places.clear();
      for (; q < queries_.count() && static_cast<int64_t>(places.size()) < SORTED; ++q)
        for (size_t i = 0; i < selection_.found(q).size(); ++i)
          places.push_back({selection_.found(q)[i].row, q, static_cast<int64_t>(i)});
      order_by_row(places, corpus_.n);
      const int64_t total = static_cast<int64_t>(places.size());
      parallel_for((total + SHARE - 1) / SHARE, threads_, interrupt_, [&](int64_t share, int thread) {
        for (int64_t i = share * SHARE; i < std::min(total, (share + 1) * SHARE); ++i) {
          prefetch(places[std::min(i + SOON, total - 1)].row);
          sharpen(places[i], thread);
        }
      });
    }
    selection_.settle_sharper(interrupt_);
  }

  void sharpen(const Place& place, int thread) {
    Candidate& candidate = selection_.found(place.query)[place.at];
    const DocTile& tile = tiles_[thread].make({place.row, 1, nullptr}, 1);
    const int32_t second = slices_.empty() ? queries_.second_product(place.query, tile.codes, table_)
                                           : slices_.product(place.query, queries_.second(place.query), place.row,
                                                             tile.codes);
    candidate.bounds = queries_.sharpen(place.query, candidate.product, second, tiles_[thread].terms(0));
  }

  void prefetch(int64_t row) const {
    const uint8_t* codes = corpus_.codes + row * corpus_.code_stride;
    for (int64_t line = 0; line < corpus_.code_stride; line += DEPTH_STEP) __builtin_prefetch(codes + line);
    __builtin_prefetch(corpus_.scale + row), __builtin_prefetch(corpus_.residual + row);
  }

  const Corpus& corpus_;
  int64_t first_query_;
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
  SlicedQueries slices_;
  Selection selection_;
  std::vector<DocTiles> tiles_;  // [thread]
  std::vector<std::vector<Hit>> hits_;  // [thread]
};

}  // namespace

CandidateLists propose(const Corpus& corpus, const Queries& queries, int64_t k, const ScanPlan& plan, int threads,
                       const Interrupt& interrupt) {
  const DefaultFloatEnvironment environment;
  CandidateLists out;
  const int64_t tiles = corpus.considered() / plan.tile;
  const int useful = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, tiles)));
  for (int64_t first = 0; first < queries.n; first += plan.query_block) {
    const int64_t count = std::min<int64_t>(plan.query_block, queries.n - first);
    Scan(corpus, queries, first, count, k, plan, useful, interrupt).run(out);
  }
  return out;
}

}  // namespace pyengine
