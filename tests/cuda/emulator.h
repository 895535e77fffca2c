// A block of CUDA threads on the host, so that kernels run where there is no GPU: each thread is a coroutine that runs until
// it must wait for its warp, its warpgroup or its block, or for what another thread or a copy does. Copies to shared memory
// arrive as late as they may; warps that part where they must not, and barriers that some threads never reach, are errors.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define DEVICE inline
#define __shared__ static
#define KERNEL(name, ...) void name
#define DYNAMIC_SHARED(name) uint8_t* name = emulator::dynamic.data()

struct Dim3 { unsigned x = 1, y = 1, z = 1; };
struct int4 { int32_t x, y, z, w; };
struct uint4 { uint32_t x, y, z, w; };
struct float4 { float x, y, z, w; };
inline Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

constexpr int LANES = 32, GROUP = 128, BLOCK = 0, STACK = 128 << 10;

struct Copy { uint8_t* to; const void* from; bool there; size_t size = 16; };

struct Thread {
  ucontext_t context;
  jmp_buf at;
  std::vector<char> stack = std::vector<char>(STACK);
  std::deque<std::vector<Copy>> copies;  // groups on their way; the last is not yet closed
  const char* waits = nullptr;           // for what, null when it can run
  int together = 0;                      // with so many threads: LANES, GROUP or BLOCK
  std::function<bool()> until;           // or alone, until this is so
  bool started = false, done = false;
  int rounds[2] = {};  // of its warp, and of its warpgroup
};

struct Slot { uint8_t bytes[32]; };

inline std::deque<Thread> threads;  // which stay where they are
inline std::vector<Slot> slots[2][2];  // what lanes tell one another, in even and in odd rounds; and warpgroups
inline std::function<void()> begin = [] {};            // at the begin of a block
inline std::function<bool()> late = [] { return false; };  // where nobody can run: lets one more thing happen
inline std::function<void()> end = [] {};              // at the end of a block; may fail
inline std::vector<uint8_t> dynamic;
inline std::function<void()> body;
inline jmp_buf scheduler;
inline size_t count;  // of the threads, the block has so many
inline int running, either, either_next;
inline std::string trouble;  // of a thread: nothing is thrown across coroutines

inline Thread& self() { return threads[running]; }

inline void pause() {
  if (_setjmp(self().at) == 0) _longjmp(scheduler, 1);
}

inline void wait(const char* what, int together) {
  self().waits = what;
  self().together = together;
  pause();
}

inline void wait_until(const char* what, std::function<bool()> so) {
  if (so()) return;
  self().waits = what;
  self().until = std::move(so);
  pause();
}

inline void fail(const char* what) {
  trouble = what;
  _longjmp(scheduler, 1);
}

inline void enter() {
  for (;;) {  // a coroutine serves one block after another
    body();
    self().done = true;
    if (_setjmp(self().at) == 0) _longjmp(scheduler, 1);
  }
}

inline void resume(int thread) {
  running = thread;
  threadIdx.x = thread;
  if (_setjmp(scheduler) != 0) return;
  Thread& next = self();
  if (next.started) _longjmp(next.at, 1);
  next.started = true;
  getcontext(&next.context);
  next.context.uc_stack.ss_sp = next.stack.data();
  next.context.uc_stack.ss_size = next.stack.size();
  next.context.uc_link = nullptr;
  makecontext(&next.context, enter, 0);
  setcontext(&next.context);
}

// Lets the threads [first, last) go on if all that are left wait for the same; whether it did.
inline bool release(size_t first, size_t last, int together) {
  const char* what = nullptr;
  for (size_t i = first; i < std::min(last, count); ++i) {
    const Thread& each = threads[i];
    if (each.done) {
      if (together != BLOCK) return false;  // a lane that has returned takes part in nothing
      continue;
    }
    if (!each.waits || each.until || each.together != together) return false;
    if (what && strcmp(what, each.waits) != 0) throw std::runtime_error("threads part at " + std::string(what));
    what = each.waits;
  }
  for (size_t i = first; i < std::min(last, count); ++i) threads[i].waits = nullptr;
  return what != nullptr;
}

inline bool may_run(Thread& thread) {
  if (thread.until && thread.until()) {
    thread.until = nullptr;
    thread.waits = nullptr;
  }
  return !thread.done && !thread.waits;
}

