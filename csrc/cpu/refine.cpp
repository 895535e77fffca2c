// The specification in float64: scores of listed rows, selection, and the full scan that is the last resort.
#include <algorithm>
#include <cmath>

#include "cpu/dense.h"
#include "cpu/dispatch.h"
#include "cpu/row_order.h"

namespace pyengine {
namespace {

constexpr float INF = std::numeric_limits<float>::infinity();
constexpr int64_t CHUNK = 256;       // candidates handed to a thread at a time
constexpr int64_t SORTED = 1 << 18;  // candidates brought into the order of their rows at a time: 12 MiB
constexpr int64_t QUERY_BYTES = 1 << 20;  // of queries that stay in the L2 cache meanwhile
constexpr int64_t SCAN_PART = 4096;  // documents that make a thread worth starting

double norm_of(const KernelTable& table, const float* row, int n) {
  double squared;
  table.dot_f64(&row, &row, &row, 1, n, &squared);
  return std::sqrt(squared);
}

// Scores up to PAIR_BLOCK of the `listed` places; the others will be wanted soon. One per thread.
class Scorer {
 public:
  Scorer(const Corpus& corpus, const Queries& queries, const std::vector<double>& query_norms, const KernelTable& table)
      : corpus_(corpus), queries_(queries), query_norms_(query_norms), table_(table),
        reader_(corpus.rows, corpus.dims, table, PAIR_BLOCK) {}

  void operator()(const Place* places, int64_t listed, float* scores) {
    const int count = static_cast<int>(std::min<int64_t>(PAIR_BLOCK, listed));
    const float *queries[PAIR_BLOCK], *vectors[PAIR_BLOCK], *next[PAIR_BLOCK];
    double raw[PAIR_BLOCK];
    for (int i = 0; i < count; ++i) {
      queries[i] = queries_.rows + places[i].query * corpus_.dim;
      vectors[i] = reader_.read(places[i].row, i);
      next[i] = reader_.soon(places[std::min<int64_t>(i + PAIR_BLOCK, listed - 1)].row);
    }
    const auto multiply = corpus_.metric == Metric::l2 ? table_.l2_f64 : table_.dot_f64;
    if (corpus_.slices) score_sliced(places, listed, queries, vectors, raw);
    else multiply(queries, vectors, next, count, corpus_.dims, raw);
    if (corpus_.unchecked) check(places, raw, count);
    double norms[PAIR_BLOCK];
    if (corpus_.metric == Metric::cosine) find_norms(places, vectors, next, count, norms);
    for (int i = 0; i < count; ++i) scores[places[i].at] = finish(raw[i], places[i], norms[i]);
  }

 private:
  void score_sliced(const Place* places, int64_t listed, const float* const* queries, const float* const* vectors,
                    double* raw) {
    for (int i = 0; i < std::min<int64_t>(PAIR_BLOCK, listed); ++i) {
      const uint8_t* slices = corpus_.slices + places[i].row * corpus_.slice_stride;
      const uint8_t* wanted = queries_.slices + places[i].query * corpus_.slice_stride;
      const int64_t next = places[std::min<int64_t>(i + PAIR_BLOCK, listed - 1)].row;
      const uint8_t* soon = corpus_.slices + next * corpus_.slice_stride;
      for (int64_t line = 0; line < corpus_.slice_stride; line += DEPTH_STEP) __builtin_prefetch(soon + line);
      raw[i] = table_.sliced_f64(queries[i], wanted, vectors[i], slices, corpus_.dims);
    }
  }

  // A product with a finite query is finite if the row is: in float64 nothing overflows here.
  static void check(const Place* places, const double* raw, int count) {
    for (int i = 0; i < count; ++i)
      if (!std::isfinite(raw[i])) throw NonFiniteRow(places[i].row);
  }

