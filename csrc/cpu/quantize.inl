// A row as int8 codes, with its residual.

constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
constexpr int32_t ROUND_BITS = 0x4B400000;

INLINE int32_t largest_bits(const float* row, int n) {
  I most = I{};
  int i = 0;
  for (; i + W <= n; i += W) {
    __builtin_prefetch(row + i + 4 * n);  // rows mostly follow one another
    const I b = abs_bits(load_f(row + i));
    most = b > most ? b : most;
  }
  if (i < n) { I b = abs_bits(load_tail(row + i, n - i)); most = b > most ? b : most; }
  int32_t largest = 0;
  for (int lane = 0; lane < W; ++lane) largest = most[lane] > largest ? most[lane] : largest;
  return largest;
}

static bool quantize_row(const float* row, int n, int padded, uint8_t* codes, RowCode* out) {
  const int32_t bits = largest_bits(row, n);
  if (bits >= 0x7f800000) return false;
  __builtin_memset(codes, 128, padded);
  *out = RowCode{0.0f, 0.0f, 0.0};
  if (bits == 0) return true;

  // Scale by a power of two so that the largest magnitude lies near 1: then nothing overflows or is denormal.
  const int exponent = bits >> 23;
  const int32_t power_bits = (exponent < 253 ? 254 - exponent : 1) << 23;
  float power, largest;
  __builtin_memcpy(&power, &power_bits, 4);
  __builtin_memcpy(&largest, &bits, 4);
  largest *= power;
  const float to_code = 127.0f / largest, step = largest / 127.0f;

  F errors[2] = {}, squares[2] = {};  // two sums each, so that one addition need not wait for the last
  auto quantise = [&](F x, uint8_t* to, int count, int sum) __attribute__((always_inline)) {
    x *= power;
    const F shifted = x * to_code + ROUND;
    const F error = x - (shifted - ROUND) * step;
    errors[sum] = fma(error, error, errors[sum]);
    squares[sum] = fma(x, x, squares[sum]);
    const U bytes = __builtin_convertvector(as_bits(shifted) - ROUND_BITS + 128, U);
    __builtin_memcpy(to, &bytes, count);
  };
  int i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    quantise(load_f(row + i), codes + i, W, 0);
    quantise(load_f(row + i + W), codes + i + W, W, 1);
  }
  for (; i < n; i += W) {
    const int count = n - i < W ? n - i : W;
    quantise(load_tail(row + i, count), codes + i, count, 0);
  }

  // Rounding: of the sums, relative `sums`; of each error, at most 2^-22 of the largest; of scale and norm, 2 `sums`.
  const double sums = (n / 4 + 32) * 0x1p-24;
  const double norm = __builtin_sqrt((double)lane_sum<F, float>(squares[0] + squares[1]));
  const double error = __builtin_sqrt((double)lane_sum<F, float>(errors[0] + errors[1])) * (1 + sums);
  const double residual = (error + __builtin_sqrt((double)n) * 0x1p-22 * largest) / norm * (1 + 2 * sums) + 4 * sums;
  out->scale = (float)(step / norm);
  out->residual = (float)(residual * (1 + 0x1p-22));
  out->norm = norm / power;
  return true;
}
