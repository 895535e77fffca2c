// What one thread computes: bounds, keys, thresholds, codes and the specification's rounding. The same source for the GPU
// and for the host, where the tests run it. Compiled without contraction (-fmad=false, -ffp-contract=off).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#define BOTH __host__ __device__ inline
#else
#define BOTH inline
#endif

namespace pyengine::cuda {

constexpr int32_t LEAST = INT32_MIN;             // as an ordered key: below that of every number
constexpr int64_t PAD = INT64_MIN;               // the key of a place that no document fills
constexpr double LEVELS = 127;                   // of an int8 code
constexpr double NEAREST = 6755399441055744.0;   // 1.5 * 2^52: adding it leaves the nearest integer
constexpr double FLOAT_MAX = 3.4028234663852886e38;

enum Metric { COSINE, DOT, L2 };
enum Kind { INT8, FLOAT16, BFLOAT16, FLOAT32, BITS };  // what is multiplied: integers are summed exactly, floats in float32

template <Kind>
struct Sum { using type = float; };
template <>
struct Sum<INT8> { using type = int32_t; };
template <>
struct Sum<BITS> { using type = int32_t; };
template <Kind KIND>
using SumOf = typename Sum<KIND>::type;

template <class To, class From>
BOTH To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// float32 as int32 in the same order; -0.0 comes right below +0.0. NaN has no place.
BOTH int32_t ordered(float x) {
  const int32_t bits = bits_of<int32_t>(x);
  return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}

BOTH float unordered(int32_t key) { return bits_of<float>(key ^ ((key >> 31) & 0x7FFFFFFF)); }

// Larger for what comes earlier in the ranking: by score, then by the smaller place.
BOTH int64_t ranking_key(float rank, int32_t place) {
  return static_cast<int64_t>((static_cast<uint64_t>(static_cast<uint32_t>(ordered(rank))) << 32) |
                              static_cast<uint32_t>(0x7FFFFFFF - place));
}

// Signed keys as unsigned ones of the same order, whose digits a radix select counts.
BOTH uint32_t digits_of(int32_t key) { return static_cast<uint32_t>(key) ^ 0x80000000u; }
BOTH uint64_t digits_of(int64_t key) { return static_cast<uint64_t>(key) ^ (uint64_t{1} << 63); }

BOTH bool allowed(const uint8_t* mask, int64_t mask_stride, int64_t query, int64_t row) {
  return (mask[query * mask_stride + (row >> 3)] >> (row & 7)) & 1;
}

// What is known of a document and of a query: pyengine/backends/shared/dense_terms.py derives these.
struct DocTerms { float factor, error, weight, high, low; };
struct QueryTerms { float scale, second, spread, miss, lift; };
struct Bounds { float upper, lower; };

// Of the products of a document with the parts of a query, as integers or in float32: near the product of their units.
template <class Product>
BOTH float weighed(const QueryTerms& query, Product product) { return query.scale * static_cast<float>(product); }

template <class Product>
BOTH float weighed(const QueryTerms& query, Product product, Product other) {
  return fmaf(query.second, static_cast<float>(other), weighed(query, product));
}

BOTH Bounds bounds(const DocTerms& doc, const QueryTerms& query, float sum) {
  const float estimate = doc.factor * sum, radius = fmaf(doc.error, query.spread, doc.weight * query.miss);
  return {fmaf(query.lift, doc.high, estimate + radius), fmaf(query.lift, doc.low, estimate - radius)};
}

// What cannot be bounded must pass.
BOTH bool passes(float upper, float threshold) { return !(upper < threshold); }

BOTH Bounds known(Bounds found) {
  return {found.upper == found.upper ? found.upper : INFINITY, found.lower == found.lower ? found.lower : -INFINITY};
}

// The threshold that the k-th largest lower bound sets: so far below it that what does not reach it comes after k
// documents as a float32 score, too (kernels/selection.py says why).
BOTH float reach(float kth, float centre) {
  return kth - 4.76837158203125e-07f * fabsf(kth + centre) - 3.009265538105056e-36f;  // 2^-21, 2^-118
}

// Values as they are kept.
struct Float16 { uint16_t bits; };
struct BFloat16 { uint16_t bits; };

BOTH float value_of(float x) { return x; }
BOTH float value_of(int8_t x) { return x; }
BOTH float value_of(uint8_t x) { return x; }
BOTH float value_of(BFloat16 x) { return bits_of<float>(static_cast<uint32_t>(x.bits) << 16); }
BOTH float value_of(Float16 x) {  // 2^112 moves the exponent, exactly, and makes denormals normal
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7FFF) << 13;
  float value = bits_of<float>(magnitude) * 5.192296858534828e33f;
  if (magnitude >= 0x0F800000u) value = bits_of<float>(magnitude | 0x7F800000u);  // inf and NaN
  return x.bits & 0x8000 ? -value : value;
}

