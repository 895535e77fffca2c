// Tiles in software, after the Intel SDM's pseudocode of LDTILECFG, TILELOADD, TILEZERO, TDPBUSD, TDPBF16PS,
// TILESTORED and TILERELEASE.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace pyengine {

struct SoftwareTiles {
  uint8_t rows[8] = {};
  uint16_t row_bytes[8] = {};
  uint8_t data[8][16][64] = {};

  void configure(const void* config) {
    std::memset(this, 0, sizeof *this);
    const uint8_t* bytes = static_cast<const uint8_t*>(config);
    std::memcpy(row_bytes, bytes + 16, sizeof row_bytes);
    std::memcpy(rows, bytes + 48, sizeof rows);
  }
  void load(int tile, const void* base, size_t stride) {
    std::memset(data[tile], 0, sizeof data[tile]);
    for (int r = 0; r < rows[tile]; ++r)
      std::memcpy(data[tile][r], static_cast<const uint8_t*>(base) + r * stride, row_bytes[tile]);
  }
  void store(int tile, void* base, size_t stride) const {
    for (int r = 0; r < rows[tile]; ++r)
      std::memcpy(static_cast<uint8_t*>(base) + r * stride, data[tile][r], row_bytes[tile]);
  }
  void zero(int tile) { std::memset(data[tile], 0, sizeof data[tile]); }
  void multiply(int sums, int unsigned_tile, int signed_tile) {
    for (int m = 0; m < rows[sums]; ++m)
      for (int k = 0; k < row_bytes[unsigned_tile] / 4; ++k)
        for (int n = 0; n < row_bytes[sums] / 4; ++n) {
          int32_t sum;
          std::memcpy(&sum, data[sums][m] + 4 * n, 4);
          for (int i = 0; i < 4; ++i)
            sum += data[unsigned_tile][m][4 * k + i] * static_cast<int8_t>(data[signed_tile][k][4 * n + i]);
          std::memcpy(data[sums][m] + 4 * n, &sum, 4);
        }
  }
  // Denormals are zeros, as inputs and as results.
  static float flush(float x) { return std::fabs(x) < std::numeric_limits<float>::min() ? 0.0f : x; }
  float bfloat16(int tile, int row, int i) const {
    uint32_t bits = 0;
    std::memcpy(reinterpret_cast<uint8_t*>(&bits) + 2, data[tile][row] + 2 * i, 2);
    float value;
    std::memcpy(&value, &bits, 4);
    return flush(value);
  }
  void multiply_bfloat16(int sums, int a, int b) {
    for (int m = 0; m < rows[sums]; ++m)
      for (int n = 0; n < row_bytes[sums] / 4; ++n) {
        float parts[2] = {}, sum;
        for (int k = 0; k < row_bytes[a] / 4; ++k)
          for (int i = 0; i < 2; ++i)
            parts[i] = flush(parts[i] + flush(bfloat16(a, m, 2 * k + i) * bfloat16(b, k, 2 * n + i)));
        std::memcpy(&sum, data[sums][m] + 4 * n, 4);
        sum = flush(sum + flush(parts[0] + parts[1]));
        std::memcpy(data[sums][m] + 4 * n, &sum, 4);
      }
  }
};

inline thread_local SoftwareTiles software_tiles;

}  // namespace pyengine

#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#undef _tile_zero
#define _tile_loadconfig(config) software_tiles.configure(config)
#define _tile_loadd(tile, base, stride) software_tiles.load(tile, base, stride)
#define _tile_stored(tile, base, stride) software_tiles.store(tile, base, stride)
#define _tile_dpbusd(sums, a, b) software_tiles.multiply(sums, a, b)
#define _tile_dpbf16ps(sums, a, b) software_tiles.multiply_bfloat16(sums, a, b)
#define _tile_zero(tile) software_tiles.zero(tile)
#define _tile_release() software_tiles = SoftwareTiles()
