#include "cpu/bit_planes.h"

#include <algorithm>
#include <cmath>
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
  float largest = 0;
  for (int i = 0; i < n; ++i) {
    if (!(std::fabs(row[i]) <= std::numeric_limits<float>::max())) return false;
    largest = std::max(largest, std::fabs(row[i]));
  }
  unit.largest = largest;
  if (largest > 0)
    for (int i = 0; i < n; ++i) unit.values[i] = static_cast<float>(row[i] / unit.largest);
  return true;
}

double total(const float (&lanes)[LANES]) {
  double sum = 0;
  for (float x : lanes) sum += x;
  return sum;
}

// The odd integer that codes x, given 1 / (2 step).
inline float odd_of(float x, float inverse, float top) {
  const float c = (std::min(std::max(x * inverse + 0.5f * top, 0.0f), top) + ROUND) - ROUND;
  return 2 * c - top;
}

// The step that fits the row best when it is coded with this one. Padding is zero, which is coded as 1 or -1: it is
// taken out of the second sum.
float better_step(const UnitRow& unit, int n, float step, float top) {
  float products[LANES] = {}, squares[LANES] = {};
  const float inverse = 0.5f / step;
  for (size_t i = 0; i < unit.values.size(); i += LANES)
    for (int lane = 0; lane < LANES; ++lane) {
      const float x = unit.values[i + lane], odd = odd_of(x, inverse, top);
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
  const float inverse = static_cast<float>(0.5 * unit.largest / code->step);
  double squared = 0;
  for (int i = 0; i < n; ++i) squared += static_cast<double>(row[i]) * row[i];
  const double norm = std::sqrt(squared);
  code->scale = static_cast<float>(code->step / norm);
  double error = 0;
  for (int i = 0; i < n; ++i) {
    const float odd = planes == 1 ? (row[i] >= 0 ? 1.0f : -1.0f) : odd_of(unit.values[i], inverse, top);
    const int c = (static_cast<int>(odd) + (1 << planes) - 1) / 2;
    for (int p = 0; p < planes; ++p) out[p * stride + i / 8] |= static_cast<uint8_t>((c >> p & 1) << i % 8);
    const double left = row[i] / norm - static_cast<double>(code->scale) * odd;
    error += left * left;
  }
  code->residual = static_cast<float>(std::sqrt(error) * (1 + 1e-6) + 1e-9);  // far above the rounding in float64
  return true;
}

}  // namespace pyengine
