// What compute capability 9.0 adds (PTX ISA 8.0): barriers in shared memory that count bytes, copies of boxes by a tensor
// map, and products of a warpgroup whose operands are read from shared memory. Where no CUDA compiler reads this, the
// tests' emulator provides it.
#pragma once

#include "device.cuh"

namespace pyengine::cuda {

// What cuTensorMapEncodeTiled makes.
struct alignas(64) TensorMap { uint8_t bytes[128]; };

// The descriptor of rows of 128 bytes as a copy leaves them: from `address` on, groups of eight rows 1,024 bytes apart, in
// the 128-byte swizzle (PTX ISA, "Matrix descriptor format"). Each swizzled group begins at a multiple of 1,024.
BOTH uint64_t matrix_at(uint32_t address) {
  return uint64_t{(address & 0x3FFFF) >> 4} | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}

// The same so many bytes further on: 32 within a row, or whole groups. Its upper half stays a constant.
BOTH uint64_t matrix_beyond(uint64_t matrix, uint32_t n_bytes) {
  return (matrix >> 32 << 32) | static_cast<uint32_t>(static_cast<uint32_t>(matrix) + (n_bytes >> 4));
}

}  // namespace pyengine::cuda

#ifdef __CUDACC__

#define TENSOR_MAP const __grid_constant__ TensorMap

namespace pyengine::cuda {

// For so many arrivals in each phase. Barriers are named by their addresses in shared memory.
DEVICE void init_barrier(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes initial barriers known to the copies; others of the block see them after __syncthreads.
DEVICE void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

DEVICE void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and makes the phase wait for so many bytes more.
DEVICE void expect_bytes(uint32_t barrier, int n_bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(n_bytes) : "memory");
}

// Until the phase of that parity is over: the one that runs, or the one before it.
DEVICE void await_phase(uint32_t barrier, uint32_t parity) {
  uint32_t over;
  do {
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(over) : "r"(barrier), "r"(parity) : "memory");
  } while (!over);
}

// A box of the map, from that byte of that row on, on its way to shared memory; `barrier` counts its bytes.
DEVICE void copy_box(uint32_t to, const TensorMap& map, int byte, int row, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
               "[%4];" ::"r"(to), "l"(&map), "r"(byte), "r"(row), "r"(barrier) : "memory");
}

// Of all threads of a warpgroup: how many registers each has from now on, fewer or more than before. To take waits until
// others of the block have given as many; what the block begins with is what the compiler says that the kernel uses.
template <int COUNT>
DEVICE void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT>
DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// Sums are what they are said to be here: the compiler keeps what it makes of them on its side of what follows, the fence
// or what awaits them. Where they begin with other values than zeros.
template <int SUMS>
DEVICE void hold_sums(int32_t (&sums)[SUMS]) {
#pragma unroll
  for (int i = 0; i < SUMS; ++i) asm volatile("" : "+r"(sums[i])::"memory");
}

// Before the first product, and whenever the sums have been read or written since: orders registers.
DEVICE void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int PENDING>
DEVICE void await_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

#define SUMS_4(letter, at) "+" letter(sums[at]), "+" letter(sums[at + 1]), "+" letter(sums[at + 2]), "+" letter(sums[at + 3])
#define SUMS_16(letter, at) \
  SUMS_4(letter, at), SUMS_4(letter, at + 4), SUMS_4(letter, at + 8), SUMS_4(letter, at + 12)
#define SUMS_64(letter, at) \
  SUMS_16(letter, at), SUMS_16(letter, at + 16), SUMS_16(letter, at + 32), SUMS_16(letter, at + 48)
#define NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define NAMES_64                                                                                                    \
  NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, " \
           "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "   \
           "%56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA(count, letter, form, operands)                                                           \
  asm volatile("wgmma.mma_async.sync.aligned." form " {" NAMES_##count "}, " operands ";"              \
               : SUMS_##count(letter, 0) : "l"(a), "l"(b))
#define WGMMA_OF(count, n, operands)                                                                   \
  if constexpr (KIND == INT8) WGMMA(count, "r", "m64n" n "k32.s32.s8.s8", operands);                   \
  else if constexpr (KIND == FLOAT16) WGMMA(count, "f", "m64n" n "k16.f32.f16.f16", operands ", 1, 1, 0, 0"); \
  else WGMMA(count, "f", "m64n" n "k16.f32.bf16.bf16", operands ", 1, 1, 0, 0")

// sums [64 x 2 SUMS] += a [64 x 32 bytes] b [2 SUMS x 32 bytes]^T, by all threads of a warpgroup: they hold what four warps
// one below the other would of m16n8 products. Done once it is awaited.
template <Kind KIND, int SUMS>
DEVICE void multiply_async(SumOf<KIND> (&sums)[SUMS], uint64_t a, uint64_t b) {
  static_assert(SUMS == 16 || SUMS == 64);
  if constexpr (SUMS == 16) {
    WGMMA_OF(16, "32", "%16, %17, 1");
  } else {
    WGMMA_OF(64, "128", "%64, %65, 1");
  }
}

#undef SUMS_4
#undef SUMS_16
#undef SUMS_64
#undef NAMES_16
#undef NAMES_64
#undef WGMMA
#undef WGMMA_OF

}  // namespace pyengine::cuda

#else
#define TENSOR_MAP const TensorMap
#include "emulator_hopper.h"
#endif
