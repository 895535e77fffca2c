// The plain dense search in one call: what Python does between the kernels takes longer than a small search.
#include <optional>
#include <string>

#include "corpus.h"

namespace pyengine {
namespace {

bool plain(const py::array& rows) {
  constexpr int WANTED = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  return py::isinstance<py::array_t<float>>(rows) && rows.ndim() == 2 && (rows.flags() & WANTED) == WANTED;
}

// None where rows are not float32 in rows of one length, not finite, or an answer is not certified.
py::object search_rows(const py::array& query_rows, const py::array& doc_rows, int64_t k, const std::string& metric,
                       const Optional<int64_t>& ids, Optional<double> norms,
                       Optional<uint8_t> codes, Optional<float> scale, Optional<float> residual, double largest_norm,
                       int tile, int sample, int64_t sample_rank, int64_t width, int query_block, int row_queries,
                       double deviations) {
  if (!plain(query_rows) || !plain(doc_rows)) return py::none();
  const auto asked = py::reinterpret_borrow<Array<float>>(query_rows);
  const auto rows = py::reinterpret_borrow<Array<float>>(doc_rows);
  const int64_t n = asked.shape(0), n_docs = rows.shape(0), dim = rows.shape(1);
  if (n == 0 || n_docs == 0 || dim == 0 || asked.shape(1) != dim) return py::none();
  require(k >= 1 && (!ids || ids->size() == n_docs), "k must be positive, and ids have shape [N]");
  const RowArrays kept(rows, "float32", static_cast<int>(dim), 0, {}, {}, {}, {});
  const bool unchecked = !norms;
  const CorpusArrays arrays(kept, static_cast<int>(dim), metric, std::move(codes), 0, std::move(scale),
                            std::move(residual), std::move(norms), {}, largest_norm, {}, {}, {});
  const Queries asked_rows = arrays.queries(asked);
  Corpus corpus = arrays.view();
  corpus.unchecked = unchecked;
  std::optional<ScanPlan> plan;
  if (tile) plan = scan_plan(corpus, k, tile, sample, sample_rank, width, query_block, row_queries, deviations);
  auto scores = output<float>({n, k});
  auto best = output<int64_t>({n, k});
  float* score_out = scores.mutable_data();
  int64_t* id_out = best.mutable_data();
  bool found = false;
  try {
    py::gil_scoped_release release;
    found = search(corpus, asked_rows, k, plan ? &*plan : nullptr, ids ? ids->data() : nullptr, score_out, id_out,
                   check_signals);
  } catch (const NonFiniteRow&) {  // the general search names it
  }
  if (!found) return py::none();
  auto certified = output<bool>({n});
  std::fill_n(certified.mutable_data(), n, true);
  return py::make_tuple(scores, best, certified);
}

}  // namespace

void bind_search(py::module_& m) {
  m.def("search", &search_rows, py::arg("queries").noconvert(), py::arg("docs").noconvert(), py::arg("k"),
        py::arg("metric"), py::arg("ids").noconvert() = py::none(), py::arg("norms").noconvert() = py::none(),
        py::arg("codes").noconvert() = py::none(), py::arg("scale").noconvert() = py::none(),
        py::arg("residual").noconvert() = py::none(), py::kw_only(), py::arg("largest_norm") = 0.0, py::arg("tile") = 0,
        py::arg("sample") = 0, py::arg("sample_rank") = 0, py::arg("width") = 0, py::arg("query_block") = 0,
        py::arg("row_queries") = 0, py::arg("deviations") = 0.0);
}

}  // namespace pyengine
