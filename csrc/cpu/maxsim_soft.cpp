#include "cpu/maxsim_soft.h"

#include <cmath>
#include <limits>
#include <optional>

#include "cpu/aligned.h"
#include "cpu/dispatch.h"
#include "cpu/row_order.h"
#include "cpu/token_block.h"

namespace pyengine {
namespace {

constexpr double INF = std::numeric_limits<double>::infinity();
constexpr int LANES = 8;         // rows of doubles are padded to these
constexpr int QUERY_ROWS = 32;   // query tokens whose products with a document are held at a time
constexpr int DOC_ROWS = 8;      // document tokens held as doubles: with the queries, in the L1 cache
constexpr int64_t SORTED = 1 << 18;  // pairs brought into the order of their documents at a time
constexpr int64_t PAIRS = 16;        // handed to a thread at a time

int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// Scores one pair after another. One per thread.
class SoftScorer {
 public:
  // `query_norms` are those of all query tokens, where cosines are taken.
  SoftScorer(const TokenPairs& pairs, const std::vector<double>& query_norms, const KernelTable& table)
      : pairs_(pairs), queries_(pairs.queries), docs_(pairs.docs), table_(table), dim_(pairs.docs.dim),
        width_(static_cast<int>(padded(dim_))), query_norms_(query_norms), reader_(docs_.rows, dim_, table, DOC_ROWS),
        wide_queries_(size_t{QUERY_ROWS} * width_),
        wide_docs_(size_t{DOC_ROWS} * width_) {}

  double operator()(int64_t query, int64_t doc) {
    const int64_t count = queries_.count(query), asked = queries_.offsets[query];
    const int64_t tokens = docs_.count(doc), first = docs_.offsets[doc];
    if (count == 0) return 0;
    if (tokens == 0) return -INF;
    if (pairs_.reduce == Reduction::aligned) return aligned(asked, first, std::min(count, tokens));
    double sum = 0;
    for (int64_t i = 0; i < count; i += QUERY_ROWS) {
      const int some = static_cast<int>(std::min<int64_t>(QUERY_ROWS, count - i));
      multiply(asked + i, some, first, tokens);
      for (int q = 0; q < some; ++q) {
        double* products = products_.data() + q * padded(tokens);
        const double mean = table_.soften(products, padded(tokens), pairs_.temperature);
        if (pairs_.reduce == Reduction::pooled) return pooled(products, first, tokens);
        sum += mean;
      }
    }
    return sum / static_cast<double>(count);
  }

 private:
  const float* query_row(int64_t token) const { return reinterpret_cast<const float*>(queries_.rows.at(token)); }

  double doc_norm(int64_t token, const float* row) const {
    return docs_.norms ? docs_.norms[token] : token_norm(table_, row, dim_);
  }

  void widen(const float* row, double* out) const {
    for (int k = 0; k < dim_; ++k) out[k] = row[k];
  }

  // Document tokens as doubles, with their norms where cosines are asked for.
  const double* read(int64_t first, int count) {
    for (int r = 0; r < count; ++r) {
      const float* row = reader_.read(first + r, r);
      widen(row, wide_docs_.data() + static_cast<size_t>(r) * width_);
      if (pairs_.normalize) doc_norms_[r] = doc_norm(first + r, row);
    }
    return wide_docs_.data();
  }

  // The products, or cosines, of some query tokens from `asked` on with all of a document's: rows padded with -inf.
  void multiply(int64_t asked, int some, int64_t first, int64_t tokens) {
    const int64_t stride = padded(tokens);
    products_.assign(some * stride, -INF);
    for (int q = 0; q < some; ++q) widen(query_row(asked + q), wide_queries_.data() + static_cast<size_t>(q) * width_);
    for (int64_t done = 0; done < tokens; done += DOC_ROWS) {
      const int count = static_cast<int>(std::min<int64_t>(DOC_ROWS, tokens - done));
      double* out = products_.data() + done;
      table_.products_f64(wide_queries_.data(), some, read(first + done, count), count, width_, out, stride);
      for (int q = 0; pairs_.normalize && q < some; ++q)
        for (int r = 0; r < count; ++r) {
          const double norms = query_norms_[asked + q] * doc_norms_[r];
          out[q * stride + r] = norms > 0 ? out[q * stride + r] / norms : 0.0;
        }
    }
  }

