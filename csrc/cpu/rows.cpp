#include "cpu/rows.h"

namespace pyengine {

RowReader::RowReader(const Rows& rows, int dims, const KernelTable& table, int slots)
    : rows_(rows), dims_(dims), depth_((dims + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP), table_(table) {
  if (rows.kind != RowKind::float32) floats_.resize(static_cast<size_t>(dims) * slots);
  if (rows.kind == RowKind::planes) codes_.resize(depth_);
}

const float* RowReader::read(int64_t row, int slot) {
  const uint8_t* stored = rows_.at(row);
  if (rows_.kind == RowKind::float32) return reinterpret_cast<const float*>(stored);
  float* out = floats_.data() + static_cast<size_t>(slot) * dims_;
  const float step = rows_.step ? rows_.step[row] : 0;
  if (rows_.kind == RowKind::planes) {
    table_.unpack_planes(stored, rows_.planes, rows_.plane_stride(), depth_, codes_.data());
    table_.decode_row(RowKind::codes, codes_.data(), step, dims_, out);
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
