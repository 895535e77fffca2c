// Propose: as the dense family does (dense.cpp), with the maxima of token products in the place of products.
#include "cpu/maxsim_scan.h"

#include <algorithm>
#include <cmath>

#include "cpu/dispatch.h"
#include "cpu/doc_tiles.h"
#include "cpu/selection.h"
#include "cpu/term_range.h"
#include "cpu/token_queries.h"

namespace pyengine {
namespace {

constexpr int64_t CENTROID_LANES = 64;  // query tokens whose products with centroids are looked up: more decode once
constexpr double LARGEST_CENTROID = 1e15, SMALLEST_UNIT = 1e-6;  // beyond, such products could over- or underflow
constexpr int64_t MAXIMA_BYTES = 64 << 10;  // that a thread holds, unless the queries have more tokens

// Documents by place: all of them, or those of a list.
struct Considered {
  int64_t n;
  const int32_t* list;

  int64_t operator[](int64_t i) const { return list ? list[i] : i; }
};

// The documents that a mask for all queries allows.
std::vector<int32_t> listed(const TokenSearch& search) {
  std::vector<int32_t> rows;
  if (!search.mask || search.mask_stride) return rows;
  for (int64_t row = 0; row < search.docs.n; ++row)
    if (search.mask[row >> 3] >> (row & 7) & 1) rows.push_back(static_cast<int32_t>(row));
  return rows;
}

// The documents' tokens as the rows of a corpus.
Corpus token_corpus(const TokenSearch& search) {
  const Tokens& docs = search.docs;
  Corpus corpus;
  corpus.n = docs.total();
  corpus.dim = corpus.dims = docs.dim;
  corpus.rows = docs.rows;
  corpus.codes = docs.codes, corpus.code_stride = docs.code_stride, corpus.code_planes = docs.code_planes;
  corpus.scale = docs.scale, corpus.residual = docs.residual, corpus.norms = docs.norms;
  corpus.metric = search.normalize ? Metric::cosine : Metric::dot;
  return corpus;
}

double offset_unit(const TokenSearch& search) {
  double largest = 0;
  if (search.bias)
    for (int64_t i = 0; i < search.docs.n; ++i) largest = std::max(largest, std::fabs(search.bias[i]));
  return largest;
}

// The largest norm of the centroids, where the scan adds their products; else -1.
double largest_centroid(const TokenSearch& search, int64_t lanes, double norm_unit) {
  const Rows& rows = search.docs.rows;
  if (rows.kind != RowKind::residual || search.docs.codes || search.normalize || lanes > CENTROID_LANES) return -1;
  float largest = 0;
  for (int64_t c = 0; c < rows.n_centroids; ++c)
    largest = std::max(largest, kernels().square_f32(rows.centroids + c * rows.width, rows.width));
  const double size = std::sqrt(static_cast<double>(largest)) * (1 + 0x1p-8);
  if (!(norm_unit > SMALLEST_UNIT && norm_unit < LARGEST_CENTROID)) return -1;
  return size < LARGEST_CENTROID * std::min(1.0, norm_unit) ? size : -1;
}

// One block of queries against the whole corpus.
class TokenScan {
 public:
  TokenScan(const TokenSearch& search, const Corpus& tokens, const Considered& considered, int64_t first_query,
            int64_t count, int64_t k, const TokenScanPlan& plan, double norm_unit, double offset_unit, int threads,
            const Interrupt& interrupt)
      : search_(search), tokens_(tokens), considered_(considered), first_query_(first_query), plan_(plan),
        threads_(threads), interrupt_(interrupt), depth_((tokens.dims + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP),
        offset_unit_(offset_unit),
        queries_(search, tokens, first_query, count, depth_, norm_unit, offset_unit, plan.deviations, kernels(),
                 threads, interrupt),
        selection_({k, plan.sample_rank, plan.width}, tokens.dims, queries_.scalings(), queries_.cautions(), threads,
                   kernels()),
        run_docs_(std::clamp<int64_t>(MAXIMA_BYTES / 4 / std::max<int64_t>(1, queries_.lanes()), 1,
                                      std::max<int64_t>(1, plan.tile))) {
    for (int64_t q = 0; q < count; ++q) {
      any_empty_ |= queries_.empty(q);
      if (search.floor) selection_.set_floor(q, search.floor[first_query + q]);
      if (search.ceiling) selection_.set_ceiling(q, search.ceiling[first_query + q]);
    }
    tokens_.largest_centroid = largest_centroid(search, queries_.lanes(), norm_unit);
    if (tokens_.largest_centroid >= 0) added_ = queries_.products(tokens_.rows, norm_unit);
    for (int thread = 0; thread < threads; ++thread) threads_of_.emplace_back(*this, norm_unit);
  }

  void run(CandidateLists& out) {
    if (plan_.sample) {
      scan(plan_.sample, considered_.n / plan_.sample, SAMPLE);
      selection_.settle(SAMPLE, interrupt_);
    }
    scan(considered_.n, 1, CORPUS);
    selection_.settle(CORPUS, interrupt_);
    selection_.write(1, out);
  }

 private:
  // What a thread works with.
  struct Worker {
    Worker(const TokenScan& scan, double norm_unit)
        : tiles(scan.tokens_, scan.plan_.tile, scan.depth_, norm_unit, 0, kernels()), ends(scan.run_docs_),
          weight(scan.run_docs_), residual(scan.run_docs_), maxima(scan.run_docs_ * scan.queries_.lanes()) {}

    DocTiles tiles;
    std::vector<int64_t> docs;     // of a run: documents whose tokens follow one another
    std::vector<int32_t> ends;     // in the tile
    std::vector<float> weight, residual;
    AlignedVector<float> maxima;   // [docs, lanes]
  };

  // Every step-th document considered, `rows` of them.
  void scan(int64_t rows, int64_t step, Extent extent) {
    parallel_for((rows + plan_.share - 1) / plan_.share, threads_, interrupt_, [&](int64_t item, int thread) {
      Worker& worker = threads_of_[thread];
      const Tokens& docs = search_.docs;
      int64_t tokens = 0;
      auto finish = [&] {
        if (!worker.docs.empty()) finish_run(worker, extent, thread);
        worker.docs.clear(), tokens = 0;
      };
      for (int64_t i = item * plan_.share; i < std::min(rows, (item + 1) * plan_.share); ++i) {
        const int64_t doc = considered_[i * step], count = docs.count(doc);
        if (count == 0) {
          if (any_empty_) consider(doc, nullptr, {}, extent, thread);
          continue;
        }
        const bool follows = !worker.docs.empty() && docs.offsets[doc] == docs.offsets[worker.docs.back() + 1];
        if (!follows || tokens + count > plan_.tile || static_cast<int64_t>(worker.docs.size()) == run_docs_) finish();
        worker.docs.push_back(doc), tokens += count;
      }
      finish();
    });
  }

  // Score a run: some documents in one tile, or one in several.
  void finish_run(Worker& worker, Extent extent, int thread) {
    const Tokens& docs = search_.docs;
    const int n = static_cast<int>(worker.docs.size());
    const int64_t first = docs.offsets[worker.docs.front()], last = docs.offsets[worker.docs.back() + 1];
    const int64_t lanes = queries_.lanes();
    std::fill_n(worker.maxima.begin(), n * lanes, -INFINITY);
    std::fill_n(worker.weight.begin(), n, 0.0f), std::fill_n(worker.residual.begin(), n, 0.0f);
    for (int64_t token = first; token < last; token += plan_.tile) {
      const int count = static_cast<int>(std::min<int64_t>(plan_.tile, last - token));
      const DocTile& tile = worker.tiles.make({token, 1, nullptr}, count);
      for (int d = 0, start = 0; d < n; start = worker.ends[d++]) {
        worker.ends[d] = n == 1 ? count : static_cast<int32_t>(docs.offsets[worker.docs[d] + 1] - first);
        const int size = worker.ends[d] - start;
        worker.weight[d] = tile.weight ? std::max(worker.weight[d], TermRange(tile.weight + start, size).largest) : 1;
        worker.residual[d] = std::max(worker.residual[d], TermRange(tile.residual + start, size).largest);
      }
      TokenTile part{tile.codes, tile.stride, count, tile.scale, worker.ends.data(), tile.cold};
      if (!added_.empty()) {
        part.centroid = tokens_.rows.centroid + token, part.added = added_.data();
        part.n_added = static_cast<int>(tokens_.rows.n_centroids);
      }
      queries_.maxima(part, worker.maxima.data());
    }
    for (int d = 0; d < n; ++d)
      consider(worker.docs[d], worker.maxima.data() + d * lanes, {worker.weight[d], worker.residual[d], 0, 0}, extent,
               thread);
  }

  // A document for every query; `maxima` is null where it has no tokens.
  void consider(int64_t doc, const float* maxima, TokenTerms terms, Extent extent, int thread) {
    if (search_.bias && offset_unit_ > 0) {
      terms.offset = search_.bias[doc] / offset_unit_;
      terms.offset_error = relative_error(tokens_.dims) * std::fabs(terms.offset);
    }
    for (int64_t q = 0; q < queries_.count(); ++q) {
      if (!maxima && !queries_.empty(q)) continue;  // -inf, which nothing is below
      const auto bounds = queries_.bounds(q, maxima, terms);
      if (bounds.upper < selection_.reach(q) || !allowed(q, doc)) continue;
      selection_.add({static_cast<int32_t>(doc), 0, bounds}, q, extent, thread);
    }
  }

  bool allowed(int64_t query, int64_t doc) const {
    if (!search_.mask_stride) return true;
    return search_.mask[(first_query_ + query) * search_.mask_stride + (doc >> 3)] >> (doc & 7) & 1;
  }

  const TokenSearch& search_;
  Corpus tokens_;
  const Considered& considered_;
  int64_t first_query_;
  const TokenScanPlan& plan_;
  int threads_;
  const Interrupt& interrupt_;
  int depth_;
  double offset_unit_;
  TokenQueries queries_;
  AlignedVector<float> added_;  // TokenQueries::products
  Selection selection_;
  int64_t run_docs_;  // most documents of a run
  bool any_empty_ = false;
  std::vector<Worker> threads_of_;
};

}  // namespace

CandidateLists propose_tokens(const TokenSearch& search, int64_t k, const TokenScanPlan& plan, int threads,
                              const Interrupt& interrupt) {
  const DefaultFloatEnvironment environment;
  CandidateLists out;
  const Corpus tokens = token_corpus(search);
  const std::vector<int32_t> rows = listed(search);
  const bool all = !search.mask || search.mask_stride;
  const Considered considered{all ? search.docs.n : static_cast<int64_t>(rows.size()), all ? nullptr : rows.data()};
  const double norm_unit = DocTiles::norm_unit(tokens, kernels()), largest_bias = offset_unit(search);
  const int useful = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, considered.n / plan.share)));
  TokenScanPlan bounded = plan;
  bounded.sample = std::min(plan.sample, considered.n);
  for (int64_t first = 0; first < search.queries.n;) {
    int64_t count = 1;
    const int64_t* offsets = search.queries.offsets + first;
    while (first + count < search.queries.n && offsets[count + 1] - offsets[0] <= plan.query_tokens) ++count;
    TokenScan scan(search, tokens, considered, first, count, k, bounded, norm_unit, largest_bias, useful, interrupt);
    scan.run(out);
    first += count;
  }
  return out;
}

}  // namespace pyengine
