#include "cpu/rows.h"

#include <cstring>

namespace pyengine {

float Rows::step_of(int64_t row) const {
  if (!short_step) return step ? step[row] : 0;
  const uint32_t bits = static_cast<uint32_t>(short_step[row]) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

RowReader::RowReader(const Rows& rows, int dims, const KernelTable& table, int slots)
    : rows_(rows), dims_(dims), depth_((dims + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP), table_(table) {
  if (rows.kind != RowKind::float32) floats_.resize(static_cast<size_t>(dims) * slots);
  if (rows.packed()) codes_.resize(depth_);
}

const float* RowReader::read(int64_t row, int slot) {
  const uint8_t* stored = rows_.at(row);
  if (rows_.kind == RowKind::float32) return reinterpret_cast<const float*>(stored);
  float* out = floats_.data() + static_cast<size_t>(slot) * dims_;
  const float step = rows_.step_of(row);
  if (rows_.packed()) {
    table_.unpack_planes(stored, rows_.planes, rows_.plane_stride(), depth_, codes_.data());
    table_.decode_row(RowKind::codes, codes_.data(), step, dims_, out);
    if (rows_.kind == RowKind::residual) table_.add_scaled(rows_.centroid_of(row), 1.0f, dims_, out);
  } else {
    table_.decode_row(rows_.kind, stored, step, dims_, out);
  }
  return out;
}

const float* RowReader::soon(int64_t row) const {
  const uint8_t* stored = rows_.at(row);
  if (rows_.kind == RowKind::float32) return reinterpret_cast<const float*>(stored);
  for (size_t i = 0; i < rows_.stride; i += 64) __builtin_prefetch(stored + i);
  return floats_.data();
}

}  // namespace pyengine
