// Propose: a window of documents at a time, every query adds up what its terms weigh there, and keeps what may matter.
#include "cpu/sparse_scan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>

#include "cpu/dispatch.h"
#include "cpu/sparse_pool.h"
#include "cpu/sparse_queries.h"
#include "cpu/sparse_scorer.h"

namespace pyengine {
namespace {

constexpr double INF = std::numeric_limits<double>::infinity();
constexpr double LARGEST = std::numeric_limits<float>::max();
constexpr int64_t QUERY_BLOCK = 512;     // queries that read a window together
constexpr int64_t GROUP = 8;             // windows that a thread takes at a time
constexpr int64_t AHEAD = 16;            // chunks that are fetched before they are added
constexpr int MANY = 64;                 // one document in so many of a window: columns are added rather than looked up
constexpr int LONGEST_PATIENCE = 64;     // windows
constexpr int64_t LEAST_POOL = 1 << 14;  // candidates that are kept rather than widened for: ties come in numbers

// The postings of a term in a window: [first, first + n) of its list.
struct Chunk {
  uint32_t first, n;
};

void prefetch(const QueryTerm& term, Chunk chunk) {
  for (uint32_t i = 0; i < chunk.n; i += 32) __builtin_prefetch(term.docs + chunk.first + i, 0, 2);
  for (uint32_t i = 0; i < chunk.n; i += 64) __builtin_prefetch(term.levels + chunk.first + i, 0, 2);
}

// Where a query stands in a rare list: its next posting, in `window`, or NONE.
struct RareRead {
  static constexpr uint32_t NONE = UINT32_MAX;
  uint32_t at, window;
};

// Windows of which columns are added before looking them up is tried again: now, and after the next failure.
struct Patience {
  int left = 0, next = 4;
};

// Of one thread: sums of a window, what it found of each query, and the postings of a group of windows.
struct Worker {
  Worker() : sums(new int16_t[1 << 16]), places(new int32_t[WINDOW]), values(new int16_t[WINDOW]) { std::fill_n(sums.get(), WINDOW, 0); }

  std::unique_ptr<int16_t[]> sums;  // of any number that a damaged list could hold; only WINDOW are used
  std::unique_ptr<int32_t[]> places;
  std::unique_ptr<int16_t[]> values;
  std::vector<float> rounded;
  std::vector<SparsePool> pools;  // [query]
  std::vector<Chunk> chunks;      // [GROUP][list terms of all queries]
  std::vector<RareRead> rare;     // [rare terms of all queries]
  std::vector<Patience> patience;  // [query]
  std::optional<SparseScorer> scorer;
};

struct Range {
  int64_t first, count;
};

class SparseScan {
 public:
  SparseScan(const SparseSearch& search, int64_t first_query, int64_t count, int64_t k, int64_t most, int threads,
             const Interrupt& interrupt)
      : search_(search), first_query_(first_query), k_(k), wanted_(k), most_(most), threads_(threads), interrupt_(interrupt),
        workers_(threads), uncovered_(uncovered(search)) {
    for (int64_t q = 0; q < count; ++q) {
      queries_.push_back(prepare_query(search.queries, first_query + q, search.postings));
      floors_.emplace_back(first_floor(q));
    }
    for (Worker& worker : workers_) worker.pools.resize(count), worker.patience.resize(count);
  }

  void run(CandidateLists& out) {
    for (size_t p = 0; p < search_.postings.size(); ++p) {
      gather(p);
      const Postings& postings = search_.postings[p];
      const int64_t groups = (postings.windows() + GROUP - 1) / GROUP, sample = p == 0 ? sample_group(groups) : -1;
      if (sample >= 0) scan_group(workers_[0], postings, sample);
      wanted_ = k_;
      parallel_for(groups, threads_, interrupt_, [&](int64_t group, int thread) {
        if (group != sample) scan_group(workers_[thread], postings, group);
      });
    }
    for (const Range& range : uncovered_) {
      parallel_for((range.count + WINDOW - 1) / WINDOW, threads_, interrupt_, [&](int64_t window, int thread) {
        const int64_t first = range.first + window * WINDOW, n = std::min<int64_t>(WINDOW, range.first + range.count - first);
        for (size_t q = 0; q < queries_.size(); ++q) score(workers_[thread], q, first, static_cast<int>(n));
      });
    }
    write(out);
  }