  void find_norms(const Place* places, const float* const* vectors, const float* const* next, int count,
                  double* norms) const {
    if (corpus_.norms && corpus_.dims == corpus_.dim) {
      for (int i = 0; i < count; ++i) norms[i] = corpus_.norms[places[i].row];
      return;
    }
    table_.dot_f64(vectors, vectors, next, count, corpus_.dims, norms);
    for (int i = 0; i < count; ++i) norms[i] = std::sqrt(norms[i]);
  }

  float finish(double score, const Place& place, double norm) const {
    if (corpus_.metric == Metric::cosine) {
      const double norms = query_norms_[place.query] * norm;
      score = norms > 0 ? score / norms : 0.0;
    }
    if (corpus_.bias) score += corpus_.bias[place.row];
    return round_score(score);
  }

  const Corpus& corpus_;
  const Queries& queries_;
  const std::vector<double>& query_norms_;
  const KernelTable& table_;
  RowReader reader_;
};

std::vector<double> norms_of(const Corpus& corpus, const Queries& queries, const KernelTable& table) {
  std::vector<double> norms(queries.n);
  for (int64_t q = 0; q < queries.n; ++q) norms[q] = norm_of(table, queries.rows + q * corpus.dim, corpus.dims);
  return norms;
}

struct Ranked {
  float rank;  // the score, or minus the distance
  int64_t id;
};

// Not a function: a comparison that is called by its address costs as much as the sorting.
struct Better {
  bool operator()(const Ranked& a, const Ranked& b) const { return a.rank != b.rank ? a.rank > b.rank : a.id < b.id; }
};
constexpr Better better;

// The k best seen so far, as a heap whose front is the worst of them.
class Best {
 public:
  explicit Best(int64_t k) : k_(k) {}

  void add(Ranked item) {
    if (!(item.rank > -INF)) return;  // nor NaN, which has no order: what a mapped file holds is not verified
    if (static_cast<int64_t>(heap_.size()) < k_) {
      heap_.push_back(item);
      std::push_heap(heap_.begin(), heap_.end(), better);
    } else if (better(item, heap_.front())) {
      std::pop_heap(heap_.begin(), heap_.end(), better);
      heap_.back() = item;
      std::push_heap(heap_.begin(), heap_.end(), better);
    }
  }

  void merge(const Best& other) {
    for (const Ranked& item : other.heap_) add(item);
  }

  std::vector<Ranked>& items() { return heap_; }

