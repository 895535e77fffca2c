// Dense scan between two limits: list what may lie from a threshold up to a ceiling, and count what is certainly above. The
// counterpart of kernels/dense_between.py, and like it of one form: 64 queries in two parts, whose bounds leave least undecided.
#include "dense_bits.cuh"
#include "dense_float32.cuh"

namespace pyengine::cuda {
namespace {

struct Between : Scan {
  const float* ceiling;
  int32_t* above;
};

template <int BQ>
struct TileLimits : TileQueries<BQ> {
  float ceiling[BQ];
  int higher[BQ];

  template <class Team>
  DEVICE void load(const Between& scan, int64_t query) {
    TileQueries<BQ>::template load<Team>(scan, query);
    for (int i = Team::rank(); i < BQ; i += Team::size()) {
      ceiling[i] = query + i < scan.n_queries ? scan.ceiling[query + i] : INFINITY;
      higher[i] = 0;
    }
  }

  DEVICE bool exceeds(int i, Bounds found) const { return found.lower > ceiling[i]; }  // not so where it is NaN

  template <class Products, int WORDS>
  DEVICE bool count(const Between& scan, const Products& products, const uint32_t (&over)[WORDS], int64_t row,
                    int64_t query) {
    const bool whole = !scan.mask && row + DOCS <= scan.n_docs;
    uint32_t some = 0;
#pragma unroll
    for (int number = 0; number < Products::COUNT; number += number % 2 ? 7 : 1) {  // the even and the odd of each eight
      const int eight = number / 8 * 8, q = products.query(number);
      uint32_t bits = over[eight / 32] >> eight % 32 & 0x55u << number % 2;
      for (uint32_t left = whole ? 0 : bits; left; left &= left - 1)
        if (!may_have(scan, query + q, row + products.doc((__ffs(left) - 1) / 2))) bits ^= left & -left;
      if (bits) atomicAdd(&higher[q], __popc(bits));
      some |= bits;
    }
    return some != 0;
  }

  template <class Team>
  DEVICE void reserve(const Between& scan, int64_t query) {
    TileQueries<BQ>::template reserve<Team>(scan, query);
    for (int i = Team::rank(); i < BQ; i += Team::size())
      if (higher[i]) atomicAdd(&scan.above[query + i], higher[i]);
  }

  // Where it may be above the ceiling, perhaps it does not count: no threshold rises by it.
  DEVICE void append(const Scan& scan, int64_t query, int i, int64_t row, Bounds found) {
    if (!(found.upper <= ceiling[i])) found.lower = -INFINITY;
    TileQueries<BQ>::append(scan, query, i, row, found);
  }
};

}  // namespace

// Shared memory leaves room for one block or two: registers need not be few.
#define BETWEEN(name, ...)                                                                               \
  KERNEL(name, 256, 1)(OPERAND_PARAMETERS, const float* ceiling, int32_t* above, SCAN_PARAMETERS) {      \
    DYNAMIC_SHARED(shared);                                                                              \
    __VA_ARGS__(Between{SCAN, ceiling, above}, OPERAND, shared);                                         \
  }

BETWEEN(dense_between, scan_tile<TileLimits, INT8, 64, 2, 2>)
BETWEEN(dense_between_float16, scan_tile<TileLimits, FLOAT16, 64, 2, 2>)
BETWEEN(dense_between_bfloat16, scan_tile<TileLimits, BFLOAT16, 64, 2, 2>)
BETWEEN(dense_between_float32, scan_floats<TileLimits, 64, 2>)
BETWEEN(dense_between_bits, scan_bits<TileLimits, 8, 16, 2>)

}  // namespace pyengine::cuda
