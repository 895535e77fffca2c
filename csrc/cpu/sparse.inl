// Sparse rows: sums of a window of documents. S is a vector of 2 W int16.
//   S bytes_to_short(const uint8_t* p)
//   S upper_product(S a, S b)    the upper halves of the products
//   uint32_t at_least(S a, S b)  bit i: a[i] >= b[i]

// What levels weigh: what is rounded up is a negative number rounded down, negated.
struct Weights {
  S origin, times, flip;

  INLINE_MEMBER Weights(int factor, int zero) {
    const S none = {};
    const bool down = rounds_down(factor, zero);
    const int16_t per_level = static_cast<int16_t>(down ? factor : -factor), all = static_cast<int16_t>(down ? 0 : -1);
    origin = none + static_cast<int16_t>(zero), times = none + per_level, flip = none + all;
  }

  INLINE_MEMBER S operator()(const uint8_t* levels) const {
    return (upper_product((bytes_to_short(levels) - origin) << (16 - FACTOR_BITS), times) ^ flip) - flip;
  }
};

static void add_postings(const uint16_t* docs, const uint8_t* levels, int n, int factor, int zero, int16_t* sums) {
  const Weights weights(factor, zero);
  alignas(64) int16_t each[2 * W];
  int i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    const S weight = weights(levels + i);
    __builtin_memcpy(each, &weight, sizeof weight);
#pragma GCC unroll 32
    for (int lane = 0; lane < 2 * W; ++lane) sums[docs[i + lane]] += each[lane];
  }
  for (; i < n; ++i) sums[docs[i]] += weight_of(levels[i], factor, zero);
}

// The level `zero` weighs nothing.
static void add_column(const uint8_t* column, int n, int factor, int zero, int16_t* sums) {
  const Weights weights(factor, zero);
  for (int i = 0; i < n; i += 2 * W) {
    S sum;
    __builtin_memcpy(&sum, sums + i, sizeof sum);
    sum += weights(column + i);
    __builtin_memcpy(sums + i, &sum, sizeof sum);
  }
}

static int take_sums(int16_t* sums, int n, int16_t least, int32_t* places, int16_t* values) {
  const S none = {}, lowest = none + least;
  int found = 0;
  for (int i = 0; i < n; i += 2 * W) {
    S sum;
    __builtin_memcpy(&sum, sums + i, sizeof sum);
    for (uint32_t reached = at_least(sum, lowest); reached; reached &= reached - 1) {
      const int place = i + __builtin_ctz(reached);
      places[found] = place, values[found++] = sums[place];
    }
    __builtin_memcpy(sums + i, &none, sizeof none);
  }
  return found;
}

static int count_sums(const int16_t* sums, int n, int16_t least) {
  const S none = {}, lowest = none + least;
  int i = 0, count = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    S sum;
    __builtin_memcpy(&sum, sums + i, sizeof sum);
    count += __builtin_popcount(at_least(sum, lowest));
  }
  for (; i < n; ++i) count += sums[i] >= least;
  return count;
}

static int16_t kth_sum(const int16_t* sums, int n, int k) {
  int low = -0x8000, high = 0x7fff;
  while (low < high) {
    const int middle = low + (high - low + 1) / 2;
    if (count_sums(sums, n, static_cast<int16_t>(middle)) >= k) low = middle;
    else high = middle - 1;
  }
  return static_cast<int16_t>(low);
}
