// Stored rows of other types than float32: part of kernels.inl, over the same vectors. The ISA file has defined
//   F half_to_float(const uint16_t* p)                                    W floats of float16
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
  U v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_convertvector(__builtin_convertvector(v, I) - 128, F) * step;
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

static void unpack_planes(const uint8_t* row, int planes, size_t stride, int depth, uint8_t* codes) {
  uint64_t bits[MAX_PLANES];
  for (int i = 0; i < depth; i += 64) {
    for (int p = 0; p < planes; ++p) __builtin_memcpy(&bits[p], row + p * stride + i / 8, sizeof bits[p]);
    unpack64(bits, planes, codes + i);
  }
}
