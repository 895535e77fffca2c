// Rows coded as bit planes: see RowKind::planes.
#pragma once

#include <cstdint>

namespace pyengine {

// What a row became: its step, and what a bound for the row itself takes (d/|d| ~ scale * odd, off by at most
// residual).
struct PlaneCode {
  float step, scale, residual;
};

// Code n floats with that many planes of `stride` bytes, by a step of small squared error; false where the row is not
// finite. One plane takes the signs and their mean magnitude, which is the best step; more take a few rounds of
// Lloyd's algorithm over the step. The arithmetic is the same on every machine.
bool pack_planes(const float* row, int n, int planes, int64_t stride, uint8_t* out, PlaneCode* code);

}  // namespace pyengine
