// Propose: a window of documents at a time, every query adds up what its terms weigh there, and keeps what may matter.
#include "cpu/sparse_scan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include "cpu/dispatch.h"
#include "cpu/sparse_pool.h"
#include "cpu/sparse_reader.h"
#include "cpu/sparse_scorer.h"

namespace pyengine {
namespace {

constexpr int64_t QUERY_BLOCK = 512;     // queries that read a window together
constexpr int64_t GROUP = 8;             // windows that a thread takes at a time, where there are as many groups
constexpr int MANY = 64;                 // one document in so many of a window: columns are added rather than looked up
constexpr int LONGEST_PATIENCE = 64;     // windows
constexpr int64_t LEAST_POOL = 1 << 14;  // candidates that are kept rather than widened for: ties come in numbers

// Windows of which columns are added before looking them up is tried again: now, and after the next failure.
struct Patience {
  int left = 0, next = 4;
};

// Of one thread: sums of a window, what it found of each query, and where it reads.
struct Worker {
  explicit Worker(int64_t queries)
      : sums(new int16_t[1 << 16]), places(new int32_t[WINDOW]), values(new int16_t[WINDOW]), pools(queries),
        patience(queries) {
    std::fill_n(sums.get(), WINDOW, 0);
  }

  std::unique_ptr<int16_t[]> sums;  // of any number that a damaged list could hold; only WINDOW are used
  std::unique_ptr<int32_t[]> places;
  std::unique_ptr<int16_t[]> values;
  std::vector<SparsePool> pools;   // [query]
  std::vector<Patience> patience;  // [query]
  ReaderState reader;
  std::optional<SparseScorer> scorer;
};

struct Range {
  int64_t first, count;
};

class SparseScan {
 public:
  SparseScan(const SparseSearch& search, int64_t first_query, int64_t count, int64_t k, int64_t most, int threads,
             const Interrupt& interrupt)
      : search_(search), first_query_(first_query), k_(k), rules_{k, most, search.by_row}, threads_(threads),
        interrupt_(interrupt), uncovered_(uncovered(search)) {
    for (int64_t q = 0; q < count; ++q) {
      queries_.push_back(prepare_query(search.queries, first_query + q, search.postings));
      floors_.emplace_back(first_floor(q));
    }
    for (int thread = 0; thread < threads; ++thread) workers_.emplace_back(count);
  }

  void run(CandidateLists& out) {
    for (size_t p = 0; p < search_.postings.size(); ++p) scan_postings(p);
    for (const Range& range : uncovered_) {
      parallel_for((range.count + WINDOW - 1) / WINDOW, threads_, interrupt_, [&](int64_t window, int thread) {
        const int64_t first = range.first + window * WINDOW;
        const int64_t n = std::min<int64_t>(WINDOW, range.first + range.count - first);
        for (size_t q = 0; q < queries_.size(); ++q) score(workers_[thread], q, first, static_cast<int>(n));
      });
    }
    write(out);
  }

 private:
  void scan_postings(size_t p) {
    const Postings& postings = search_.postings[p];
    reader_.gather(queries_, p);
    const int64_t windows = postings.windows(), length = std::max<int64_t>(1, std::min(GROUP, windows / GROUP));
    const auto scan_group = [&](Worker& worker, int64_t group) {
      scan(worker, postings, group * length, std::min(windows, (group + 1) * length));
    };
    const int64_t groups = (windows + length - 1) / length, sample = p == 0 ? sample_group(groups, length) : -1;
    if (sample >= 0) scan_group(workers_[0], sample);
    rules_.k = k_, rules_.by_row = search_.by_row;
    parallel_for(groups, threads_, interrupt_, [&](int64_t group, int thread) {
      if (group != sample) scan_group(workers_[thread], group);
    });
  }

  // The group of so many windows that is scanned before the others, to find out what k documents are likely to reach:
  // -1 for none. There, as many are wanted as belong to the k best of all with near certainty.
  int64_t sample_group(int64_t groups, int64_t length) {
    const double share = static_cast<double>(length * WINDOW) / static_cast<double>(search_.docs.n);
    const double expected = k_ * share;
    const int64_t rank = static_cast<int64_t>(expected + 4 * std::sqrt(expected) + 4);
    if (search_.sure || rank > k_ / 2) return -1;
    rules_.k = rank, rules_.by_row = false;
    return groups / 2;
  }

