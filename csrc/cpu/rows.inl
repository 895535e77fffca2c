// Stored rows of other types than float32: part of kernels.inl, over the same vectors. The ISA file has defined
//   F half_to_float(const uint16_t* p)                                    W floats of float16
//   I bytes_to_int(const uint8_t* p)                                      W bytes (some compilers widen lane by lane)
//   void unpack64(const uint64_t* bits, int planes, uint8_t* codes)       64 codes from a word of each plane

typedef uint16_t H16 __attribute__((vector_size(2 * W)));

INLINE F float16(const uint16_t* p, float) { return half_to_float(p); }

INLINE F bfloat16(const uint16_t* p, float) {
  H16 v;
  __builtin_memcpy(&v, p, sizeof v);
  const I bits = __builtin_convertvector(v, I) << 16;
  F out;
  __builtin_memcpy(&out, &bits, sizeof out);
  return out;
}

INLINE F codes_to_float(const uint8_t* p, float step) {
  return __builtin_convertvector(bytes_to_int(p) - 128, F) * step;
}

// The last floats of a row are decoded from a copy, which does not end where the row does.
template <class T, F (*decode)(const T*, float)>
INLINE void decode_all(const T* row, float step, int n, float* out) {
  int i = 0;
  for (; i + W <= n; i += W) {
    const F v = decode(row + i, step);
    __builtin_memcpy(out + i, &v, sizeof v);
  }
  if (i == n) return;
  T part[W] = {};
  __builtin_memcpy(part, row + i, (n - i) * sizeof(T));
  const F v = decode(part, step);
  __builtin_memcpy(out + i, &v, (n - i) * sizeof(float));
}

static void decode_row(RowKind kind, const void* row, float step, int n, float* out) {
  if (kind == RowKind::float16) return decode_all<uint16_t, float16>(static_cast<const uint16_t*>(row), step, n, out);
  if (kind == RowKind::bfloat16) return decode_all<uint16_t, bfloat16>(static_cast<const uint16_t*>(row), step, n, out);
  decode_all<uint8_t, codes_to_float>(static_cast<const uint8_t*>(row), step, n, out);
}

template <int PLANES>
INLINE void unpack_row(const uint8_t* row, size_t stride, int depth, uint8_t* codes) {
  uint64_t bits[PLANES];
  for (int i = 0; i < depth; i += 64) {
#pragma GCC unroll 4
    for (int p = 0; p < PLANES; ++p) __builtin_memcpy(&bits[p], row + p * stride + i / 8, sizeof bits[p]);
    unpack64(bits, PLANES, codes + i);
  }
}

static void unpack_planes(const uint8_t* row, int planes, size_t stride, int depth, uint8_t* codes) {
  if (planes == 1) return unpack_row<1>(row, stride, depth, codes);
  if (planes == 2) return unpack_row<2>(row, stride, depth, codes);
  if (planes == 3) return unpack_row<3>(row, stride, depth, codes);
  unpack_row<4>(row, stride, depth, codes);
}
