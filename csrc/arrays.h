// NumPy arrays as the kernels' views of them: what the binding files share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/rows.h"

namespace pyengine {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style>;
template <class T>
using Optional = std::optional<Array<T>>;

inline void check_signals() {
  py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

inline void require(bool condition, const std::string& message) {
  if (!condition) throw py::value_error(message);
}

template <class T, class Allocator>
Array<T> to_array(std::vector<T, Allocator>&& values) {
  using Values = std::vector<T, Allocator>;
  auto* owned = new Values(std::move(values));
  py::capsule owner(owned, [](void* p) { delete static_cast<Values*>(p); });
  return Array<T>(static_cast<py::ssize_t>(owned->size()), owned->data(), owner);
}

// An array to be written in full. The tests' build fills it with NaN or -999, which no answer holds.
template <class T>
Array<T> output(std::vector<py::ssize_t> shape) {
  Array<T> array(std::move(shape));
#ifdef PYENGINE_TESTING
  const T poison = std::is_floating_point_v<T> ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(-999);
  std::fill_n(array.mutable_data(), array.size(), poison);
#endif
  return array;
}

// Stored rows with the arrays that they borrow from.
class RowArrays {
 public:
  RowArrays(py::array data, const std::string& kind, int dim, int planes, Optional<float> step,
            Optional<uint16_t> short_step, Optional<uint16_t> centroid, Optional<float> centroids)
      : data_(std::move(data)), step_(std::move(step)), short_step_(std::move(short_step)),
        centroid_(std::move(centroid)), centroids_(std::move(centroids)), dim_(dim) {
    require(data_.ndim() == 2 && dim >= 1 && (data_.flags() & py::array::c_style),
            "rows must have shape [N, ...], C-contiguous");
    const int64_t padded = (dim + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP;
    if (kind == "float32") set<float>(RowKind::float32, dim);
    else if (kind == "float16") set<uint16_t>(RowKind::float16, dim);
    else if (kind == "bfloat16") set<uint16_t>(RowKind::bfloat16, dim);
    else if (kind == "codes") set<uint8_t>(RowKind::codes, padded);
    else {
      const bool residual = kind == "residual";
      require((residual || kind == "planes") && planes >= 1 && planes <= MAX_PLANES,
              "kind must be float32, float16, bfloat16, codes, planes or residual");
      set<uint8_t>(residual ? RowKind::residual : RowKind::planes, planes * padded / 8);
    }
    rows_.planes = planes;
    const bool stepped = rows_.kind == RowKind::codes || rows_.kind == RowKind::planes;
    const bool residual = rows_.kind == RowKind::residual;
    rows_.step = vector(step_, stepped, "step must have shape [N], for codes and planes only");
    rows_.short_step = vector(short_step_, residual, "short_step must have shape [N], for residuals only");
    rows_.centroid = vector(centroid_, residual, "centroid must have shape [N], for residuals only");
    require(residual == centroids_.has_value() &&
                (!residual || (centroids_->ndim() == 2 && centroids_->shape(1) == dim &&
                               (n() == 0 || centroids_->shape(0) > 0))),
            "centroids must have shape [C, D], for residuals only");
    if (!residual) return;
    rows_.centroids = centroids_->data(), rows_.n_centroids = centroids_->shape(0), rows_.width = dim;
  }

  int64_t n() const { return data_.shape(0); }
  int dim() const { return dim_; }
  const Rows& view() const { return rows_; }

 private:
  template <class T>
  void set(RowKind kind, int64_t width) {
    require(py::isinstance<Array<T>>(data_) && data_.shape(1) == width,
            "rows must have the dtype and the width of their kind");
    rows_.kind = kind;
    rows_.data = static_cast<const uint8_t*>(data_.data());
    rows_.stride = static_cast<size_t>(width) * sizeof(T);
  }

  template <class T>
  const T* vector(const Optional<T>& array, bool wanted, const char* message) const {
    require(wanted == array.has_value() && (!wanted || (array->ndim() == 1 && array->size() == n())), message);
    return wanted ? array->data() : nullptr;
  }

  py::array data_;
  Optional<float> step_;
  Optional<uint16_t> short_step_, centroid_;
  Optional<float> centroids_;
  int dim_;
  Rows rows_;
};

// The plain dense search: search_bindings.cpp.
void bind_search(py::module_& m);
// The functions of late interaction: maxsim_bindings.cpp.
void bind_maxsim(py::module_& m);
// The functions of sparse rows: sparse_bindings.cpp.
void bind_sparse(py::module_& m);
// csrc/cuda_bindings.cpp: the NVIDIA driver.
void bind_cuda(py::module_& m);

}  // namespace pyengine
