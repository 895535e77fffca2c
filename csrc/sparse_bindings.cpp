// The part of pyengine._native that is about sparse rows.
#include <algorithm>
#include <cmath>

#include "arrays.h"

#include "cpu/sparse_build.h"
#include "cpu/sparse_scan.h"

namespace pyengine {
namespace {

template <class T>
const T* of_size(const Optional<T>& array, int64_t n, const char* message) {
  require(!array || (array->ndim() == 1 && array->size() == n), message);
  return array ? array->data() : nullptr;
}

// TermRows with the arrays that they borrow from.
class TermRowArrays {
 public:
  TermRowArrays(Array<int64_t> offsets, py::array terms, py::array values, int64_t n_terms, Optional<float> low,
                Optional<float> step)
      : offsets_(std::move(offsets)), terms_(std::move(terms)), values_(std::move(values)), low_(std::move(low)),
        step_(std::move(step)) {
    require(offsets_.ndim() == 1 && offsets_.size() >= 1, "offsets must have shape [N + 1]");
    require(n_terms >= 1 && n_terms <= INT32_MAX, "n_terms must be in 1 .. 2^31 - 1");
    rows_.n = offsets_.size() - 1, rows_.n_terms = n_terms, rows_.offsets = offsets_.data();
    const int64_t first = rows_.offsets[0], last = rows_.offsets[rows_.n];
    require(first == 0 && last == terms_.size() && last == values_.size() && flat(terms_) && flat(values_),
            "terms and values must have shape [P], P being the last offset");
    if (py::isinstance<Array<uint16_t>>(terms_)) {
      rows_.short_terms = static_cast<const uint16_t*>(terms_.data());
    } else {
      require(py::isinstance<Array<int32_t>>(terms_), "terms must be uint16 or int32");
      rows_.terms = static_cast<const int32_t*>(terms_.data());
    }
    rows_.values = values_.data();
    if (py::isinstance<Array<uint16_t>>(values_)) rows_.kind = WeightKind::float16;
    else if (py::isinstance<Array<uint8_t>>(values_)) rows_.kind = WeightKind::codes;
    else require(py::isinstance<Array<float>>(values_), "values must be float32, uint16 (float16) or uint8");
    require((rows_.kind == WeightKind::codes) == (low_ && step_), "low and step go with codes");
    rows_.low = of_size(low_, rows_.n, "low must have shape [N]");
    rows_.step = of_size(step_, rows_.n, "step must have shape [N]");
  }

  const TermRows& view() const { return rows_; }

 private:
  static bool flat(const py::array& array) { return array.ndim() == 1 && array.flags() & py::array::c_style; }

  Array<int64_t> offsets_;
  py::array terms_, values_;
  Optional<float> low_, step_;
  TermRows rows_;
};

// Postings with the arrays that they borrow from: those of build_postings, by name.
class PostingsArrays {
 public:
  PostingsArrays(int64_t first, int64_t count, py::dict arrays) : arrays_(std::move(arrays)) {
    require(first >= 0 && count >= 1 && count <= INT32_MAX, "first must be 0 or more, count positive");
    Postings& own = postings_;
    own.first = first, own.count = count;
    own.terms = get<int32_t>("terms", own.n_terms);
    own.scale = get<float>("scale", own.n_terms, true);
    own.residual = get<float>("residual", own.n_terms, true);
    own.zero = get<uint8_t>("zero", own.n_terms, true);
    own.kinds = get<uint8_t>("kinds", own.n_terms, true);
    own.place = get<int64_t>("place", own.n_terms, true);
    own.counts = get<int32_t>("counts", own.n_terms, true);
    own.rare = get<uint64_t>("rare", own.n_rare);
    int64_t bounds, starts, columns;
    own.lists = get<int64_t>("lists", bounds);
    own.n_lists = bounds - 1;
    own.starts = get<uint32_t>("starts", starts);
    own.list_docs = get<uint16_t>("list_docs", own.n_listed);
    own.list_levels = get<uint8_t>("list_levels", own.n_listed, true);
    own.columns = get<uint8_t>("columns", columns);
    own.n_columns = columns / own.column_stride();
    require(bounds >= 1 && starts == own.n_lists * (own.windows() + 1) &&
                columns == own.n_columns * own.column_stride(),
            "postings must have a start for each list and window, and a level for each column and document");
    require(places_are_sound(), "postings must lie within their arrays");
    require(scales_are_sound(),
            "postings must have scales above 0 and residuals from 0 on, both finite, and zeros of 0 or 128");
  }