inline void run_block() {
  for (size_t i = 0; i < count; ++i) {
    Thread& each = threads[i];
    each.copies.assign(1, {});
    each.waits = nullptr;
    each.until = nullptr;
    each.done = false;
    each.rounds[0] = each.rounds[1] = 0;
  }
  std::fill(dynamic.begin(), dynamic.end(), 0xA5);
  begin();
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t i = 0; i < count; ++i)
      if (may_run(threads[i])) {
        moved = true;
        resume(static_cast<int>(i));
        if (!trouble.empty()) throw std::runtime_error(std::exchange(trouble, ""));
      }
    for (size_t i = 0; i < count; i += LANES) moved |= release(i, i + LANES, LANES);
    for (size_t i = 0; i < count; i += GROUP) moved |= release(i, i + GROUP, GROUP);
    if (release(0, count, BLOCK)) {
      moved = true;
      either = either_next;
      either_next = 0;
    }
    bool left = false;
    for (size_t i = 0; i < count; ++i) left |= !threads[i].done;
    if (!moved && left) moved = late();
  }
  for (size_t i = 0; i < count; ++i)
    if (!threads[i].done) throw std::runtime_error("threads wait forever for " + std::string(threads[i].waits));
  end();
  if (!trouble.empty()) throw std::runtime_error(std::exchange(trouble, ""));
}

// Blocks run one after another. After an error the threads begin anew.
inline void run(Dim3 grid, unsigned size, unsigned shared, std::function<void()> kernel) {
  count = size;
  threads.resize(std::max(threads.size(), count));
  for (auto& kind : slots)
    for (auto& each : kind) each.resize(threads.size());
  dynamic.assign(shared, 0);
  body = std::move(kernel);
  gridDim = grid;
  blockDim = {size, 1, 1};
  try {
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) run_block();
  } catch (...) {
    threads.clear();
    throw;
  }
}

// Tells the lanes of the warp, or of the warpgroup, a value, and gives a function that says what the others told.
template <int TOGETHER = LANES, class T>
auto exchange(const char* what, T value) {
  static_assert(sizeof(T) <= sizeof(Slot));
  constexpr int kind = TOGETHER == GROUP;
  std::vector<Slot>& told = slots[kind][self().rounds[kind]++ % 2];
  memcpy(told[running].bytes, &value, sizeof value);
  wait(what, TOGETHER);
  return [&told, first = running / TOGETHER * TOGETHER](int lane) {
    T other;
    memcpy(&other, told[first + lane].bytes, sizeof other);
    return other;
  };
}

}  // namespace emulator

inline void __syncthreads() { emulator::wait("__syncthreads", emulator::BLOCK); }

inline int __syncthreads_or(int some) {
  emulator::either_next |= some;
  emulator::wait("__syncthreads_or", emulator::BLOCK);
  return emulator::either;
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int by) {
  const int lane = emulator::running % emulator::LANES;
  return emulator::exchange("__shfl_xor_sync", value)(lane ^ by);
}

template <class T>
T __shfl_sync(unsigned, T value, int from) {
  return emulator::exchange("__shfl_sync", value)(from);
}

template <class T>
T __shfl_up_sync(unsigned, T value, int by) {
  const int lane = emulator::running % emulator::LANES;
  return emulator::exchange("__shfl_up_sync", value)(lane >= by ? lane - by : lane);
}

inline unsigned __ballot_sync(unsigned, bool bit) {
  const auto told = emulator::exchange("__ballot_sync", bit);
  unsigned bits = 0;
  for (int lane = 0; lane < emulator::LANES; ++lane) bits |= static_cast<unsigned>(told(lane)) << lane;
  return bits;
}

inline unsigned __match_any_sync(unsigned, int value) {
  const auto told = emulator::exchange("__match_any_sync", value);
  unsigned bits = 0;
  for (int lane = 0; lane < emulator::LANES; ++lane) bits |= static_cast<unsigned>(told(lane) == value) << lane;
  return bits;
}

inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline int32_t atomicAdd(int32_t* at, int32_t more) { return (*at += more) - more; }

inline uint32_t atomicOr(uint32_t* at, uint32_t bits) {
  const uint32_t before = *at;
  *at |= bits;
  return before;
}

inline int32_t atomicMax(int32_t* at, int32_t value) {
  const int32_t before = *at;
  *at = std::max(before, value);
  return before;
}

inline int32_t __dp4a(int32_t a, int32_t b, int32_t sum) {
  for (int i = 0; i < 4; ++i) sum += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
  return sum;
}

namespace pyengine::cuda {

using std::min;

inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(static_cast<const uint8_t*>(p) - emulator::dynamic.data());
}

inline void copy_async(uint32_t to, const void* from, bool there) {
  if (to + 16 > emulator::dynamic.size()) emulator::fail("a copy beyond shared memory");
  emulator::self().copies.back().push_back({emulator::dynamic.data() + to, from, there});
}