 private:
  // The group that is scanned before the others, to find out what k documents are likely to reach: -1 for none. There,
  // `wanted_` are as many as belong to the k best of all with near certainty.
  int64_t sample_group(int64_t groups) {
    const double share = static_cast<double>(GROUP * WINDOW) / static_cast<double>(search_.docs.n), expected = k_ * share;
    const int64_t rank = static_cast<int64_t>(expected + 4 * std::sqrt(expected) + 4);
    if (search_.sure || rank > k_ / 2) return -1;
    wanted_ = rank;
    return groups / 2;
  }

  void scan_group(Worker& worker, const Postings& postings, int64_t group) {
    scan(worker, postings, group * GROUP, std::min(postings.windows(), (group + 1) * GROUP));
  }

  // Where a query's terms are.
  struct Span {
    int64_t list, last_list, rare, last_rare;
    const std::vector<QueryTerm>* columns;
  };

  // The terms of all queries in one of the postings, one query after another: those that share columns follow one
  // another, while these are in the cache.
  void gather(size_t p) {
    lists_.clear(), rare_.clear(), spans_.assign(queries_.size(), {});
    order_.resize(queries_.size());
    std::iota(order_.begin(), order_.end(), 0);
    const auto levels = [&](size_t q) { return queries_[q].columns[p].empty() ? nullptr : queries_[q].columns[p].back().levels; };
    std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return levels(a) < levels(b); });
    for (const size_t q : order_) {
      const SparseQuery& query = queries_[q];
      Span& span = spans_[q];
      span = {static_cast<int64_t>(lists_.size()), 0, static_cast<int64_t>(rare_.size()), 0, &query.columns[p]};
      lists_.insert(lists_.end(), query.lists[p].begin(), query.lists[p].end());
      rare_.insert(rare_.end(), query.rare[p].begin(), query.rare[p].end());
      span.last_list = static_cast<int64_t>(lists_.size()), span.last_rare = static_cast<int64_t>(rare_.size());
    }
  }

  // Where nothing is negative and nothing added, a document that shares no term scores 0.
  double first_floor(int64_t q) const {
    const double start = queries_[q].positive && !search_.bias ? 0 : -INF;
    return search_.floor ? std::max(start, surely_below(search_.floor[first_query_ + q])) : start;
  }

  void scan(Worker& worker, const Postings& postings, int64_t first, int64_t last) {
    find_chunks(worker, first, last);
    find_rare(worker, first);
    for (int64_t window = first; window < last; ++window) {
      const int n = static_cast<int>(std::min<int64_t>(WINDOW, postings.count - window * WINDOW));
      const Chunk* chunks = worker.chunks.data() + (window - first) * lists_.size();
      const Chunk* end = worker.chunks.data() + (last - first) * lists_.size();
      for (const size_t q : order_) {
        const bool touched = add_up(worker, window, q, chunks, end);
        const int64_t first_row = postings.first + window * WINDOW;
        const std::vector<QueryTerm>& columns = *spans_[q].columns;
        if (queries_[q].many) {
          score(worker, q, first_row, n);
        } else if (search_.bias) {
          add_columns(worker, columns, window);
          with_bias(worker, q, first_row, n);
        } else if (touched || !columns.empty() || !queries_[q].positive) {
          take(worker, q, columns, window, first_row, n);
        }
      }
    }
  }

  // As the specification does.
  void score(Worker& worker, int64_t q, int64_t first_row, int n) {
    SparseScorer& scorer = scorer_of(worker, q);
    for (int64_t row = first_row; row < first_row + n; ++row) {
      if (!search_.allowed(first_query_ + q, row)) continue;
      const double exact = scorer(row), least = floors_[q].get();
      const double upper = exact < LARGEST ? exact : INF, lower = exact > -LARGEST ? exact : -INF;  // clamped to it, it may be beyond
      if (upper >= least && (exact != 0 || least != 0)) add(worker, q, {lower, upper, row});
    }
  }

  SparseScorer& scorer_of(Worker& worker, int64_t q) const {
    if (!worker.scorer) worker.scorer.emplace(search_.queries, search_.docs, search_.bias);
    worker.scorer->set_query(first_query_ + q);
    return *worker.scorer;
  }