  // The cosine of the one query token with the sum of the document's tokens (or their unit vectors), each times its
  // power.
  double pooled(const double* powers, int64_t first, int64_t tokens) {
    pool_.assign(width_, 0.0);
    for (int64_t done = 0; done < tokens; done += DOC_ROWS) {
      const int count = static_cast<int>(std::min<int64_t>(DOC_ROWS, tokens - done));
      const double* rows = tokens > DOC_ROWS ? read(first + done, count) : wide_docs_.data();  // still there
      for (int r = 0; r < count; ++r) {
        double factor = powers[done + r];
        if (pairs_.normalize) factor = doc_norms_[r] > 0 ? factor / doc_norms_[r] : 0.0;
        table_.add_scaled_f64(rows + static_cast<size_t>(r) * width_, factor, width_, pool_.data());
      }
    }
    const double *query = wide_queries_.data(), *pool = pool_.data();
    const double norms = std::sqrt(product(query, query)) * std::sqrt(product(pool, pool));
    return norms > 0 ? product(query, pool) / norms : 0.0;
  }

  // By the specification, of any doubles.
  double product(const double* a, const double* b) const {
    double l[LANES] = {};
    for (int k = 0; k < width_; k += LANES)
      for (int lane = 0; lane < LANES; ++lane) l[lane] += a[k + lane] * b[k + lane];
    return ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
  }

  double aligned(int64_t asked, int64_t first, int64_t count) {
    double sum = 0;
    for (int64_t k = 0; k < count; k += PAIR_BLOCK) {
      const int some = static_cast<int>(std::min<int64_t>(PAIR_BLOCK, count - k));
      const float *queries[PAIR_BLOCK], *rows[PAIR_BLOCK];
      double products[PAIR_BLOCK];
      for (int i = 0; i < some; ++i) queries[i] = query_row(asked + k + i), rows[i] = reader_.read(first + k + i, i);
      table_.dot_f64(queries, rows, rows, some, dim_, products);
      for (int i = 0; i < some; ++i) {
        const double norms = query_norms_[asked + k + i] * doc_norm(first + k + i, rows[i]);
        const double cosine = norms > 0 ? products[i] / norms : 0.0;
        sum += pairs_.query_weights ? pairs_.query_weights[asked + k + i] * cosine : cosine;
      }
    }
    return sum;
  }

  const TokenPairs& pairs_;
  const Tokens &queries_, &docs_;
  const KernelTable& table_;
  const int dim_, width_;
  const std::vector<double>& query_norms_;
  RowReader reader_;
  AlignedVector<double> wide_queries_, wide_docs_, products_, pool_;
  double doc_norms_[DOC_ROWS];
};

}  // namespace

void soft_pairs(const TokenPairs& pairs, float* scores, int threads, const Interrupt& interrupt) {
  const DefaultFloatEnvironment environment;
  const KernelTable& table = kernels();
  std::vector<std::optional<SoftScorer>> scorers(threads);
  std::vector<double> query_norms;
  for (int64_t i = 0; (pairs.normalize || pairs.reduce == Reduction::aligned) && i < pairs.queries.total(); ++i)
    query_norms.push_back(token_norm(table, reinterpret_cast<const float*>(pairs.queries.rows.at(i)), pairs.docs.dim));
  for (auto& scorer : scorers) scorer.emplace(pairs, query_norms, table);
  for (int64_t start = 0; start < pairs.n; start += SORTED) {
    std::vector<Place> places;
    for (int64_t at = start; at < std::min(pairs.n, start + SORTED); ++at)
      places.push_back({pairs.doc_of[at], pairs.query_of[at], at});
    order_by_row(places, pairs.docs.n);
    const int64_t n = static_cast<int64_t>(places.size());
    parallel_for((n + PAIRS - 1) / PAIRS, threads, interrupt, [&](int64_t run, int thread) {
      for (int64_t i = run * PAIRS; i < std::min(n, (run + 1) * PAIRS); ++i) {
        const Place& place = places[i];
        scores[place.at] = rounded_score((*scorers[thread])(place.query, place.row), pairs.bias, place.row);
      }
    });
  }
}

}  // namespace pyengine
