// What the threads of a block do together. Where no CUDA compiler reads this, the tests' emulator provides it.
#pragma once

#include "common.cuh"

#ifdef __CUDACC__

#define DEVICE __device__ __forceinline__
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) uint8_t name[]
// After the name: how many threads a block has, and how many blocks a multiprocessor must have room for, if that matters.
#define KERNEL(name, ...) extern "C" __global__ void __launch_bounds__(__VA_ARGS__) name

namespace pyengine::cuda {

// 16 bytes on their way to shared memory; zeros where not `there`. `from` must be an address all the same.
DEVICE void copy_async(uint32_t to, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
}

DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING>
DEVICE void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

DEVICE uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// Four matrices of 8 x 16 bytes: lane i names row i % 8 of matrix i / 8, and gets 4 bytes of each.
DEVICE void load_matrices(uint32_t (&to)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(row) : "memory");
}

// sums [16 x 8] += a [16 x 32 bytes] b [8 x 32 bytes]^T, of int8, of 16 bits in float32, or of bits, whose product is
// how many both have. Where tensor cores have no bits (sm_100), the compiler takes them for bytes.
template <Kind KIND = INT8>
DEVICE void multiply(SumOf<KIND> (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#define MMA(form, letter)                                                                                         \
  asm volatile("mma.sync.aligned." form " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"        \
               : "+" letter(sums[0]), "+" letter(sums[1]), "+" letter(sums[2]), "+" letter(sums[3])               \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
  if constexpr (KIND == INT8) MMA("m16n8k32.row.col.s32.s8.s8.s32", "r");
  else if constexpr (KIND == BITS) MMA("m16n8k256.row.col.s32.b1.b1.s32.and.popc", "r");
  else if constexpr (KIND == FLOAT16) MMA("m16n8k16.row.col.f32.f16.f16.f32", "f");
  else MMA("m16n8k16.row.col.f32.bf16.bf16.f32", "f");
#undef MMA
}

// Of a warpgroup, four warps from a multiple of four on: wait for all; whether any of them says so.
DEVICE void sync_warpgroup() { asm volatile("bar.sync %0, 128;" ::"r"(1 + threadIdx.x / 128) : "memory"); }

DEVICE bool any_of_warpgroup(bool some) {
  int all;
  asm volatile("{ .reg .pred p, q; setp.ne.s32 q, %1, 0; bar.red.or.pred p, %2, 128, q; selp.s32 %0, 1, 0, p; }"
               : "=r"(all) : "r"(static_cast<int>(some)), "r"(1 + threadIdx.x / 128) : "memory");
  return all;
}

}  // namespace pyengine::cuda

#else
#include "emulator.h"
#endif

namespace pyengine::cuda {

constexpr unsigned WARP = 0xFFFFFFFFu;

// Threads that work together, wait for one another and vote.
struct Block {
  static DEVICE int rank() { return threadIdx.x; }
  static DEVICE int size() { return blockDim.x; }
  static DEVICE void sync() { __syncthreads(); }
  static DEVICE bool any(bool some) { return __syncthreads_or(some); }
};

struct Warpgroup {
  static DEVICE int rank() { return threadIdx.x % 128; }
  static DEVICE int size() { return 128; }
  static DEVICE void sync() { sync_warpgroup(); }
  static DEVICE bool any(bool some) { return any_of_warpgroup(some); }
};

struct Warp {
  static DEVICE int rank() { return threadIdx.x % 32; }
  static DEVICE int size() { return 32; }
  static DEVICE bool any(bool some) { return __ballot_sync(WARP, some) != 0; }
};

DEVICE double largest(double a, double b) { return a > b ? a : b; }

// Of the values of all threads, the sum and the largest. Every thread gets both; `scratch` holds two for each warp.
DEVICE void reduce_block(double& sum, double& most, double* scratch) {
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (int other = 16; other > 0; other /= 2) {
    sum += __shfl_xor_sync(WARP, sum, other);
    most = largest(most, __shfl_xor_sync(WARP, most, other));
  }
  __syncthreads();  // whoever still reads what was there
  if (threadIdx.x % 32 == 0) {
    scratch[2 * warp] = sum;
    scratch[2 * warp + 1] = most;
  }
  __syncthreads();
  sum = scratch[0];
  most = scratch[1];
  for (int i = 1; i < warps; ++i) {
    sum += scratch[2 * i];
    most = largest(most, scratch[2 * i + 1]);
  }
}

}  // namespace pyengine::cuda
