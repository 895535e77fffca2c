// What csrc/cuda/filtering.cuh decides for one thread, over arrays, for the tests to compare with NumPy.
#include "filtering.cuh"

#include <utility>

using namespace pyengine::cuda;

extern "C" {

void listed_all(const int32_t* listed, int64_t count, const int32_t* rows, uint8_t* found, int64_t n) {
  for (int64_t i = 0; i < n; ++i) found[i] = listed_in(listed, count, rows[i]);
}

void within_all(const double* least, const double* marks, const int32_t* from, const float* ranks, const int32_t* places,
                uint8_t* found, int64_t n) {
  for (int64_t i = 0; i < n; ++i) found[i] = within({least[i], marks[i], from[i]}, ranks[i], places[i]);
}

// Sorts, and counts how often each place is met in each step: once at most, or threads would race.
int64_t network(int64_t* values, int32_t* met, int64_t n) {
  for (int64_t size = 2; size < 2 * n; size *= 2)
    for (int64_t stride = size / 2; stride > 0; stride /= 2) {
      for (int64_t i = 0; i < n; ++i) met[i] = 0;
      for (int64_t number = 0; meeting(number, size, stride).low < n; ++number) {
        const Meeting pair = meeting(number, size, stride);
        if (pair.low >= pair.high) return 1;
        ++met[pair.low];
        if (pair.high >= n) continue;
        ++met[pair.high];
        if (values[pair.high] < values[pair.low]) std::swap(values[pair.low], values[pair.high]);
      }
      for (int64_t i = 0; i < n; ++i)
        if (met[i] > 1) return 2;
    }
  return 0;
}

}  // extern "C"
