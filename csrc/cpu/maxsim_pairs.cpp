// A product can be the maximum of its query token only if estimate + bound >= the best estimate - bound (token_block.h
// has the bound): of unit vectors about one or two in a hundred. Only these are made by the specification.
#include "cpu/maxsim_pairs.h"

#include <chrono>
#include <cmath>
#include <limits>
#include <optional>

#include "cpu/dispatch.h"
#include "cpu/row_order.h"
#include "cpu/token_block.h"

namespace pyengine {
namespace {

constexpr double INF = std::numeric_limits<double>::infinity();
constexpr int64_t SORTED = 1 << 18;       // pairs brought into order at a time: 12 MiB
constexpr int64_t PACK_BYTES = 1 << 20;   // of packed queries that stay in the L2 cache
constexpr int BLOCK_FLOATS = 1 << 16;     // estimates, or floats of document tokens, that are held at a time
constexpr int MOST_ROWS = 256;            // multiples of TOKEN_ROWS, as the kernels like it

int rows_for(int width) {
  return std::min(MOST_ROWS, std::max(1, BLOCK_FLOATS / std::max(1, width) / TOKEN_ROWS) * TOKEN_ROWS);
}

// A pair at work: what its maxima are so far. Its arrays begin at `at`.
struct Running {
  const Place* place;
  const PackedQuery* query;
  size_t at;
  double columns = 0;  // the sum of the document tokens' maxima
};

// Scores the pairs of one document together, so that its tokens are read once. One per thread; the calling thread's has
// the interrupt, which a document of many blocks cannot wait for parallel_for to call.
class PairScorer {
 public:
  PairScorer(const TokenPairs& pairs, const PairAnswers& answers, const KernelTable& table, const Interrupt* interrupt)
      : pairs_(pairs), answers_(answers), table_(table), interrupt_(interrupt),
        symmetric_(pairs.reduce == Reduction::symmetric),
        block_(pairs.docs, pairs.normalize, rows_for(pairs.docs.dim), table) {}

  // query_of(place) gives the packed query; the document `next` will be wanted soon.
  template <class QueryOf>
  void operator()(const Place* first, const Place* last, int64_t next, const QueryOf& query_of) {
    const int64_t doc = first->row, begin = pairs_.docs.offsets[doc], end = pairs_.docs.offsets[doc + 1];
    running_.clear();
    int widest = 0;
    size_t total = 0;
    for (const Place* place = first; place < last; ++place) {
      running_.push_back({place, &query_of(*place), total});
      total += running_.back().query->width;
      widest = std::max(widest, running_.back().query->width);
    }
    start(total, begin < end);
    const int rows = std::min(rows_for(widest), rows_for(pairs_.docs.dim));
    estimates_.resize(static_cast<size_t>(rows) * widest);
    window_.resize(estimates_.size());
    row_least_.resize(rows);
    for (int64_t row = begin; row < end; row += rows) {
      const bool more = row + rows < end || next == doc;
      soon_ = more ? row + rows : pairs_.docs.offsets[next], soon_end_ = more ? end : pairs_.docs.offsets[next + 1];
      block_.read(row, static_cast<int>(std::min<int64_t>(rows, end - row)));
      for (Running& pair : running_)
        if (pair.query->count) meet(pair, row - begin);
      if (row + rows < end) check_interrupt();
    }
    for (const Running& pair : running_) finish(pair, end - begin);
  }

 private:
  // A token of zeros has its maximum, 0, at the first document token.
  void start(size_t total, bool any_tokens) {
    least_.assign(total, static_cast<float>(-INF));
    best_.assign(total, -INF);
    winner_.assign(total, -1);
    for (const Running& pair : running_)
      for (int i = 0; any_tokens && i < pair.query->count; ++i)
        if (!(pair.query->norms[i] > 0)) best_[pair.at + i] = 0, winner_[pair.at + i] = 0;
  }

  void check_interrupt() {
    const auto now = std::chrono::steady_clock::now();
    if (interrupt_ && now - last_check_ > std::chrono::milliseconds(50)) (*interrupt_)(), last_check_ = now;
  }