  // Where nothing is negative and nothing added, a document that shares no term scores 0.
  float first_floor(int64_t q) const {
    constexpr float ANY = -std::numeric_limits<float>::infinity();
    const float start = queries_[q].positive && !search_.bias ? LEAST_POSITIVE : ANY;
    return search_.floor ? std::max(start, at_most(search_.floor[first_query_ + q])) : start;
  }

  void scan(Worker& worker, const Postings& postings, int64_t first, int64_t last) {
    reader_.find(worker.reader, first, last);
    for (int64_t window = first; window < last; ++window) {
      const int n = static_cast<int>(std::min<int64_t>(WINDOW, postings.count - window * WINDOW));
      const int64_t first_row = postings.first + window * WINDOW;
      for (const size_t q : reader_.order()) {
        const bool touched = reader_.add(worker.reader, window, q, worker.sums.get());
        if (queries_[q].many) {
          score(worker, q, first_row, n);
        } else if (search_.bias) {
          reader_.add_columns(q, window, worker.sums.get());
          with_bias(worker, q, first_row, n);
        } else if (touched || !reader_.columns(q).empty() || !queries_[q].positive) {
          take(worker, q, window, first_row, n);
        }
      }
    }
  }

  // As the specification does.
  void score(Worker& worker, int64_t q, int64_t first_row, int n) {
    SparseScorer& scorer = scorer_of(worker, q);
    for (int64_t row = first_row; row < first_row + n; ++row) {
      if (!allowed(q, row)) continue;
      const float exact = scorer(row);
      add(worker, q, {exact, exact, row});
    }
  }

  SparseScorer& scorer_of(Worker& worker, int64_t q) const {
    if (!worker.scorer) worker.scorer.emplace(search_.queries, search_.docs, search_.bias);
    worker.scorer->set_query(first_query_ + q);
    return *worker.scorer;
  }

  // The least sum that matters in rows from the first on: bounds rise with the sum.
  int16_t least_sum(int64_t q, int64_t first_row) const {
    const SparseQuery& query = queries_[q];
    const double below = rounds_below(floors_[q].least()) / query.unit;
    const double near = std::floor(below - query.rounded_down - query.error - 0x1p-10);
    int low = static_cast<int>(std::min(std::max(near, query.positive ? 1 : -0x1p15), 0x1p15 - 1)), high = INT16_MAX;
    while (low < high) {
      const int middle = low + (high - low) / 2;
      if (floors_[q].admits(rounded_score(query.upper(middle)), first_row)) high = middle;
      else low = middle + 1;
    }
    return static_cast<int16_t>(low);
  }

  // List what may matter, and clear the sums.
  void take(Worker& worker, int64_t q, int64_t window, int64_t first_row, int n) {
    const SparseQuery& query = queries_[q];
    int16_t* const sums = worker.sums.get();
    int found = reader_.columns(q).empty() ? -1 : look_up(worker, q, window, first_row);
    if (found < 0) {
      reader_.add_columns(q, window, sums);
      prime(worker, q, first_row, n);
      found = table_.take_sums(sums, WINDOW, least_sum(q, first_row), worker.places.get(), worker.values.get());
    }
    for (int i = 0; i < found; ++i) {
      const int64_t place = worker.places[i], row = first_row + place;
      if (place >= n || !allowed(q, row)) continue;
      const double sum = worker.values[i];
      add(worker, q, {rounded_score(query.lower(sum)), rounded_score(query.upper(sum)), row});
    }
  }

  // The same where columns cannot raise most documents to what matters: they are looked up for the others (MaxScore;
  // Turtle and Flood 1995). How many are found, or -1 where that would be so many that nothing is gained.
  int look_up(Worker& worker, int64_t q, int64_t window, int64_t first_row) const {
    const std::vector<QueryTerm>& columns = reader_.columns(q);
    const int32_t least = least_sum(q, first_row), wanted = least - most_of(columns);
    Patience& patience = worker.patience[q];
    if (wanted <= 0 || (patience.left > 0 && --patience.left > 0)) return -1;
    int16_t *sums = worker.sums.get(), *values = worker.values.get();
    int32_t* places = worker.places.get();
    const int found = table_.take_sums(sums, WINDOW, static_cast<int16_t>(wanted), places, values);
    if (found > WINDOW / MANY) {  // back again: what was cleared beside them cannot come to matter
      for (int i = 0; i < found; ++i) sums[places[i]] = values[i];
      patience.left = patience.next, patience.next = std::min(2 * patience.next, LONGEST_PATIENCE);
      return -1;
    }
    int kept = 0;
    for (int i = 0; i < found; ++i) {
      int32_t sum = values[i];
      for (const QueryTerm& term : columns) sum += term.weigh(term.levels[window * WINDOW + places[i]]);
      places[kept] = places[i], values[kept] = static_cast<int16_t>(sum);
      kept += sum >= least;
    }
    return kept;
  }