// The nearest of 16 bits, ties to even, of values that are finite and below 2^15.
BOTH uint16_t nearest_bfloat16(float x) {
  const uint32_t bits = bits_of<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

BOTH uint16_t nearest_float16(float x) {
  const uint32_t bits = bits_of<uint32_t>(x), sign = bits >> 16 & 0x8000, size = bits & 0x7FFFFFFF;
  uint32_t half = (size - (112u << 23) + 0xFFF + (size >> 13 & 1)) >> 13;
  if (size < 113u << 23) half = bits_of<uint32_t>(bits_of<float>(size) + 0.5f) - (126u << 23);  // denormal: of 2^-24
  return static_cast<uint16_t>(sign | half);
}

// The nearest integer of values below 2^50, ties to even.
BOTH double nearest(double x) { return (x + NEAREST) - NEAREST; }

// The code of a value, for a largest magnitude of `scale` * 127; of what is not finite, anything.
BOTH double code_of(double u, double scale) {
  const double code = nearest(u / (scale > 0 ? scale : 1.0));
  return fabs(code) <= LEVELS ? code : 0.0;
}

// An upper bound on the Euclidean norm of which this is the square, far above what its own arithmetic rounds.
BOTH double length_of(double squares) { return sqrt(squares) * (1 + 1e-9) + 1e-12; }

struct QueryScale { double unit, base; };  // a rank score is unit s + base

// The terms of a query of that norm, whose parts have these scales and leave `miss` of its unit vector.
BOTH QueryScale query_terms(int metric, double norm, double scale, double second, double miss, double weight_unit,
                            double offset_unit, QueryTerms& terms) {
  double gain = weight_unit * (metric == COSINE ? 1.0 : metric == DOT ? norm : 2.0 * norm);
  if (!(norm > 0)) gain = 0;
  double unit = gain > offset_unit ? gain : offset_unit;
  if (!(unit > 0)) unit = 1;
  const double alpha = gain / unit, up = 1.00000095367431640625;  // 2^-20: the rounding of these and of their bounds
  terms.scale = static_cast<float>(alpha * scale);
  terms.second = static_cast<float>(alpha * second);
  terms.spread = static_cast<float>(alpha * (1 + miss) * up);
  terms.miss = static_cast<float>(alpha * miss * up);
  terms.lift = static_cast<float>(offset_unit / unit);
  return {unit, metric == L2 ? -norm * norm : 0.0};
}

// float64 to float32, once: finite values outside its range are clamped, and zero is +0.0.
BOTH float rounded(double score) {
  score = score < -FLOAT_MAX ? -FLOAT_MAX : score > FLOAT_MAX ? FLOAT_MAX : score;
  const float single = static_cast<float>(score);
  return single == 0 ? 0.0f : single;
}

// The three sums of a pair by the specification's lanes: <q,d> or the squared differences, <q,q> and <d,d>.
struct Sums { double products, own, squares; };

BOTH void accumulate(Sums& lane, int metric, double x, double y) {
  const double difference = x - y;
  lane.products += metric == L2 ? difference * difference : x * y;
  if (metric == COSINE) {
    lane.own += x * x;
    lane.squares += y * y;
  }
}

BOTH double score_of(const Sums& sums, int metric) {
  if (metric != COSINE) return sums.products;
  const double norms = sqrt(sums.own) * sqrt(sums.squares);
  return norms > 0 ? sums.products / norms : 0.0;
}

}  // namespace pyengine::cuda
