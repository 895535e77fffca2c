// What csrc/cuda/maxsim.cuh computes for one thread, over arrays, for the tests to compare with the specification.
#include "maxsim.cuh"

using namespace pyengine::cuda;

extern "C" {

void weigh(const int32_t* products, const float* weights, float* values, int64_t n) {
  for (int64_t i = 0; i < n; ++i) values[i] = weighed(BIASED + products[i], weights[i], less_of(weights[i]));
}

void spread_rows(int64_t* rows, int64_t stride, int64_t n) {
  for (int64_t i = 0; i < n; ++i) rows[i] = spread_row(i, stride, n);
}

// [rows, depth / 16], for rows of 64 and of 128 bytes.
void pieces(int32_t* at, int64_t rows, int64_t depth) {
  for (int row = 0; row < rows; ++row)
    for (int number = 0; number < depth / 16; ++number)
      *at++ = depth == 64 ? piece_at<64>(row, number) : piece_at<128>(row, number);
}

void outwards(const double* values, float* upper, float* lower, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    upper[i] = no_smaller(values[i]);
    lower[i] = no_larger(values[i]);
  }
}

}  // extern "C"