template <int BYTES>
void copy_piece(uint32_t to, const void* from) {
  if (to % BYTES != 0 || reinterpret_cast<uintptr_t>(from) % BYTES != 0) emulator::fail("a copy that is misaligned");
  if (to + BYTES > emulator::dynamic.size()) emulator::fail("a copy beyond shared memory");
  emulator::self().copies.back().push_back({emulator::dynamic.data() + to, from, true, BYTES});
}

inline void commit_copies() { emulator::self().copies.push_back({}); }

template <int PENDING>
void await_copies() {
  auto& copies = emulator::self().copies;
  for (; copies.size() > PENDING + 1; copies.pop_front())
    for (const emulator::Copy& each : copies.front()) {
      memset(each.to, 0, each.size);
      if (each.there) memcpy(each.to, each.from, each.size);
    }
}

inline void load_matrices(uint32_t (&to)[4], uint32_t row) {
  const int lane = emulator::running % emulator::LANES;
  const auto told = emulator::exchange("ldmatrix", row);
  for (int matrix = 0; matrix < 4; ++matrix)
    memcpy(&to[matrix], emulator::dynamic.data() + told(8 * matrix + lane / 4) + lane % 4 * 4, 4);
}

// As much as tensor cores do of 32 bytes: int8 and bits exactly; of 16 bits the sum is cut off to float32.
template <Kind KIND>
SumOf<KIND> dot(const uint8_t* a, const uint8_t* b, SumOf<KIND> sum) {
  if constexpr (KIND == INT8) {
    for (int i = 0; i < 32; ++i) sum += static_cast<int8_t>(a[i]) * static_cast<int8_t>(b[i]);
    return sum;
  } else if constexpr (KIND == BITS) {
    for (int i = 0; i < 32; ++i) sum += __builtin_popcount(a[i] & b[i]);
    return sum;
  } else {
    using Value = std::conditional_t<KIND == FLOAT16, Float16, BFloat16>;
    double exact = sum;
    for (int i = 0; i < 32; i += 2) {
      Value x, y;
      memcpy(&x, a + i, 2);
      memcpy(&y, b + i, 2);
      exact += double{value_of(x)} * value_of(y);
    }
    const float near = static_cast<float>(exact);
    return fabs(near) > fabs(exact) ? nextafterf(near, 0.0f) : near;
  }
}

// The layouts of mma.m16n8k32 for int8, of mma.m16n8k16 for 16 bits and of mma.m16n8k256 for bits, which have the same bytes: PTX ISA, "Matrix Fragments".
template <Kind KIND = INT8>
void multiply(SumOf<KIND> (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Fragments { uint32_t a[4], b[2]; };
  const int lane = emulator::running % emulator::LANES;
  const auto told = emulator::exchange("mma", Fragments{{a[0], a[1], a[2], a[3]}, {b0, b1}});
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    uint32_t x[8], y[8];
    for (int k = 0; k < 8; ++k) {  // words of four bytes
      x[k] = told(row % 8 * 4 + k % 4).a[k / 4 * 2 + row / 8];
      y[k] = told(column * 4 + k % 4).b[k / 4];
    }
    sums[i] = dot<KIND>(reinterpret_cast<uint8_t*>(x), reinterpret_cast<uint8_t*>(y), sums[i]);
  }
}

// The nearest float16 of finite values below 2^15, ties to even.
inline uint32_t half_of(double x) {
  const double place = x == 0 ? 1 : ldexp(1, std::max(ilogb(x), -14) - 10);
  return nearest_float16(static_cast<float>(nearbyint(x / place) * place));
}

inline uint32_t two_halves(float x) { return half_of(x) * 0x10001; }

inline uint32_t fma_halves(uint32_t a, uint32_t b, uint32_t c) {
  const auto one = [=](int at) {
    const auto value = [at](uint32_t pair) { return double{value_of(Float16{static_cast<uint16_t>(pair >> at)})}; };
    return half_of(value(a) * value(b) + value(c)) << at;
  };
  return one(0) | one(16);
}

inline void sync_warpgroup() { emulator::wait("bar.sync", emulator::GROUP); }

inline bool any_of_warpgroup(bool some) {
  const auto told = emulator::exchange<emulator::GROUP>("bar.red", some);
  bool any = false;
  for (int i = 0; i < emulator::GROUP; ++i) any |= told(i);
  return any;
}

inline void multiply_first(int32_t (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, int32_t start) {
  for (int32_t& sum : sums) sum = start;
  multiply(sums, a, b0, b1);
}

}  // namespace pyengine::cuda