  const Postings& view() const { return postings_; }

 private:
  template <class T>
  const T* get(const char* name, int64_t& size, bool known = false) {
    require(arrays_.contains(name), std::string("postings must have an array ") + name);
    const py::object array = arrays_[name];
    require(py::isinstance<Array<T>>(array), std::string(name) + " must have the dtype of build_postings");
    const Array<T> typed = py::cast<Array<T>>(array);
    require(typed.ndim() == 1 && (!known || typed.size() == size), std::string(name) + " must have one entry each");
    size = typed.size();
    return typed.data();
  }

  // What is read unchecked later. What windows begin with is checked there.
  bool places_are_sound() const {
    const Postings& own = postings_;
    for (int64_t t = 0; t < own.n_terms; ++t) {
      const int64_t limit = own.kinds[t] == 0 ? own.n_rare : own.kinds[t] == 1 ? own.n_lists : own.n_columns;
      if (own.kinds[t] > 2 || own.place[t] < 0 || own.counts[t] < 0) return false;
      if (own.place[t] + (own.kinds[t] ? 1 : 0) > limit) return false;
    }
    const int64_t* const end = own.lists + own.n_lists;
    return own.lists[0] == 0 && std::is_sorted(own.lists, end + 1) && *end == own.n_listed;
  }

  // Of others, sums and bounds of a query would overflow what they are converted to.
  bool scales_are_sound() const {
    const Postings& own = postings_;
    for (int64_t t = 0; t < own.n_terms; ++t) {
      if (!(own.scale[t] > 0 && own.residual[t] >= 0)) return false;
      if (!std::isfinite(own.scale[t]) || !std::isfinite(own.residual[t])) return false;
      if (own.zero[t] != 0 && own.zero[t] != SIGNED_ZERO) return false;
    }
    return true;
  }

