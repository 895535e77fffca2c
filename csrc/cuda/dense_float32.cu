// Dense top-k by float32 products without tensor cores, of documents as they are: where int8 codes are too loose for them, or
// have no room. pyengine/kernels/dense_forms.py says when. Tiles, steps and the epilogue are those of dense_topk.cu.
#include "dense_float32.cuh"

namespace pyengine::cuda {

#define FLOATS(name, threads, ...)                                        \
  KERNEL(name, threads, 1)(OPERAND_PARAMETERS, SCAN_PARAMETERS) {         \
    DYNAMIC_SHARED(shared);                                               \
    scan_floats<TileQueries, __VA_ARGS__>(SCAN, OPERAND, shared);         \
  }

FLOATS(dense_16_float32, 128, 16, 1)
FLOATS(dense_64_float32, 256, 64, 2)
FLOATS(dense_128_float32, 256, 128, 2)

}  // namespace pyengine::cuda