  // The block's tokens, of which the document has `before` others in front, and one query's.
  void meet(Running& pair, int64_t before) {
    const PackedQuery& query = *pair.query;
    const int words = table_.token_words(pairs_.docs.dim), count = block_.count();
    table_.estimate_tokens(block_.words(), words, count, query.panels.data(), query.width / PANEL, words,
                           estimates_.data());
    const TokenWindow window{estimates_.data(), count, query.width, block_.scale(), block_.weight(), query.error.data(),
                             query.sought.data(), query.present.data(), least_.data() + pair.at,
                             symmetric_ ? row_least_.data() : nullptr};
    const size_t listed = table_.window_pairs(window, window_.data());
    column_best_.assign(symmetric_ ? count : 0, -INF);
    column_winner_.assign(symmetric_ ? count : 0, -1);
    for (size_t i = 0; i < listed; i += PAIR_BLOCK)
      multiply(window_.data() + i, static_cast<int>(std::min<size_t>(PAIR_BLOCK, listed - i)), pair, before);
    if (symmetric_) add_columns(pair, before);
  }

  // Listed in ascending order of both tokens: the first to reach a maximum is the one that counts.
  void multiply(const TokenPair* listed, int count, const Running& pair, int64_t before) {
    const float *queries[PAIR_BLOCK], *rows[PAIR_BLOCK], *next[PAIR_BLOCK];
    double products[PAIR_BLOCK];
    for (int i = 0; i < count; ++i) {
      queries[i] = pair.query->rows + static_cast<size_t>(listed[i].query) * pairs_.docs.dim;
      rows[i] = block_.row(listed[i].doc);
      next[i] = soon_ < soon_end_ ? block_.soon(soon_++) : rows[i];
    }
    table_.dot_f64(queries, rows, next, count, pairs_.docs.dim, products);
    for (int i = 0; i < count; ++i) {
      const int q = listed[i].query, d = listed[i].doc;
      double score = products[i];
      if (pairs_.normalize) {
        const double norms = pair.query->norms[q] * block_.norm(d);
        score = norms > 0 ? score / norms : 0.0;
      }
      const size_t at = pair.at + q;
      if (score > best_[at]) best_[at] = score, winner_[at] = static_cast<int32_t>(before + d);
      if (symmetric_ && score > column_best_[d]) column_best_[d] = score, column_winner_[d] = q;
    }
  }

  void add_columns(Running& pair, int64_t before) {
    const float* weights = pairs_.doc_weights;
    if (weights) weights += pairs_.docs.offsets[pair.place->row] + before;
    for (size_t j = 0; j < column_best_.size(); ++j)
      pair.columns += weights ? weights[j] * column_best_[j] : column_best_[j];
    if (!answers_.columns) return;
    std::copy(column_winner_.begin(), column_winner_.end(),
              answers_.columns + answers_.columns_at[pair.place->at] + before);
  }

  void finish(const Running& pair, int64_t doc_tokens) {
    const int count = pair.query->count;
    const int64_t at = pair.place->at;
    const double exactly = score(pair, count, static_cast<double>(doc_tokens));
    answers_.scores[at] = rounded_score(exactly, pairs_.bias, pair.place->row);
    if (answers_.winners) std::copy_n(winner_.data() + pair.at, count, answers_.winners + answers_.winners_at[at]);
    if (answers_.columns && count == 0)
      std::fill_n(answers_.columns + answers_.columns_at[at], doc_tokens, -1);
  }

  double score(const Running& pair, int count, double doc_tokens) const {
    if (count == 0) return 0;
    if (doc_tokens == 0) return -INF;
    const float* weights = pairs_.query_weights;
    if (weights) weights += pairs_.queries.offsets[pair.place->query];
    double sum = 0;
    for (int i = 0; i < count; ++i) sum += weights ? weights[i] * best_[pair.at + i] : best_[pair.at + i];
    if (pairs_.reduce == Reduction::sum) return sum;
    if (pairs_.reduce == Reduction::mean) return sum / count;
    return weights ? (sum + pair.columns) / 2 : (sum / count + pair.columns / doc_tokens) / 2;
  }

