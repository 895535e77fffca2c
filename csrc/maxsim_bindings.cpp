// Late interaction's part of pyengine._native.
#include <algorithm>

#include "arrays.h"

#include "cpu/maxsim.h"
#include "cpu/maxsim_scan.h"

namespace pyengine {
namespace {

// Tokens with the arrays that they borrow from.
class TokenArrays {
 public:
  TokenArrays(const RowArrays& rows, Array<int64_t> offsets, Optional<double> norms, Optional<uint8_t> codes, int code_planes,
              Optional<float> scale, Optional<float> residual)
      : rows_(rows), offsets_(std::move(offsets)), norms_(std::move(norms)), codes_(std::move(codes)),
        scale_(std::move(scale)), residual_(std::move(residual)) {
    require(offsets_.ndim() == 1 && offsets_.size() >= 1, "offsets must have shape [n + 1]");
    const int64_t *first = offsets_.data(), *last = first + offsets_.size();
    require(*first == 0 && last[-1] == rows_.n() && std::is_sorted(first, last), "offsets must rise from 0 to the number of tokens");
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

template <class T>
const T* optional_data(const Optional<T>& array, int64_t size, const char* what) {
  if (!array) return nullptr;
  require(array->ndim() == 1 && array->size() == size, what);
  return array->data();
}

py::tuple propose_maxsim(const TokenArrays& queries, const TokenArrays& docs, int64_t k, bool normalize,
                         const std::string& reduce, const Optional<float>& query_weights, const Optional<uint8_t>& mask,
                         const Optional<double>& bias, const Optional<double>& floor, const Optional<double>& ceiling, int tile,
                         int64_t share, int64_t sample, int64_t sample_rank, int64_t width, int64_t query_tokens,
                         double deviations, int threads) {
  TokenSearch search;
  search.queries = queries.view(), search.docs = docs.view(), search.normalize = normalize;
  const int64_t n_queries = search.queries.n, n_docs = search.docs.n;
  require(search.queries.rows.kind == RowKind::float32 && search.queries.dim == search.docs.dim,
          "queries must be float32, of the documents' dim");
  require(reduce == "sum" || reduce == "mean", "reduce must be 'sum' or 'mean'");
  search.reduce = reduce == "sum" ? Reduction::sum : Reduction::mean;
  search.query_weights = optional_data(query_weights, search.queries.total(), "query_weights must have one entry per query token");
  search.bias = optional_data(bias, n_docs, "bias must have shape [N]");
  search.floor = optional_data(floor, n_queries, "floor must have shape [Q]");
  search.ceiling = optional_data(ceiling, n_queries, "ceiling must have shape [Q]");
  if (mask) {
    require(mask->ndim() == 2 && mask->shape(1) == (n_docs + 7) / 8 && (mask->shape(0) == 1 || mask->shape(0) == n_queries),
            "mask must have shape [1 or Q, ceil(N / 8)]");
    search.mask = mask->data();
    search.mask_stride = mask->shape(0) == 1 ? 0 : mask->shape(1);
  }
  require(k >= 1 && tile >= 1 && share >= 1 && sample >= 0 && (sample == 0 || sample_rank >= 1) && width >= 4 * k &&
              query_tokens >= 1 && threads >= 1 && deviations >= 0,
          "k, tile, share, sample_rank, query_tokens and threads must be positive, width at least 4 k, deviations not negative");
  require(n_docs < INT32_MAX, "at most 2^31 - 2 documents");
  CandidateLists found;
  {
    py::gil_scoped_release release;
    found = propose_tokens(search, k, {tile, share, sample, sample_rank, width, query_tokens, deviations}, threads, check_signals);
  }
  return py::make_tuple(to_array(std::move(found.rows)), to_array(std::move(found.offsets)),
                        to_array(std::move(found.estimates)), to_array(std::move(found.dropped)),
                        to_array(std::move(found.above)));
}

}  // namespace

void bind_maxsim(py::module_& m) {
  py::class_<TokenArrays>(m, "Tokens")
      .def(py::init<const RowArrays&, Array<int64_t>, Optional<double>, Optional<uint8_t>, int, Optional<float>, Optional<float>>(),
           py::arg("rows"), py::arg("offsets").noconvert(), py::kw_only(), py::arg("norms").noconvert() = py::none(),
           py::arg("codes").noconvert() = py::none(), py::arg("code_planes") = 0,
           py::arg("scale").noconvert() = py::none(), py::arg("residual").noconvert() = py::none());

  m.def("maxsim_propose", &propose_maxsim, py::arg("queries"), py::arg("docs"), py::arg("k"), py::kw_only(),
        py::arg("normalize") = false, py::arg("reduce") = "sum", py::arg("query_weights").noconvert() = py::none(),
        py::arg("mask").noconvert() = py::none(), py::arg("bias").noconvert() = py::none(),
        py::arg("floor").noconvert() = py::none(), py::arg("ceiling").noconvert() = py::none(), py::arg("tile"),
        py::arg("share"), py::arg("sample"), py::arg("sample_rank"), py::arg("width"), py::arg("query_tokens"),
        py::arg("deviations"), py::arg("num_threads"));
}

}  // namespace pyengine
