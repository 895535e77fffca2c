// Late interaction's part of pyengine._native.
#include <algorithm>
#include <map>

#include "arrays.h"

#include "cpu/maxsim_backward.h"
#include "cpu/maxsim_pairs.h"
#include "cpu/maxsim_scan.h"
#include "cpu/maxsim_soft.h"

namespace pyengine {
namespace {

// Tokens with the arrays that they borrow from.
class TokenArrays {
 public:
  TokenArrays(const RowArrays& rows, Array<int64_t> offsets, Optional<double> norms, Optional<uint8_t> codes,
              int code_planes, Optional<float> scale, Optional<float> residual)
      : rows_(rows), offsets_(std::move(offsets)), norms_(std::move(norms)), codes_(std::move(codes)),
        scale_(std::move(scale)), residual_(std::move(residual)) {
    require(offsets_.ndim() == 1 && offsets_.size() >= 1, "offsets must have shape [n + 1]");
    const int64_t *first = offsets_.data(), *last = first + offsets_.size();
    require(*first == 0 && last[-1] == rows_.n() && std::is_sorted(first, last),
            "offsets must rise from 0 to the number of tokens");
    tokens_.n = offsets_.size() - 1;
    tokens_.dim = rows_.dim();
    tokens_.rows = rows_.view();
    tokens_.offsets = first;
    tokens_.norms = vector(norms_, "norms");
    tokens_.scale = vector(scale_, "scale");
    tokens_.residual = vector(residual_, "residual");
    if (!codes_) return;
    const int64_t padded = (tokens_.dim + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP;
    require(code_planes >= 0 && code_planes <= MAX_PLANES && codes_->ndim() == 2 && codes_->shape(0) == rows_.n() &&
                codes_->shape(1) == (code_planes ? code_planes * padded / 8 : padded) && scale_ && residual_ && norms_,
            "codes must have shape [T, D padded to 64], as bytes or bit planes, with scale, residual and norms");
    tokens_.codes = codes_->data();
    tokens_.code_stride = codes_->shape(1);
    tokens_.code_planes = code_planes;
  }

  const Tokens& view() const { return tokens_; }

 private:
  template <class T>
  const T* vector(const Optional<T>& array, const char* name) const {
    if (!array) return nullptr;
    require(array->ndim() == 1 && array->shape(0) == rows_.n(), std::string(name) + " must have shape [T]");
    return array->data();
  }

  RowArrays rows_;
  Array<int64_t> offsets_;
  Optional<double> norms_;
  Optional<uint8_t> codes_;
  Optional<float> scale_, residual_;
  Tokens tokens_;
};

Reduction reduction_of(const std::string& name) {
  const std::map<std::string, Reduction> known{{"sum", Reduction::sum}, {"mean", Reduction::mean},
                                               {"symmetric", Reduction::symmetric}, {"softmax", Reduction::softmax},
                                               {"pooled", Reduction::pooled}, {"aligned", Reduction::aligned}};
  const auto found = known.find(name);
  require(found != known.end(),
          "reduce must be 'sum', 'mean', 'symmetric', 'softmax', 'pooled' or 'aligned'; got '" + name + "'");
  return found->second;
}

template <class T>
const T* vector_of(const Optional<T>& array, int64_t n, const char* message) {
  require(!array || (array->ndim() == 1 && array->size() == n), message);
  return array ? array->data() : nullptr;
}

// Where the tokens of each pair's set begin, when they are laid end to end; the total is appended.
std::vector<int64_t> places_of(const Tokens& tokens, const Array<int64_t>& sets) {
  std::vector<int64_t> places{0};
  places.reserve(sets.size() + 1);
  for (const int64_t *set = sets.data(), *end = set + sets.size(); set < end; ++set)
    places.push_back(places.back() + tokens.count(*set));
  return places;
}

void require_in_range(const Array<int64_t>& sets, int64_t n, const char* message) {
  const auto [least, most] = std::minmax_element(sets.data(), sets.data() + sets.size());
  require(sets.ndim() == 1 && (sets.size() == 0 || (*least >= 0 && *most < n)), message);
}

py::tuple score_pairs(const TokenArrays& query_tokens, const TokenArrays& doc_tokens,
                      const Array<int64_t>& pair_queries, const Array<int64_t>& pair_docs, bool normalize,
                      const std::string& reduce, const Optional<float>& query_weights,
                      const Optional<float>& doc_weights, const Optional<double>& bias, bool argmax,
                      const std::optional<double>& temperature, int threads) {
  const Tokens &queries = query_tokens.view(), &docs = doc_tokens.view();
  const Reduction reduction = reduction_of(reduce);
  const bool symmetric = reduction == Reduction::symmetric;
  require(queries.rows.kind == RowKind::float32 && queries.dim == docs.dim,
          "queries must be float32, with the documents' D");
  require_in_range(pair_queries, queries.n, "pair_queries must be in 0 .. Q-1");
  require_in_range(pair_docs, docs.n, "pair_docs must be in 0 .. N-1");
  require(pair_queries.size() == pair_docs.size() && threads >= 1,
          "pairs must have two equal columns, num_threads be positive");
  require(symmetric ? query_weights.has_value() == doc_weights.has_value()
                    : !doc_weights && (!query_weights || reduction == Reduction::sum ||
                                       reduction == Reduction::aligned),
          "weights go with 'sum' and 'aligned' (the query's) and 'symmetric' (both)");
  require((reduction == Reduction::softmax || reduction == Reduction::pooled) == temperature.has_value() &&
          temperature.value_or(1) > 0,
          "temperature must be above 0 with 'softmax' and 'pooled', and None otherwise");
  require(!argmax || !takes_all(reduction), "argmax goes with maxima");
  const TokenPairs pairs{queries, docs, pair_queries.data(), pair_docs.data(), pair_docs.size(), normalize, reduction,
                         temperature.value_or(0), vector_of(query_weights, queries.total(),
                                                            "query_weights must have shape [Tq]"),
                         vector_of(doc_weights, docs.total(), "doc_weights must have shape [Td]"),
                         vector_of(bias, docs.n, "bias must have shape [N]")};
  auto scores = output<float>({pairs.n});
  Optional<int32_t> winners, columns;
  PairAnswers answers{scores.mutable_data(), nullptr, nullptr, nullptr, nullptr};
  std::vector<int64_t> winners_at, columns_at;
  if (argmax) {
    winners_at = places_of(queries, pair_queries);
    winners = output<int32_t>({winners_at.back()});
    answers.winners = winners->mutable_data(), answers.winners_at = winners_at.data();
  }
  if (argmax && symmetric) {
    columns_at = places_of(docs, pair_docs);
    columns = output<int32_t>({columns_at.back()});
    answers.columns = columns->mutable_data(), answers.columns_at = columns_at.data();
  }
  {
    py::gil_scoped_release release;
    if (takes_all(reduction)) soft_pairs(pairs, answers.scores, threads, check_signals);
    else maxsim_pairs(pairs, answers, threads, check_signals);
  }
  return py::make_tuple(scores, winners, columns);
}

py::tuple backward(const TokenArrays& choosers, const TokenArrays& chosen, const Array<int64_t>& chooser_sets,
                   const Array<int64_t>& chosen_sets, const Array<int32_t>& winners, const Array<float>& factors,
                   const Optional<float>& weights, bool wants_choosers, bool wants_chosen, int threads) {
  const Tokens &from = choosers.view(), &to = chosen.view();
  require_in_range(chooser_sets, from.n, "chooser_sets must be numbers of sets");
  require_in_range(chosen_sets, to.n, "chosen_sets must be numbers of sets");
  require(chooser_sets.size() == factors.size() && chosen_sets.size() == factors.size() && factors.ndim() == 1,
          "chooser_sets, chosen_sets and factors must have shape [P]");
  require(from.rows.kind == RowKind::float32 && to.rows.kind == RowKind::float32 && from.dim == to.dim,
          "choosers and chosen must be float32 of one dimension");
  const std::vector<int64_t> places = places_of(from, chooser_sets);
  require(winners.ndim() == 1 && winners.size() == places.back(),
          "winners must have one entry for each chooser of each pair");
  for (int64_t p = 0; p < factors.size(); ++p)
    for (int64_t at = places[p], count = to.count(chosen_sets.data()[p]); at < places[p + 1]; ++at)
      require(winners.data()[at] >= -1 && winners.data()[at] < count,
              "winners must be tokens of the chosen set, or -1");
  const Choices choices{factors.size(), chooser_sets.data(), chosen_sets.data(), winners.data(), places.data(),
                        factors.data(), vector_of(weights, from.total(),
                                                  "weights must have one entry for each chooser")};
  const Tokens* sides[] = {&from, &to};
  const bool wanted[] = {wants_choosers, wants_chosen};
  Optional<float> gradients[2];
  float* out[2] = {};
  for (int i = 0; i < 2; ++i) {
    if (!wanted[i]) continue;
    gradients[i] = output<float>({sides[i]->total(), sides[i]->dim});
    out[i] = gradients[i]->mutable_data();
  }
  {
    py::gil_scoped_release release;
    for (int i = 0; i < 2; ++i)
      if (out[i]) std::fill_n(out[i], sides[i]->total() * sides[i]->dim, 0.0f);
    maxsim_backward(from, to, choices, out[0], out[1], threads, check_signals);
  }
  return py::make_tuple(gradients[0], gradients[1]);
}

py::tuple propose_maxsim(const TokenArrays& queries, const TokenArrays& docs, int64_t k, bool normalize,
                         const std::string& reduce, const Optional<float>& query_weights, const Optional<uint8_t>& mask,
                         const Optional<double>& bias, const Optional<double>& floor, const Optional<double>& ceiling,
                         int tile, int64_t share, int64_t sample, int64_t sample_rank, int64_t width,
                         int64_t query_tokens, double deviations, int threads) {
  TokenSearch search;
  search.queries = queries.view(), search.docs = docs.view(), search.normalize = normalize;
  const int64_t n_queries = search.queries.n, n_docs = search.docs.n;
  require(search.queries.rows.kind == RowKind::float32 && search.queries.dim == search.docs.dim,
          "queries must be float32, of the documents' dim");
  search.reduce = reduction_of(reduce);
  require(search.reduce == Reduction::sum || search.reduce == Reduction::mean, "reduce must be 'sum' or 'mean'");
  search.query_weights = vector_of(query_weights, search.queries.total(),
                                   "query_weights must have one entry per query token");
  search.bias = vector_of(bias, n_docs, "bias must have shape [N]");
  search.floor = vector_of(floor, n_queries, "floor must have shape [Q]");
  search.ceiling = vector_of(ceiling, n_queries, "ceiling must have shape [Q]");
  if (mask) {
    require(mask->ndim() == 2 && mask->shape(1) == (n_docs + 7) / 8 &&
            (mask->shape(0) == 1 || mask->shape(0) == n_queries),
            "mask must have shape [1 or Q, ceil(N / 8)]");
    search.mask = mask->data();
    search.mask_stride = mask->shape(0) == 1 ? 0 : mask->shape(1);
  }
  require(k >= 1 && tile >= 1 && share >= 1 && sample >= 0 && (sample == 0 || sample_rank >= 1) && width >= 4 * k &&
              query_tokens >= 1 && threads >= 1 && deviations >= 0,
          "k, tile, share, sample_rank, query_tokens and threads must be positive, width at least 4 k, deviations not "
          "negative");
  require(n_docs < INT32_MAX, "at most 2^31 - 2 documents");
  CandidateLists found;
  {
    py::gil_scoped_release release;
    found = propose_tokens(search, k, {tile, share, sample, sample_rank, width, query_tokens, deviations}, threads,
                           check_signals);
  }
  return py::make_tuple(to_array(std::move(found.rows)), to_array(std::move(found.offsets)),
                        to_array(std::move(found.estimates)), to_array(std::move(found.dropped)),
                        to_array(std::move(found.above)));
}

}  // namespace

void bind_maxsim(py::module_& m) {
  py::class_<TokenArrays>(m, "Tokens")
      .def(py::init<const RowArrays&, Array<int64_t>, Optional<double>, Optional<uint8_t>, int, Optional<float>,
           Optional<float>>(), py::arg("rows"), py::arg("offsets").noconvert(), py::kw_only(),
           py::arg("norms").noconvert() = py::none(), py::arg("codes").noconvert() = py::none(),
           py::arg("code_planes") = 0, py::arg("scale").noconvert() = py::none(),
           py::arg("residual").noconvert() = py::none());

  m.def("maxsim_pairs", &score_pairs, py::arg("queries"), py::arg("docs"), py::arg("pair_queries").noconvert(),
        py::arg("pair_docs").noconvert(), py::kw_only(), py::arg("normalize"), py::arg("reduce"),
        py::arg("query_weights").noconvert(), py::arg("doc_weights").noconvert(), py::arg("bias").noconvert(),
        py::arg("argmax"), py::arg("temperature") = py::none(), py::arg("num_threads"));
  m.def("maxsim_backward", &backward, py::arg("choosers"), py::arg("chosen"), py::arg("chooser_sets").noconvert(),
        py::arg("chosen_sets").noconvert(), py::arg("winners").noconvert(), py::arg("factors").noconvert(),
        py::arg("weights").noconvert() = py::none(), py::kw_only(), py::arg("wants_choosers") = true,
        py::arg("wants_chosen") = true, py::arg("num_threads") = 1);
  m.def("maxsim_propose", &propose_maxsim, py::arg("queries"), py::arg("docs"), py::arg("k"), py::kw_only(),
        py::arg("normalize") = false, py::arg("reduce") = "sum", py::arg("query_weights").noconvert() = py::none(),
        py::arg("mask").noconvert() = py::none(), py::arg("bias").noconvert() = py::none(),
        py::arg("floor").noconvert() = py::none(), py::arg("ceiling").noconvert() = py::none(), py::arg("tile"),
        py::arg("share"), py::arg("sample"), py::arg("sample_rank"), py::arg("width"), py::arg("query_tokens"),
        py::arg("deviations"), py::arg("num_threads"));
}

}  // namespace pyengine
