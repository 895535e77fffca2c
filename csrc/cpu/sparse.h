// Sparse rows over a vocabulary: as they are kept, and inverted for scanning.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "cpu/parallel.h"
#include "cpu/rows.h"

namespace pyengine {

enum class WeightKind { float32, float16, codes };

// N rows of terms, rising within each, with their weights: the truth. Pointers are borrowed.
struct TermRows {
  int64_t n = 0;
  int64_t n_terms = 0;
  const int64_t* offsets = nullptr;      // [n + 1]
  const uint16_t* short_terms = nullptr;  // [P], where n_terms is at most 2^16
  const int32_t* terms = nullptr;         // [P], where it is more
  WeightKind kind = WeightKind::float32;
  const void* values = nullptr;  // [P] float, uint16_t (float16's bits) or uint8_t
  const float* low = nullptr;    // [n] of codes: a weight is low + step * code, each operation rounded
  const float* step = nullptr;   // [n]

  // Always below n_terms, whatever a mapped file holds.
  int64_t term(int64_t at) const {
    const int64_t term = short_terms ? short_terms[at] : static_cast<uint32_t>(terms[at]);
    return term < n_terms ? term : n_terms - 1;
  }
};

inline float half_value(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, magnitude = bits & 0x7fff;
  const uint32_t special = magnitude >= 0x7c00 ? 112u << 23 : 0;  // inf and NaN: exponents of ones in both formats
  const uint32_t normal = (magnitude << 13) + (112u << 23) + special;
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
  float value;
  std::memcpy(&value, &normal, sizeof value);
  if (magnitude < 0x400) value = subnormal;
  return sign ? -value : value;
}

// weight(at, row) for the kind of the rows: body is called with a callable of that kind.
template <class Body>
void with_weights(const TermRows& rows, const Body& body) {
  if (rows.kind == WeightKind::float32) {
    body([values = static_cast<const float*>(rows.values)](int64_t at, int64_t) { return values[at]; });
  } else if (rows.kind == WeightKind::float16) {
    body([values = static_cast<const uint16_t*>(rows.values)](int64_t at, int64_t) { return half_value(values[at]); });
  } else {
    body([&, values = static_cast<const uint8_t*>(rows.values)](int64_t at, int64_t row) {
      const float scaled = rows.step[row] * values[at];
      return scaled + rows.low[row];
    });
  }
}

// As the specification rounds scores.
inline float rounded_score(double score) {
  constexpr double LARGEST = std::numeric_limits<float>::max();
  return static_cast<float>(std::min(std::max(score, -LARGEST), LARGEST)) + 0.0f;
}

constexpr int WINDOW = 1 << 14;            // documents whose sums, int16, fit in the L1 cache
constexpr int64_t DENSE_SHARE = 3;  // a term of one document in so many has a column: as large as its list would be
constexpr int64_t LEAST_COLUMN = WINDOW / 16;  // and of so many: however few, a column takes a whole window
constexpr int64_t LONG_LIST = 16;   // postings per window from which a list says where each window begins

constexpr int SIGNED_ZERO = 128;    // the level of no weight, for terms with negative weights

enum class PostingKind : uint8_t { rare, list, column };

// The inverted form of rows first .. first + count - 1: for each of T terms that occur, its documents with quantised
// weights (a term that is there twice has two: its column, and what its largest weights are above that):
// |weight - scale * (level - zero)| <= residual, and level 0 is no weight's where zero is 0.
//
// Documents are counted from `first`, in windows of WINDOW. By how many there are of a term:
//   rare    rare from place on: 256 * document + level
//   list    list_docs (in the window), list_levels; of window w those from lists[place] + starts[place][w] on
//   column  columns[place]: a level for each document, `zero` where it has none
struct Postings {
  int64_t first = 0, count = 0;
  int64_t n_terms = 0;                 // T
  const int32_t* terms = nullptr;      // [T] rising, or equal
  const float* scale = nullptr;        // [T]
  const float* residual = nullptr;     // [T]
  const uint8_t* zero = nullptr;       // [T] 0 or SIGNED_ZERO
  const uint8_t* kinds = nullptr;      // [T] PostingKind
  const int64_t* place = nullptr;      // [T]
  const int32_t* counts = nullptr;     // [T] documents
  const uint64_t* rare = nullptr;
  int64_t n_rare = 0;
  const int64_t* lists = nullptr;      // [L + 1] where lists begin
  const uint32_t* starts = nullptr;    // [L, windows + 1] from there
  int64_t n_lists = 0;
  const uint16_t* list_docs = nullptr;
  const uint8_t* list_levels = nullptr;
  int64_t n_listed = 0;
  const uint8_t* columns = nullptr;    // [C, column_stride]
  int64_t n_columns = 0;

  int64_t windows() const { return (count + WINDOW - 1) / WINDOW; }
  int64_t column_stride() const { return windows() * WINDOW; }

  // The first of the numbers of a term, which follow one another where it has several.
  int64_t find(int32_t term) const { return std::lower_bound(terms, terms + n_terms, term) - terms; }
};

}  // namespace pyengine