  void add_columns(Worker& worker, const std::vector<QueryTerm>& columns, int64_t window) const {
    for (const QueryTerm& term : columns)
      table_.add_column(term.levels + window * WINDOW, WINDOW, term.factor, term.zero, worker.sums.get());
  }

  // Where the lists' postings of these windows are: in the order in which they will be read.
  void find_chunks(Worker& worker, int64_t first, int64_t last) const {
    worker.chunks.resize((last - first) * lists_.size());
    for (size_t t = 0; t < lists_.size(); ++t) {
      const QueryTerm& term = lists_[t];
      if (t + AHEAD < lists_.size()) __builtin_prefetch(lists_[t + AHEAD].starts + first);
      const auto start = [&](int64_t window) { return static_cast<uint32_t>(std::min<int64_t>(term.starts[window], term.n)); };  // whatever a mapped file holds
      uint32_t begin = start(first);
      for (int64_t window = first; window < last; ++window) {
        const uint32_t end = std::max(begin, start(window + 1));
        worker.chunks[(window - first) * lists_.size() + t] = {begin, end - begin};
        begin = end;
      }
    }
  }

  void find_rare(Worker& worker, int64_t first) const {
    worker.rare.resize(rare_.size());
    for (size_t t = 0; t < rare_.size(); ++t) {
      const uint64_t *begin = rare_[t].rare, *end = begin + rare_[t].n;
      const uint64_t* at = std::lower_bound(begin, end, static_cast<uint64_t>(first * WINDOW) << 8);
      worker.rare[t] = {static_cast<uint32_t>(at - begin), at < end ? window_of(*at) : RareRead::NONE};
    }
  }

  static uint32_t window_of(uint64_t posting) { return static_cast<uint32_t>(std::min<uint64_t>((posting >> 8) / WINDOW, RareRead::NONE)); }

  // Whether any document of the window may have a term of the query. `end` is that of the group's chunks.
  bool add_up(Worker& worker, int64_t window, int64_t q, const Chunk* chunks, const Chunk* end) {
    const Span& span = spans_[q];
    int16_t* sums = worker.sums.get();
    const int64_t n = static_cast<int64_t>(lists_.size());
    for (int64_t t = span.list; t < span.last_list; ++t) {
      if (chunks + t + AHEAD < end) prefetch(lists_[t + AHEAD < n ? t + AHEAD : (t + AHEAD) % n], chunks[t + AHEAD]);
      const QueryTerm& term = lists_[t];
      table_.add_postings(term.docs + chunks[t].first, term.levels + chunks[t].first, static_cast<int>(chunks[t].n), term.factor, term.zero, sums);
    }
    for (int64_t t = span.rare; t < span.last_rare; ++t) {
      const size_t soon = t + AHEAD;
      if (soon < rare_.size() && worker.rare[soon].window == window) __builtin_prefetch(rare_[soon].rare + worker.rare[soon].at);
      if (worker.rare[t].window <= window) add_rare(rare_[t], window, worker.rare[t], sums);
    }
    return span.list < span.last_list || span.rare < span.last_rare;
  }

  static void add_rare(const QueryTerm& term, int64_t window, RareRead& read, int16_t* sums) {
    do {
      const uint64_t posting = term.rare[read.at];
      sums[(posting >> 8) % WINDOW] += term.weigh(static_cast<uint8_t>(posting));
      read.window = ++read.at < term.n ? window_of(term.rare[read.at]) : RareRead::NONE;
    } while (read.window <= window);
  }

  // The least sum that matters: see SparsePool.
  int16_t least_sum(int64_t q) const {
    const SparseQuery& query = queries_[q];
    const double least = std::floor(floors_[q].get() / query.unit - query.error - 0x1p-10);
    const double lowest = query.positive ? 1 : std::numeric_limits<int16_t>::min();
    return static_cast<int16_t>(std::min(std::max(least, lowest), 0x1p15 - 1));
  }

  // List what may matter, and clear the sums.
  void take(Worker& worker, int64_t q, const std::vector<QueryTerm>& columns, int64_t window, int64_t first_row, int n) {
    const SparseQuery& query = queries_[q];
    int found = columns.empty() ? -1 : look_up(worker, q, columns, window);
    if (found < 0) {
      add_columns(worker, columns, window);
      prime(worker, q, n);
      found = table_.take_sums(worker.sums.get(), WINDOW, least_sum(q), worker.places.get(), worker.values.get());
    }
    for (int i = 0; i < found; ++i) {
      const int64_t place = worker.places[i], row = first_row + place;
      if (place >= n || !search_.allowed(first_query_ + q, row)) continue;
      const double sum = worker.values[i];
      add(worker, q, {query.lower(sum), query.upper(sum), row});
    }
  }

