// Late interaction's part of pyengine._native.
#include <algorithm>

#include "arrays.h"

#include "cpu/maxsim.h"

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

}  // namespace

void bind_maxsim(py::module_& m) {
  py::class_<TokenArrays>(m, "Tokens")
      .def(py::init<const RowArrays&, Array<int64_t>, Optional<double>, Optional<uint8_t>, int, Optional<float>, Optional<float>>(),
           py::arg("rows"), py::arg("offsets").noconvert(), py::kw_only(), py::arg("norms").noconvert() = py::none(),
           py::arg("codes").noconvert() = py::none(), py::arg("code_planes") = 0,
           py::arg("scale").noconvert() = py::none(), py::arg("residual").noconvert() = py::none());
}

}  // namespace pyengine