 private:
  int64_t k_;
  std::vector<Ranked> heap_;
};

// The k best of the items, best first and padded.
void write_best(std::vector<Ranked>& items, int64_t k, Metric metric, float* scores, int64_t* ids) {
  const int64_t kept = std::min<int64_t>(k, items.size());
  std::nth_element(items.begin(), items.begin() + kept, items.end(), better);
  std::sort(items.begin(), items.begin() + kept, better);
  const float sign = metric == Metric::l2 ? -1.0f : 1.0f;
  for (int64_t i = 0; i < k; ++i) {
    scores[i] = i < kept ? sign * items[i].rank + 0.0f : sign * -INF;
    ids[i] = i < kept ? items[i].id : -1;
  }
}

float rank_of(float score, Metric metric) { return metric == Metric::l2 ? -score : score; }

}  // namespace

void norms(const Rows& rows, int64_t n, int dims, double* out, int threads, const Interrupt& interrupt) {
  const KernelTable& table = kernels();
  parallel_for((n + CHUNK - 1) / CHUNK, threads, interrupt, [&](int64_t chunk, int) {
    const int64_t end = std::min(n, (chunk + 1) * CHUNK);
    RowReader reader(rows, dims, table, PAIR_BLOCK);
    for (int64_t row = chunk * CHUNK; row < end; row += PAIR_BLOCK) {
      const int count = static_cast<int>(std::min<int64_t>(PAIR_BLOCK, end - row));
      const float *vectors[PAIR_BLOCK], *next[PAIR_BLOCK];
      for (int i = 0; i < count; ++i) {
        vectors[i] = reader.read(row + i, i);
        next[i] = reader.soon(std::min(row + i + PAIR_BLOCK, n - 1));
      }
      table.dot_f64(vectors, vectors, next, count, dims, out + row);
    }
    for (int64_t row = chunk * CHUNK; row < end; ++row) out[row] = std::sqrt(out[row]);
  });
}

void refine(const Corpus& corpus, const Queries& queries, const int64_t* rows, const int64_t* offsets, float* scores,
            int threads, const Interrupt& interrupt) {
  const DefaultFloatEnvironment environment;
  const KernelTable& table = kernels();
  const std::vector<double> query_norms = norms_of(corpus, queries, table);
  const int64_t total = offsets[queries.n], together = std::max<int64_t>(1, QUERY_BYTES / (sizeof(float) * corpus.dim));
  std::vector<Place> places;
  for (int64_t at = 0, query = 0; at < total;) {
    places.clear();
    const int64_t last = query + together;
    for (; at < total && static_cast<int64_t>(places.size()) < SORTED; ++at) {
      while (at >= offsets[query + 1]) ++query;
      if (query >= last) break;
      places.push_back({rows[at], query, at});
    }
    if (together > 1 && queries.n > 1) order_by_row(places, corpus.n);
    const int64_t count = static_cast<int64_t>(places.size());
    parallel_for((count + CHUNK - 1) / CHUNK, threads, interrupt, [&](int64_t chunk, int) {
      Scorer score(corpus, queries, query_norms, table);
      const int64_t end = std::min(count, (chunk + 1) * CHUNK);
      for (int64_t i = chunk * CHUNK; i < end; i += PAIR_BLOCK) score(places.data() + i, end - i, scores);
    });
  }
}

void select(const float* scores, const int64_t* rows, const int64_t* offsets, int64_t n_queries, int64_t k,
            Metric metric, const int64_t* ids, float* top_scores, int64_t* top_ids) {
  const DefaultFloatEnvironment environment;
  std::vector<Ranked> items;
  for (int64_t query = 0; query < n_queries; ++query) {
    items.clear();
    for (int64_t at = offsets[query]; at < offsets[query + 1]; ++at) {
      const float rank = rank_of(scores[at], metric);
      if (rank > -INF) items.push_back({rank, ids ? ids[rows[at]] : rows[at]});
    }
    write_best(items, k, metric, top_scores + query * k, top_ids + query * k);
  }
}

void exact_topk(const Corpus& corpus, const Queries& queries, int64_t k, const int64_t* ids, float* top_scores,
                int64_t* top_ids, int threads, const Interrupt& interrupt) {
  const DefaultFloatEnvironment environment;
  const KernelTable& table = kernels();
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(threads, corpus.n / SCAN_PART));
  const int64_t length = (corpus.n + parts - 1) / parts;
  const std::vector<double> query_norms = norms_of(corpus, queries, table);
  // One query at a time over the whole corpus, its documents shared among the threads: memory stays at k per thread.
  for (int64_t query = 0; query < queries.n; ++query) {
    std::vector<Best> best(parts, Best(k));
    parallel_for(parts, threads, interrupt, [&](int64_t part, int) {
      Scorer score(corpus, queries, query_norms, table);
      const int64_t end = std::min(corpus.n, (part + 1) * length);
      Place places[CHUNK];
      float scores[CHUNK];
      for (int64_t row = part * length; row < end;) {
        int64_t count = 0;
        for (; row < end && count < CHUNK; ++row)
          if (corpus.allowed(query, row)) places[count] = {row, query, count}, ++count;
        for (int64_t at = 0; at < count; at += PAIR_BLOCK) score(places + at, count - at, scores);
        for (int64_t i = 0; i < count; ++i)
          best[part].add({rank_of(scores[i], corpus.metric), ids ? ids[places[i].row] : places[i].row});
      }
    });
    for (int64_t part = 1; part < parts; ++part) best[0].merge(best[part]);
    write_best(best[0].items(), k, corpus.metric, top_scores + query * k, top_ids + query * k);
    interrupt();
  }
}

}  // namespace pyengine