  // What columns can add at most.
  static int32_t most_of(const std::vector<QueryTerm>& columns) {
    int32_t most = 0;
    for (const QueryTerm& term : columns) most += std::max(term.weigh(255), term.weigh(0));
    return most;
  }

  // Before anything was found: the floor that the window itself gives, so that few of its documents are listed.
  void prime(Worker& worker, int64_t q, int64_t first_row, int n) {
    if (rules_.k > n / 2 || floors_[q].least() > LEAST_POSITIVE || !worker.pools[q].items().empty()) return;
    const int16_t* const sums = search_.mask ? allowed_sums(worker, q, first_row, n) : worker.sums.get();
    floors_[q].raise(rounded_score(queries_[q].lower(table_.kth_sum(sums, n, static_cast<int>(rules_.k)))));
  }

  // The sums of a window, the least possible where the mask is 0.
  const int16_t* allowed_sums(Worker& worker, int64_t q, int64_t first_row, int n) const {
    int16_t* const sums = worker.values.get();
    for (int i = 0; i < n; ++i) sums[i] = allowed(q, first_row + i) ? worker.sums[i] : INT16_MIN;
    return sums;
  }

  bool allowed(int64_t q, int64_t row) const { return search_.allowed(first_query_ + q, row); }

  void with_bias(Worker& worker, int64_t q, int64_t first_row, int n) {
    const SparseQuery& query = queries_[q];
    for (int i = 0; i < n; ++i) {
      const double bias = search_.bias[first_row + i], sum = worker.sums[i];
      const double lower = query.lower(sum) + bias, upper = query.upper(sum) + bias;
      const double largest = std::max(std::fabs(query.lower(sum)), std::fabs(query.upper(sum)));
      const double rounding = 0x1p-50 * (std::fabs(bias) + largest);
      const float most = rounded_score(upper + rounding);
      if (most < floors_[q].least() || !allowed(q, first_row + i)) continue;
      add(worker, q, {rounded_score(lower - rounding), most, first_row + i});
    }
    std::fill_n(worker.sums.get(), WINDOW, 0);
  }

  void add(Worker& worker, int64_t q, const ScoredRow& row) { worker.pools[q].add(row, rules_, floors_[q]); }

  void write(CandidateLists& out) {
    for (size_t q = 0; q < queries_.size(); ++q) {
      SparsePool& pool = workers_[0].pools[q];
      for (int thread = 1; thread < threads_; ++thread) pool.take(workers_[thread].pools[q]);
      pool.thin(rules_, floors_[q]);
      for (const ScoredRow& each : pool.items()) {
        out.rows.push_back(each.row);
        out.estimates.push_back(static_cast<float>((static_cast<double>(each.lower) + each.upper) / 2));
      }
      out.offsets.push_back(static_cast<int64_t>(out.rows.size()));
      out.dropped.push_back(floors_[q].bound());
      pool = SparsePool();
    }
  }

  static std::vector<Range> uncovered(const SparseSearch& search) {
    std::vector<Range> ranges;
    int64_t row = 0;
    const auto until = [&](int64_t first) {
      if (row < first) ranges.push_back({row, first - row});
    };
    for (const Postings& each : search.postings) until(each.first), row = each.first + each.count;
    until(search.docs.n);
    return ranges;
  }

  const SparseSearch& search_;
  const KernelTable& table_ = kernels();
  int64_t first_query_, k_;
  SparseRules rules_;  // of the windows at hand: fewer than k_ are wanted of a sample
  int threads_;
  const Interrupt& interrupt_;
  std::vector<SparseQuery> queries_;
  std::vector<ScoreFloor> floors_;
  std::vector<Worker> workers_;
  PostingReader reader_{table_};
  std::vector<Range> uncovered_;  // rows of no Postings
};

}  // namespace

CandidateLists propose_sparse(const SparseSearch& search, int64_t k, int64_t width, int threads,
                              const Interrupt& interrupt) {
  const DefaultFloatEnvironment environment;
  CandidateLists out;
  const int64_t most = std::max({width, 4 * k, LEAST_POOL});
  for (int64_t first = 0; first < search.queries.n; first += QUERY_BLOCK) {
    const int64_t count = std::min(QUERY_BLOCK, search.queries.n - first);
    SparseScan(search, first, count, k, most, threads, interrupt).run(out);
  }
  return out;
}

}  // namespace pyengine