  const TokenPairs& pairs_;
  const PairAnswers& answers_;
  const KernelTable& table_;
  const Interrupt* interrupt_;
  std::chrono::steady_clock::time_point last_check_ = std::chrono::steady_clock::now();
  const bool symmetric_;
  TokenBlock block_;
  int64_t soon_ = 0, soon_end_ = 0;  // tokens of the next block, prefetched one with each product
  std::vector<Running> running_;
  AlignedVector<float> estimates_, least_, row_least_;
  std::vector<TokenPair> window_;
  std::vector<double> best_, column_best_;
  std::vector<int32_t> winner_, column_winner_;
};

// The end of the places, from `first` on and in the order of their queries, whose queries are packed together.
size_t group_end(const std::vector<Place>& places, size_t first, const Tokens& queries) {
  int64_t bytes = 0;
  size_t end = first;
  for (int64_t query = -1; end < places.size(); ++end) {
    if (places[end].query == query) continue;
    query = places[end].query;
    bytes += (queries.count(query) + PANEL) * queries.dim * static_cast<int64_t>(sizeof(float));
    if (bytes > PACK_BYTES && end > first) break;
  }
  return end;
}

// Places of a few queries: packs them, and scores document by document.
void score_group(const TokenPairs& pairs, std::vector<Place> places, std::vector<std::optional<PairScorer>>& scorers,
                 const KernelTable& table, int threads, const Interrupt& interrupt) {
  std::vector<int64_t> queries;
  for (const Place& place : places)
    if (queries.empty() || place.query != queries.back()) queries.push_back(place.query);
  std::vector<std::optional<PackedQuery>> packed(queries.size());
  parallel_for(static_cast<int64_t>(queries.size()), threads, interrupt,
               [&](int64_t i, int) { packed[i].emplace(pairs.queries, queries[i], pairs.normalize, table); });
  if (queries.size() > 1) order_by_row(places, pairs.docs.n);
  std::vector<size_t> runs{0};
  for (size_t i = 1; i < places.size(); ++i)
    if (places[i].row != places[i - 1].row) runs.push_back(i);
  runs.push_back(places.size());
  auto query_of = [&](const Place& place) -> const PackedQuery& {
    return *packed[std::lower_bound(queries.begin(), queries.end(), place.query) - queries.begin()];
  };
  parallel_for(static_cast<int64_t>(runs.size()) - 1, threads, interrupt, [&](int64_t run, int thread) {
    const size_t first = runs[run], end = runs[run + 1], next = end < places.size() ? end : first;
    (*scorers[thread])(places.data() + first, places.data() + end, places[next].row, query_of);
  });
}

}  // namespace

void maxsim_pairs(const TokenPairs& pairs, const PairAnswers& answers, int threads, const Interrupt& interrupt) {
  const DefaultFloatEnvironment environment;
  const KernelTable& table = kernels();
  std::vector<std::optional<PairScorer>> scorers(threads);
  for (int i = 0; i < threads; ++i) scorers[i].emplace(pairs, answers, table, i == 0 ? &interrupt : nullptr);
  auto by_query = [](const Place& a, const Place& b) { return a.query < b.query; };
  for (int64_t start = 0; start < pairs.n; start += SORTED) {
    std::vector<Place> places;
    for (int64_t at = start; at < std::min(pairs.n, start + SORTED); ++at)
      places.push_back({pairs.doc_of[at], pairs.query_of[at], at});
    if (!std::is_sorted(places.begin(), places.end(), by_query))
      std::stable_sort(places.begin(), places.end(), by_query);
    for (size_t first = 0, end; first < places.size(); first = end) {
      end = group_end(places, first, pairs.queries);
      score_group(pairs, {places.begin() + first, places.begin() + end}, scorers, table, threads, interrupt);
    }
  }
}

}  // namespace pyengine