  // The same where columns cannot raise most documents to what matters: they are looked up for the others (MaxScore;
  // Turtle and Flood 1995). How many are found, or -1 where that would be so many that nothing is gained.
  int look_up(Worker& worker, int64_t q, const std::vector<QueryTerm>& columns, int64_t window) const {
    const int32_t least = least_sum(q), wanted = least - most_of(columns);
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
      for (const QueryTerm& term : columns)
        if (const uint8_t level = term.levels[window * WINDOW + places[i]]; level != term.zero) sum += term.weigh(level);
      places[kept] = places[i], values[kept] = static_cast<int16_t>(sum);
      kept += sum >= least;
    }
    return kept;
  }

  // What columns can add at most.
  static int32_t most_of(const std::vector<QueryTerm>& columns) {
    int32_t most = 0;
    for (const QueryTerm& term : columns) most += std::max({0, static_cast<int>(term.weigh(255)), static_cast<int>(term.weigh(0))});
    return most;
  }

  // Before anything was found: the floor that the window itself gives, so that few of its documents are listed.
  void prime(Worker& worker, int64_t q, int n) {
    ScoreFloor& floor = floors_[q];
    if (wanted_ > n / 2 || search_.mask || floor.get() > 0 || !worker.pools[q].items().empty()) return;
    worker.rounded.assign(worker.sums.get(), worker.sums.get() + n);
    const double kth = table_.kth_largest(worker.rounded.data(), n, static_cast<int>(wanted_));
    const SparseQuery& query = queries_[q];
    floor.raise(surely_below(query.lower(kth - std::fabs(kth) * 0x1p-22)));
  }

  void with_bias(Worker& worker, int64_t q, int64_t first_row, int n) {
    const SparseQuery& query = queries_[q];
    for (int i = 0; i < n; ++i) {
      const double bias = search_.bias[first_row + i], sum = worker.sums[i];
      const double lower = query.lower(sum) + bias, upper = query.upper(sum) + bias;
      const double rounding = 0x1p-50 * (std::fabs(bias) + std::fabs(query.upper(sum)));
      if (upper + rounding < floors_[q].get() || !search_.allowed(first_query_ + q, first_row + i)) continue;
      add(worker, q, {lower - rounding, upper + rounding, first_row + i});
    }
    std::fill_n(worker.sums.get(), WINDOW, 0);
  }

  void add(Worker& worker, int64_t q, const ScoredRow& row) { worker.pools[q].add(row, wanted_, most_, floors_[q]); }

  void write(CandidateLists& out) {
    for (size_t q = 0; q < queries_.size(); ++q) {
      SparsePool& pool = workers_[0].pools[q];
      for (int thread = 1; thread < threads_; ++thread) pool.take(workers_[thread].pools[q]);
      pool.thin(k_, floors_[q]);
      for (const ScoredRow& each : pool.items()) list(out, each.row, (each.lower + each.upper) / 2);
      out.offsets.push_back(static_cast<int64_t>(out.rows.size()));
      out.dropped.push_back(floors_[q].get());
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

  static void list(CandidateLists& out, int64_t row, double score) {
    out.rows.push_back(row);
    out.estimates.push_back(static_cast<float>(std::min(std::max(score, -LARGEST), LARGEST)));
  }

  const SparseSearch& search_;
  const KernelTable& table_ = kernels();
  int64_t first_query_, k_;
  int64_t wanted_;  // of the windows at hand: k_, or fewer in a sample
  int64_t most_;
  int threads_;
  const Interrupt& interrupt_;
  std::vector<SparseQuery> queries_;
  std::vector<ScoreFloor> floors_;
  std::vector<Worker> workers_;
  std::vector<QueryTerm> lists_, rare_;  // of the postings at hand, one query after another
  std::vector<size_t> order_;            // of the queries
  std::vector<Span> spans_;              // [query]
  std::vector<Range> uncovered_;  // rows of no Postings
};

}  // namespace

CandidateLists propose_sparse(const SparseSearch& search, int64_t k, int64_t width, int threads, const Interrupt& interrupt) {
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
