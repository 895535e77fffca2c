// Tiles in software, after the Intel SDM's pseudocode of LDTILECFG, TILELOADD, TDPBUSD, TILESTORED and TILERELEASE.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

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
};

inline thread_local SoftwareTiles software_tiles;

}  // namespace pyengine

#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbusd
#define _tile_loadconfig(config) software_tiles.configure(config)
#define _tile_loadd(tile, base, stride) software_tiles.load(tile, base, stride)
#define _tile_stored(tile, base, stride) software_tiles.store(tile, base, stride)
#define _tile_dpbusd(sums, a, b) software_tiles.multiply(sums, a, b)
#define _tile_release() software_tiles = SoftwareTiles()
