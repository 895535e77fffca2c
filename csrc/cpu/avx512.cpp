// AVX-512 with VNNI: 64 byte products an instruction.
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/kernels.h"
#include "cpu/target.h"

PYENGINE_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,prefer-vector-width=512")
namespace pyengine {
namespace {
#include "cpu/avx512.inl"

#include "cpu/kernels.inl"
}  // namespace

extern const KernelTable AVX512_KERNELS = PYENGINE_KERNEL_TABLE("avx512", 127, 128);
}  // namespace pyengine
PYENGINE_TARGET_END
#endif
