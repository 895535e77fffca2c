// Sparse rows: sums of a window of documents. S is a vector of 2 W int16.
//   S bytes_to_short(const uint8_t* p)
//   S upper_product(S a, S b)    the upper halves of the products
//   uint32_t at_least(S a, S b)  bit i: a[i] >= b[i]

INLINE S weigh(S level, S times) { return upper_product(level << 7, times); }  // less 1

static void add_postings(const uint16_t* docs, const uint8_t* levels, int n, int factor, int zero, int16_t* sums) {
  const S none = {}, times = none + static_cast<int16_t>(factor), origin = none + static_cast<int16_t>(zero);
  alignas(64) int16_t weights[2 * W];
  int i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    const S weight = weigh(bytes_to_short(levels + i) - origin, times) + 1;
    __builtin_memcpy(weights, &weight, sizeof weight);
#pragma GCC unroll 32
    for (int lane = 0; lane < 2 * W; ++lane) sums[docs[i + lane]] += weights[lane];
  }
  for (; i < n; ++i) sums[docs[i]] += static_cast<int16_t>((factor * (levels[i] - zero) >> 9) + 1);
}

static void add_column(const uint8_t* column, int n, int factor, int zero, int16_t* sums) {
  const S none = {}, times = none + static_cast<int16_t>(factor), origin = none + static_cast<int16_t>(zero);
  for (int i = 0; i < n; i += 2 * W) {
    const S level = bytes_to_short(column + i) - origin;
    S sum;
    __builtin_memcpy(&sum, sums + i, sizeof sum);
    sum += weigh(level, times) - (level != none);  // true is -1
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
