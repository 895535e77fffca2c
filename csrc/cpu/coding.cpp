// Each row comes from memory once: its norm, its codes and its copy are made while it is in the nearest cache.
#include "cpu/coding.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/dispatch.h"

namespace pyengine {
namespace {

constexpr int64_t CHUNK = 64;  // rows handed to a thread at a time

}  // namespace

void code_rows(const float* rows, int64_t n, int dim, const CodedRows& out, int threads, const Interrupt& interrupt) {
  const KernelTable& table = kernels();
  const int padded = (dim + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP;
  const auto code_block = [&](int64_t first, int count) {
    const float *vectors[PAIR_BLOCK], *next[PAIR_BLOCK];
    for (int i = 0; i < count; ++i) {
      vectors[i] = rows + (first + i) * dim;
      next[i] = rows + std::min(first + i + PAIR_BLOCK, n - 1) * dim;
    }
    table.dot_f64(vectors, vectors, next, count, dim, out.norms + first);
    for (int64_t row = first; row < first + count; ++row) {
      out.norms[row] = std::sqrt(out.norms[row]);
      RowCode code{};  // a row that is not finite has no code
      table.quantize_row(rows + row * dim, dim, padded, out.codes + row * padded, &code);
      out.scale[row] = code.scale, out.residual[row] = code.residual;
    }
    // Ordinary stores: pages new to the process have just been zeroed, in a cache.
    if (out.rows) std::memcpy(out.rows + first * dim, rows + first * dim, sizeof(float) * count * dim);
  };
  parallel_for((n + CHUNK - 1) / CHUNK, threads, interrupt, [&](int64_t chunk, int) {
    const int64_t end = std::min(n, (chunk + 1) * CHUNK);
    for (int64_t row = chunk * CHUNK; row < end; row += PAIR_BLOCK)
      code_block(row, static_cast<int>(std::min<int64_t>(PAIR_BLOCK, end - row)));
  });
}

}  // namespace pyengine
