// What an instruction set has no instructions for, over the vectors of vectors.inl.

// Over equal16(a, b): bit i set where byte i of 16 is equal.
static inline uint64_t equal64(const uint8_t* a, const uint8_t* b) {
  uint64_t bits = 0;
  for (int i = 0; i < 64; i += 16) bits |= static_cast<uint64_t>(equal16(a + i, b + i)) << i;
  return bits;
}

static inline void sum_lanes(const I* vectors, int32_t* sums) {
  for (int i = 0; i < 4; ++i) sums[i] = (vectors[i][0] + vectors[i][1]) + (vectors[i][2] + vectors[i][3]);
}

// Over dot4: what it adds for codes of 128 is taken away, which is nothing where it takes 128 away itself.
static inline __attribute__((always_inline)) I gated4(I sum, I codes, I query, I slices, I wanted, const bool) {
  typedef int8_t B __attribute__((vector_size(4 * W)));
  const I kept = query & (I)((B)slices == (B)wanted), zero = I{} + static_cast<int32_t>(0x80808080u);
  return dot4(sum, codes, kept) - dot4(I{}, zero, kept);
}

static inline F greater(F a, F b) { return a > b ? a : b; }

static inline float largest_lane(F v) {
  const float even = v[0] > v[2] ? v[0] : v[2], odd = v[1] > v[3] ? v[1] : v[3];
  return even > odd ? even : odd;
}

static inline F half_to_float(const uint16_t* p) {
  typedef uint16_t H16 __attribute__((vector_size(2 * W)));
  H16 half;
  __builtin_memcpy(&half, p, sizeof half);
  const I bits = __builtin_convertvector(half, I), magnitude = bits & 0x7fff, sign = (bits & 0x8000) << 16;
  const I special = magnitude >= 0x7c00;  // inf and NaN: the exponent is all ones in both formats
  const I normal = (magnitude << 13) + (112 << 23) + (special & (112 << 23));
  const F subnormal = __builtin_convertvector(magnitude, F) * 0x1p-24f;
  I small;
  __builtin_memcpy(&small, &subnormal, sizeof small);
  const I out = (magnitude < 0x400 ? small : normal) | sign;
  F value;
  __builtin_memcpy(&value, &out, sizeof value);
  return value;
}

struct SpreadBits {
  uint64_t of[256];  // bit i of the index as byte i
  constexpr SpreadBits() : of() {
    for (uint64_t byte = 0; byte < 256; ++byte)
      for (int bit = 0; bit < 8; ++bit) of[byte] |= (byte >> bit & 1) << 8 * bit;
  }
};
static constexpr SpreadBits SPREAD;

static inline void unpack64(const uint64_t* bits, int planes, uint8_t* codes) {
  const uint64_t least = 0x0101010101010101u * (129u - (1u << planes));
  for (int i = 0; i < 8; ++i) {
    uint64_t eight = least;
    for (int p = 0; p < planes; ++p) eight += SPREAD.of[bits[p] >> 8 * i & 0xff] << (p + 1);
    __builtin_memcpy(codes + 8 * i, &eight, sizeof eight);
  }
}

static inline __attribute__((always_inline)) D floats_to_double(const float* p) {
  H v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, D);
}

static inline __attribute__((always_inline)) I bytes_to_int(const uint8_t* p) {
  U v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, I);
}
