#include "cpu/bit_planes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "cpu/kernels.h"

namespace pyengine {
namespace {

constexpr int LANES = 16;  // sums side by side, which the compiler may put into registers
constexpr int ROUNDS = 4;
constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it and taking it away rounds to an integer
// The best step for normal numbers, in standard deviations, by planes (Max, "Quantizing for minimum distortion", 1960).
constexpr float FIRST_STEP[MAX_PLANES + 1] = {0, 0, 0.498f, 0.293f, 0.168f};

// The row, padded with zeros to a multiple of LANES and scaled to magnitudes of at most 1.
struct UnitRow {
  std::vector<float> values;
  double largest;
};

bool scale_row(const float* row, int n, UnitRow& unit) {
  unit.values.assign((n + LANES - 1) / LANES * LANES, 0.0f);
  uint32_t largest = 0;  // magnitudes in the order of their bits
  for (int i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, row + i, sizeof bits);
    largest = std::max(largest, bits & 0x7fffffff);
  }
  if (largest >= 0x7f800000) return false;
  float magnitude;
  std::memcpy(&magnitude, &largest, sizeof magnitude);
  unit.largest = magnitude;
  const double inverse = largest ? 1 / unit.largest : 0;
  for (int i = 0; i < n; ++i) unit.values[i] = static_cast<float>(row[i] * inverse);
  return true;
}

template <class T>
double total(const T (&lanes)[LANES]) {
  double sum = 0;
  for (T x : lanes) sum += x;
  return sum;
}

// The number in 0 .. top that codes x, given 1 / (2 step).
inline float number_of(float x, float inverse, float top) {
  return (std::min(std::max(x * inverse + 0.5f * top, 0.0f), top) + ROUND) - ROUND;
}

// Bit p of each number into plane p, eight at a time: the product gathers the lowest bits of eight bytes in the top
// one.
void write_bits(const uint8_t (&numbers)[LANES], int count, int planes, int64_t stride, uint8_t* out) {
  for (int i = 0; 8 * i < count; ++i) {
    uint64_t eight;
    std::memcpy(&eight, numbers + 8 * i, sizeof eight);
    if (count - 8 * i < 8) eight &= (uint64_t{1} << 8 * (count - 8 * i)) - 1;
    for (int p = 0; p < planes; ++p)
      out[p * stride + i] = static_cast<uint8_t>((eight >> p & 0x0101010101010101) * 0x0102040810204080 >> 56);
  }
}

// The step that fits the row best when it is coded with this one. Padding is zero, which is coded as 1 or -1: it is
// taken out of the second sum.
float better_step(const UnitRow& unit, int n, float step, float top) {
  float products[LANES] = {}, squares[LANES] = {};
  const float inverse = 0.5f / step;
  for (size_t i = 0; i < unit.values.size(); i += LANES)
    for (int lane = 0; lane < LANES; ++lane) {
      const float x = unit.values[i + lane], odd = 2 * number_of(x, inverse, top) - top;
      products[lane] += x * odd;
      squares[lane] += odd * odd;
    }
  return static_cast<float>(total(products) / (total(squares) - static_cast<double>(unit.values.size() - n)));
}

float best_step(const UnitRow& unit, int n, int planes) {
  float sums[LANES] = {}, squares[LANES] = {};
  for (size_t i = 0; i < unit.values.size(); i += LANES)
    for (int lane = 0; lane < LANES; ++lane) {
      sums[lane] += std::fabs(unit.values[i + lane]);
      squares[lane] += unit.values[i + lane] * unit.values[i + lane];
    }
  if (planes == 1) return static_cast<float>(total(sums) / n);
  const float top = static_cast<float>((1 << planes) - 1);
  float step = FIRST_STEP[planes] * static_cast<float>(std::sqrt(total(squares) / n));
  for (int round = 0; round < ROUNDS; ++round) step = better_step(unit, n, step, top);
  return step;
}

// As a float32 that is above zero and does not overflow when it is multiplied by the largest code.
float stored_step(double step, float top) {
  const float most = std::numeric_limits<float>::max(), limit = std::nextafter(most / top, 0.0f);
  return std::min(std::max(static_cast<float>(step), std::numeric_limits<float>::denorm_min()), limit);
}

}  // namespace

bool pack_planes(const float* row, int n, int planes, int64_t stride, uint8_t* out, PlaneCode* code) {
  thread_local UnitRow unit;
  std::fill_n(out, planes * stride, 0);
  *code = {};
  if (!scale_row(row, n, unit)) return false;
  if (unit.largest == 0) return true;
  const float top = static_cast<float>((1 << planes) - 1);
  code->step = stored_step(best_step(unit, n, planes) * unit.largest, top);
  const double step = code->step / unit.largest;
  const float inverse = static_cast<float>(0.5 / step);
  double squares[LANES] = {}, errors[LANES] = {};
  for (size_t i = 0; i < unit.values.size(); i += LANES) {
    uint8_t numbers[LANES];
    for (int lane = 0; lane < LANES; ++lane) {
      const float x = unit.values[i + lane], c = planes == 1 ? (x >= 0 ? 1.0f : 0.0f) : number_of(x, inverse, top);
      const double inside = static_cast<int>(i) + lane < n, left = inside * (x - step * (2 * c - top));
      numbers[lane] = static_cast<uint8_t>(c);
      squares[lane] += static_cast<double>(x) * x;
      errors[lane] += left * left;
    }
    write_bits(numbers, std::min(LANES, n - static_cast<int>(i)), planes, stride, out + i / 8);
  }
  // The unit row is off by 2^-24 of each value, its sums in float64 by far less; the scale is rounded once.
  const double norm = std::sqrt(total(squares));
  code->scale = static_cast<float>(step / norm);
  code->residual = static_cast<float>((std::sqrt(total(errors)) / norm + 0x1p-21) * (1 + 0x1p-22));
  return true;
}

}  // namespace pyengine
