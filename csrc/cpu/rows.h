// Stored rows of any kind, and reading them as floats.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/kernels.h"

namespace pyengine {

// Borrowed. Rows of bit planes are read as codes first: all these have a step per row.
struct Rows {
  RowKind kind = RowKind::float32;
  const uint8_t* data = nullptr;
  size_t stride = 0;            // bytes from row to row
  const float* step = nullptr;  // [n], for codes and planes
  int planes = 0;
  // For residuals: [n] the step as a bfloat16, [n] the number of the centroid, [n_centroids, width].
  const uint16_t* short_step = nullptr;
  const uint16_t* centroid = nullptr;
  const float* centroids = nullptr;
  int64_t n_centroids = 0;
  int width = 0;

  const uint8_t* at(int64_t row) const { return data + row * stride; }
  size_t plane_stride() const { return stride / planes; }
  bool packed() const { return kind == RowKind::planes || kind == RowKind::residual; }
  float step_of(int64_t row) const;
  // Of a mapped file, whose numbers may have been altered: the last centroid stands for those that are not there.
  const float* centroid_of(int64_t row) const {
    return centroids + std::min<int64_t>(centroid[row], n_centroids - 1) * width;
  }
};

// Reads the first `dims` floats of rows: in place, or decoded into one of its `slots`. One per thread.
class RowReader {
 public:
  RowReader(const Rows& rows, int dims, const KernelTable& table, int slots = 1);

  const float* read(int64_t row, int slot = 0);
  // For a row that will be wanted soon: an address to prefetch its floats from. Those to be decoded are prefetched
  // here.
  const float* soon(int64_t row) const;

 private:
  const Rows& rows_;
  int dims_, depth_;
  const KernelTable& table_;
  std::vector<float> floats_;
  std::vector<uint8_t> codes_;
};

}  // namespace pyengine
