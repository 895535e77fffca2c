// The module pyengine._native: takes NumPy arrays, releases the GIL, calls, and gives arrays back.
#include <cfenv>
#include <chrono>
#include <cstring>
#include <string>

#include "corpus.h"
#include "cpu/bit_planes.h"
#include "cpu/coding.h"
#include "cpu/dense.h"
#include "cpu/dispatch.h"

using namespace pyengine;

namespace {

py::tuple quantize_rows(const Array<float>& rows, int threads) {
  require(rows.ndim() == 2 && rows.shape(1) > 0, "rows must have shape [n, D]");
  const int64_t n = rows.shape(0), padded = (rows.shape(1) + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP;
  const int dim = static_cast<int>(rows.shape(1));
  auto codes = output<uint8_t>({n, padded});
  auto scale = output<float>({n}), residual = output<float>({n});
  uint8_t* code_rows = codes.mutable_data();
  float *scales = scale.mutable_data(), *residuals = residual.mutable_data();
  const float* source = rows.data();
  {
    py::gil_scoped_release release;
    const KernelTable& table = kernels();
    constexpr int64_t CHUNK = 64;
    parallel_for((n + CHUNK - 1) / CHUNK, threads, check_signals, [&](int64_t chunk, int) {
      for (int64_t row = chunk * CHUNK; row < std::min(n, (chunk + 1) * CHUNK); ++row) {
        RowCode code;
        if (!table.quantize_row(source + row * dim, dim, static_cast<int>(padded), code_rows + row * padded, &code))
          throw NonFiniteRow(row);
        scales[row] = code.scale;
        residuals[row] = code.residual;
      }
    });
  }
  return py::make_tuple(codes, scale, residual);
}

py::tuple pack_rows(const Array<float>& rows, int planes, int threads) {
  require(rows.ndim() == 2 && rows.shape(1) > 0 && planes >= 1 && planes <= MAX_PLANES,
          "rows must have shape [n, D], planes be in 1 .. 4");
  const int64_t n = rows.shape(0), stride = (rows.shape(1) + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP / 8;
  const int dim = static_cast<int>(rows.shape(1));
  auto bits = output<uint8_t>({n, planes * stride});
  auto step = output<float>({n}), scale = output<float>({n}), residual = output<float>({n});
  uint8_t* out = bits.mutable_data();
  float *steps = step.mutable_data(), *scales = scale.mutable_data(), *residuals = residual.mutable_data();
  const float* source = rows.data();
  {
    py::gil_scoped_release release;
    constexpr int64_t CHUNK = 64;
    parallel_for((n + CHUNK - 1) / CHUNK, threads, check_signals, [&](int64_t chunk, int) {
      for (int64_t row = chunk * CHUNK; row < std::min(n, (chunk + 1) * CHUNK); ++row) {
        PlaneCode code;
        const bool finite = pack_planes(source + row * dim, dim, planes, stride, out + row * planes * stride, &code);
        if (!finite) throw NonFiniteRow(row);
        steps[row] = code.step, scales[row] = code.scale, residuals[row] = code.residual;
      }
    });
  }
  return py::make_tuple(bits, step, scale, residual);
}

void code_into(const Array<float>& rows, Optional<float> copy, Array<double> norms, Array<uint8_t> codes,
               Array<float> scale, Array<float> residual, int threads) {
  require(rows.ndim() == 2 && rows.shape(1) > 0, "rows must have shape [n, D]");
  const int64_t n = rows.shape(0), padded = (rows.shape(1) + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP;
  const auto fits = [n](const py::array& array, int64_t width) {
    return array.shape(0) == n && (width ? array.ndim() == 2 && array.shape(1) == width : array.ndim() == 1);
  };
  require(fits(norms, 0) && fits(scale, 0) && fits(residual, 0) && fits(codes, padded) &&
          (!copy || fits(*copy, rows.shape(1))),
          "what is written must have shapes [n], and [n, D] (for codes, D padded to 64)");
  const CodedRows out{copy ? copy->mutable_data() : nullptr, norms.mutable_data(), codes.mutable_data(),
                      scale.mutable_data(), residual.mutable_data()};
  const float* source = rows.data();
  py::gil_scoped_release release;
  code_rows(source, n, static_cast<int>(rows.shape(1)), out, threads, check_signals);
}

Array<double> row_norms(const RowArrays& rows, int dims, int threads) {
  require(dims >= 1 && dims <= rows.dim(), "dims must be in 1 .. D");
  auto out = output<double>({rows.n()});
  double* values = out.mutable_data();
  py::gil_scoped_release release;
  norms(rows.view(), rows.n(), dims, values, threads, check_signals);
  return out;
}

Array<float> decode_rows(const RowArrays& rows) {
  auto out = output<float>({rows.n(), rows.dim()});
  float* values = out.mutable_data();
  py::gil_scoped_release release;
  RowReader reader(rows.view(), rows.dim(), kernels());
  for (int64_t row = 0; row < rows.n(); ++row) std::copy_n(reader.read(row), rows.dim(), values + row * rows.dim());
  return out;
}

py::tuple propose_rows(const CorpusArrays& corpus, const Array<float>& query_rows, int64_t k, int tile, int sample,
                       int64_t sample_rank, int64_t width, int query_block, int row_queries, double deviations,
                       int threads, const Optional<double>& floor, const Optional<double>& ceiling,
                       const Optional<int32_t>& listed, const Optional<uint8_t>& query_slices) {
  Queries queries = corpus.queries(query_rows, query_slices);
  require((!floor || floor->size() == queries.n) && (!ceiling || ceiling->size() == queries.n),
          "floor and ceiling must have shape [Q]");
  if (floor) queries.floor = floor->data();
  if (ceiling) queries.ceiling = ceiling->data();
  require(threads >= 1, "num_threads must be positive");
  Corpus scanned = corpus.view();
  if (listed) {
    const auto [least, most] = std::minmax_element(listed->data(), listed->data() + listed->size());
    require(listed->ndim() == 1 && (listed->size() == 0 || (*least >= 0 && *most < scanned.n)), "listed must be rows");
    scanned.listed = listed->data(), scanned.n_listed = listed->size();
  }
  const ScanPlan plan = scan_plan(scanned, k, tile, sample, sample_rank, width, query_block, row_queries, deviations);
  CandidateLists found;
  {
    py::gil_scoped_release release;
    found = propose(scanned, queries, k, plan, threads, check_signals);
  }
  return py::make_tuple(to_array(std::move(found.rows)), to_array(std::move(found.offsets)),
                        to_array(std::move(found.estimates)), to_array(std::move(found.dropped)),
                        to_array(std::move(found.above)));
}

void check_lists(const Array<int64_t>& rows, const Array<int64_t>& offsets, int64_t n_docs) {
  require(rows.ndim() == 1 && offsets.ndim() == 1 && offsets.size() >= 1, "rows and offsets must be vectors");
  const int64_t* o = offsets.data();
  require(o[0] == 0 && o[offsets.size() - 1] == rows.size() && std::is_sorted(o, o + offsets.size()),
          "offsets must rise from 0 to the number of candidates");
  const auto [least, most] = std::minmax_element(rows.data(), rows.data() + rows.size());
  require(rows.size() == 0 || (*least >= 0 && *most < n_docs), "candidate rows must be in 0 .. N-1");
}

Array<float> refine_lists(const CorpusArrays& corpus, const Array<float>& query_rows, const Array<int64_t>& rows,
                          const Array<int64_t>& offsets, int threads, const Optional<uint8_t>& query_slices) {
  const Queries queries = corpus.queries(query_rows, query_slices);
  check_lists(rows, offsets, corpus.view().n);
  require(offsets.size() == queries.n + 1, "offsets must have Q + 1 entries");
  auto scores = output<float>({rows.size()});
  float* out = scores.mutable_data();
  py::gil_scoped_release release;
  refine(corpus.view(), queries, rows.data(), offsets.data(), out, threads, check_signals);
  return scores;
}

py::tuple select_lists(const Array<float>& scores, const Array<int64_t>& rows, const Array<int64_t>& offsets, int64_t k,
                       bool smaller_is_better, const Optional<int64_t>& ids) {
  check_lists(rows, offsets, ids ? ids->size() : std::numeric_limits<int64_t>::max());
  require(scores.ndim() == 1 && scores.size() == rows.size() && k >= 1, "scores must have one entry per candidate");
  const int64_t n = offsets.size() - 1;
  auto top_scores = output<float>({n, k});
  auto top_ids = output<int64_t>({n, k});
  float* score_out = top_scores.mutable_data();
  int64_t* id_out = top_ids.mutable_data();
  {
    py::gil_scoped_release release;
    select(scores.data(), rows.data(), offsets.data(), n, k, smaller_is_better ? Metric::l2 : Metric::dot,
           ids ? ids->data() : nullptr, score_out, id_out);
  }
  return py::make_tuple(top_scores, top_ids);
}

py::tuple exact_rows(const CorpusArrays& corpus, const Array<float>& query_rows, int64_t k,
                     const Optional<int64_t>& ids, int threads, const Optional<uint8_t>& query_slices) {
  const Queries queries = corpus.queries(query_rows, query_slices);
  require(k >= 1 && (!ids || ids->size() == corpus.view().n), "k must be positive, and ids have shape [N]");
  auto top_scores = output<float>({queries.n, k});
  auto top_ids = output<int64_t>({queries.n, k});
  float* score_out = top_scores.mutable_data();
  int64_t* id_out = top_ids.mutable_data();
  {
    py::gil_scoped_release release;
    exact_topk(corpus.view(), queries, k, ids ? ids->data() : nullptr, score_out, id_out, threads, check_signals);
  }
  return py::make_tuple(top_scores, top_ids);
}

// Set the calling thread's floating-point environment to the default; returns what it was.
py::bytes default_float_state() {
  std::fenv_t before;
  std::fegetenv(&before);
  std::fesetenv(FE_DFL_ENV);
  return py::bytes(reinterpret_cast<const char*>(&before), sizeof before);
}

void restore_float_state(const std::string& state) {
  std::fenv_t before;
  require(state.size() == sizeof before, "state must come from default_float_state");
  std::memcpy(&before, state.data(), sizeof before);
  std::fesetenv(&before);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double peak_int8(int threads) {
  py::gil_scoped_release release;
  const KernelTable& table = kernels();
  std::atomic<int64_t> products{0};
  const auto start = std::chrono::steady_clock::now();
  parallel_for(40 * threads, threads, check_signals,
               [&](int64_t, int) { products += table.multiply_in_registers(1 << 18); });
  return 2.0 * static_cast<double>(products) / seconds_since(start);
}

double read_bandwidth(int64_t n_bytes, int threads) {
  py::gil_scoped_release release;
  const KernelTable& table = kernels();
  const std::vector<uint8_t> memory(static_cast<size_t>(n_bytes), 1);
  constexpr int64_t PART = 1 << 20;
  const int64_t parts = n_bytes / PART;
  std::atomic<int32_t> seen{0};
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const auto start = std::chrono::steady_clock::now();
    parallel_for(parts, threads, check_signals,
                 [&](int64_t p, int) { seen += table.read_memory(memory.data() + p * PART, PART); });
    best = std::max(best, static_cast<double>(parts * PART) / seconds_since(start));
  }
  return best;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "The C++ kernels of pyengine. Arrays must be C-contiguous and of the exact dtype.";

  py::register_local_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const NonFiniteRow& error) {
      PyErr_SetObject(PyExc_ArithmeticError, py::int_(error.row).ptr());
    }
  });

  m.def("isas", [] {
    std::vector<std::string> names;
    for (const KernelTable* table : available_kernels()) names.push_back(table->name);
    return names;
  });
  m.def("isa", [] { return std::string(kernels().name); });
  m.def("set_isa", [](const std::string& name) {
    const std::string before = kernels().name;
    use_kernels(name);
    return before;
  }, py::arg("name"));

  py::class_<RowArrays>(m, "Rows")
      .def(py::init<py::array, const std::string&, int, int, Optional<float>, Optional<uint16_t>, Optional<uint16_t>,
                    Optional<float>>(),
           py::arg("data"), py::arg("kind"), py::arg("dim"), py::arg("planes") = 0,
           py::arg("step").noconvert() = py::none(), py::arg("short_step").noconvert() = py::none(),
           py::arg("centroid").noconvert() = py::none(), py::arg("centroids").noconvert() = py::none());

  py::class_<CorpusArrays>(m, "Corpus")
      .def(py::init<const RowArrays&, int, const std::string&, Optional<uint8_t>, int, Optional<float>, Optional<float>,
                    Optional<double>, Optional<double>, double, Optional<uint8_t>, Optional<double>,
                    Optional<uint8_t>>(),
           py::arg("rows"), py::arg("dims"), py::arg("metric"), py::kw_only(),
           py::arg("codes").noconvert() = py::none(), py::arg("code_planes") = 0,
           py::arg("scale").noconvert() = py::none(), py::arg("residual").noconvert() = py::none(),
           py::arg("norms").noconvert() = py::none(), py::arg("prefix_norms").noconvert() = py::none(),
           py::arg("largest_norm") = 0.0, py::arg("mask").noconvert() = py::none(),
           py::arg("bias").noconvert() = py::none(), py::arg("slices").noconvert() = py::none());

  m.def("quantize", &quantize_rows, py::arg("rows").noconvert(), py::arg("num_threads") = 1);
  m.def("code_into", &code_into, py::arg("rows").noconvert(), py::kw_only(), py::arg("copy").noconvert(),
        py::arg("norms").noconvert(), py::arg("codes").noconvert(), py::arg("scale").noconvert(),
        py::arg("residual").noconvert(), py::arg("num_threads") = 1);
  m.def("pack_planes", &pack_rows, py::arg("rows").noconvert(), py::arg("planes"), py::arg("num_threads") = 1);
  m.def("norms", &row_norms, py::arg("rows"), py::arg("dims"), py::arg("num_threads") = 1);
  m.def("decode", &decode_rows, py::arg("rows"));
  m.def("propose", &propose_rows, py::arg("corpus"), py::arg("queries").noconvert(), py::arg("k"), py::kw_only(),
        py::arg("tile"), py::arg("sample"), py::arg("sample_rank"), py::arg("width"), py::arg("query_block"),
        py::arg("row_queries"), py::arg("deviations"), py::arg("num_threads"),
        py::arg("floor").noconvert() = py::none(), py::arg("ceiling").noconvert() = py::none(),
        py::arg("listed").noconvert() = py::none(), py::arg("query_slices").noconvert() = py::none());
  m.def("refine", &refine_lists, py::arg("corpus"), py::arg("queries").noconvert(), py::arg("rows").noconvert(),
        py::arg("offsets").noconvert(), py::arg("num_threads"), py::arg("query_slices").noconvert() = py::none());
  m.def("select", &select_lists, py::arg("scores").noconvert(), py::arg("rows").noconvert(),
        py::arg("offsets").noconvert(), py::arg("k"), py::arg("smaller_is_better"),
        py::arg("ids").noconvert() = py::none());
  m.def("exact_topk", &exact_rows, py::arg("corpus"), py::arg("queries").noconvert(), py::arg("k"),
        py::arg("ids").noconvert(), py::arg("num_threads"), py::arg("query_slices").noconvert() = py::none());
  bind_search(m);
  bind_maxsim(m);
  bind_sparse(m);
  bind_cuda(m);
  m.def("default_float_state", &default_float_state);
  m.def("restore_float_state", &restore_float_state, py::arg("state"));
  m.def("peak_int8", &peak_int8, py::arg("num_threads"));
  m.def("read_bandwidth", &read_bandwidth, py::arg("n_bytes"), py::arg("num_threads"));
}