  py::dict arrays_;
  Postings postings_;
};

py::dict build(const TermRowArrays& docs, int64_t first, int64_t last, const Optional<int32_t>& terms) {
  const TermRows& rows = docs.view();
  require(0 <= first && first < last && last <= rows.n && last - first <= INT32_MAX,
          "first and last must be a range of the rows");
  PostingArrays made;
  {
    py::gil_scoped_release release;
    made = build_postings(rows, first, last, terms ? terms->data() : nullptr, terms ? terms->size() : 0, check_signals);
  }
  py::dict out;
  out["terms"] = to_array(std::move(made.terms)), out["counts"] = to_array(std::move(made.counts));
  out["scale"] = to_array(std::move(made.scale)), out["residual"] = to_array(std::move(made.residual));
  out["zero"] = to_array(std::move(made.zero)), out["kinds"] = to_array(std::move(made.kinds));
  out["place"] = to_array(std::move(made.place)), out["lists"] = to_array(std::move(made.lists));
  out["starts"] = to_array(std::move(made.starts));
  out["rare"] = to_array(std::move(made.rare));
  out["list_docs"] = to_array(std::move(made.list_docs)), out["list_levels"] = to_array(std::move(made.list_levels));
  out["columns"] = to_array(std::move(made.columns));
  return out;
}

Array<float> refine_rows(const TermRowArrays& queries, const TermRowArrays& docs, const Optional<double>& bias,
                         const Array<int64_t>& rows, const Array<int64_t>& offsets, int threads) {
  const TermRows &asked = queries.view(), &held = docs.view();
  require(asked.kind == WeightKind::float32 && asked.n_terms == held.n_terms,
          "queries must be float32, over the documents' terms");
  require(offsets.ndim() == 1 && offsets.size() == asked.n + 1 && offsets.data()[0] == 0 &&
              std::is_sorted(offsets.data(), offsets.data() + offsets.size()) && offsets.data()[asked.n] == rows.size(),
          "offsets must rise from 0 to the number of rows");
  const auto [least, most] = std::minmax_element(rows.data(), rows.data() + rows.size());
  require(rows.ndim() == 1 && (rows.size() == 0 || (*least >= 0 && *most < held.n)) && threads >= 1,
          "rows must be in 0 .. N-1");
  const double* added = of_size(bias, held.n, "bias must have shape [N]");
  auto scores = output<float>({rows.size()});
  float* out = scores.mutable_data();
  {
    py::gil_scoped_release release;
    refine_sparse(asked, held, added, rows.data(), offsets.data(), out, threads, check_signals);
  }
  return scores;
}

py::tuple propose_rows(const TermRowArrays& queries, const TermRowArrays& docs,
                       const std::vector<const PostingsArrays*>& postings, int64_t k, int64_t width,
                       const Optional<uint8_t>& mask, const Optional<double>& bias, const Optional<double>& floor,
                       bool sure, bool by_row, int threads) {
  SparseSearch search;
  search.sure = sure, search.by_row = by_row;
  search.queries = queries.view(), search.docs = docs.view();
  const int64_t n_queries = search.queries.n, n_docs = search.docs.n;
  require(search.queries.kind == WeightKind::float32 && search.queries.n_terms == search.docs.n_terms,
          "queries must be float32, over the documents' terms");
  int64_t end = 0;
  for (const PostingsArrays* each : postings) {
    const Postings& own = each->view();
    search.postings.push_back(own);
    require(own.first >= end && own.first + own.count <= n_docs, "postings must be of ranges that rise");
    end = own.first + own.count;
  }
  search.bias = of_size(bias, n_docs, "bias must have shape [N]");
  search.floor = of_size(floor, n_queries, "floor must have shape [Q]");
  if (mask) {
    require(mask->ndim() == 2 && mask->shape(1) == (n_docs + 7) / 8 &&
                (mask->shape(0) == 1 || mask->shape(0) == n_queries),
            "mask must have shape [1 or Q, ceil(N / 8)]");
    search.mask = mask->data();
    search.mask_stride = mask->shape(0) == 1 ? 0 : mask->shape(1);
  }
  require(k >= 1 && width >= 1 && threads >= 1, "k, width and num_threads must be positive");
  CandidateLists found;
  {
    py::gil_scoped_release release;
    found = propose_sparse(search, k, width, threads, check_signals);
  }
  return py::make_tuple(to_array(std::move(found.rows)), to_array(std::move(found.offsets)),
                        to_array(std::move(found.estimates)), to_array(std::move(found.dropped)));
}

}  // namespace

void bind_sparse(py::module_& m) {
  py::class_<TermRowArrays>(m, "TermRows")
      .def(py::init<Array<int64_t>, py::array, py::array, int64_t, Optional<float>, Optional<float>>(),
           py::arg("offsets").noconvert(), py::arg("terms"), py::arg("values"), py::arg("n_terms"),
           py::arg("low").noconvert() = py::none(), py::arg("step").noconvert() = py::none());
  py::class_<PostingsArrays>(m, "Postings")
      .def(py::init([](int64_t first, int64_t count, const py::kwargs& arrays) {
             return PostingsArrays(first, count, arrays);
           }),
           py::arg("first"), py::arg("count"));

  m.def("build_postings", &build, py::arg("docs"), py::arg("first"), py::arg("last"),
        py::arg("terms").noconvert() = py::none());
  m.def("sparse_refine", &refine_rows, py::arg("queries"), py::arg("docs"), py::arg("bias").noconvert(),
        py::arg("rows").noconvert(), py::arg("offsets").noconvert(), py::arg("num_threads"));
  m.def("sparse_propose", &propose_rows, py::arg("queries"), py::arg("docs"), py::arg("postings"), py::arg("k"),
        py::arg("width"), py::kw_only(), py::arg("mask").noconvert() = py::none(),
        py::arg("bias").noconvert() = py::none(), py::arg("floor").noconvert() = py::none(), py::arg("sure") = true,
        py::arg("by_row") = false, py::arg("num_threads"));
}

}  // namespace pyengine
