// Compute capability 9.0 in the emulator: barriers that count arrivals and bytes, copies of boxes by a tensor map, products
// of a warpgroup from shared memory. Copies arrive when nobody can run without one, products are taken when they are awaited:
// whatever is read before it must have come, written over while it may be read, or lost before it is read, is an error.
#pragma once

#include <list>
#include <map>
#include <random>

#include "emulator.h"

namespace emulator {

// What the fake driver puts into a tensor map.
struct Box {
  uint64_t magic;
  const uint8_t* from;
  uint64_t width, rows, stride;
  uint32_t box_width, box_rows;
};
constexpr uint64_t BOX_MAGIC = 0x70616D726F736E65;

struct Barrier { int expected, pending, bytes; unsigned phase; };

struct Range {
  uint32_t first, last;
  bool meets(const Range& other) const { return first < other.last && other.first < last; }
};

struct BoxCopy {
  Box box;
  int byte, row;
  uint32_t barrier;
};

struct Landed { Range range; bool read; };

struct Product {
  Range a, b;
  std::function<void()> take;
};

struct HopperThread {
  std::deque<std::vector<Product>> products;  // groups that are not awaited; the last is not yet closed
  bool fenced;
};

inline std::map<uint32_t, Barrier> barriers;
inline bool published;
inline std::list<std::pair<Range, BoxCopy>> on_their_way;
inline std::list<Landed> landed;
inline std::deque<HopperThread> hopper;
inline std::minstd_rand chance;

inline uint64_t field(uint64_t descriptor, int from, int bits) { return descriptor >> from & ((1u << bits) - 1); }

// PTX ISA, "Matrix descriptor format" and "128B swizzling": the byte of a row of a matrix of 32 bytes a row.
inline uint32_t place_of(uint64_t matrix, int row, int byte) {
  const uint32_t start = static_cast<uint32_t>(field(matrix, 0, 14)) << 4, step = static_cast<uint32_t>(field(matrix, 32, 14)) << 4;
  const uint32_t plain = start + row / 8 * step + row % 8 * 128 + byte;
  return plain ^ (plain >> 7 & 7) << 4;
}

inline Range range_of(uint64_t matrix, int rows) {
  const uint32_t first = static_cast<uint32_t>(field(matrix, 0, 14)) << 4 & ~1023u;
  return {first, first + rows * 128};
}

inline Range checked(uint64_t matrix, int rows) {
  const uint32_t start = static_cast<uint32_t>(field(matrix, 0, 14)) << 4;
  if (field(matrix, 62, 2) != 1 || field(matrix, 49, 3) != 0) fail("a matrix that is not of the 128-byte swizzle");
  if (start % 1024 + 32 > 128) fail("a matrix that begins within a swizzled group");
  if (field(matrix, 32, 14) << 4 != 1024) fail("groups of eight rows that are not 1,024 bytes apart");
  const Range own = range_of(matrix, rows);
  if (own.last > dynamic.size()) fail("a matrix beyond shared memory");
  for (const auto& [range, copy] : on_their_way)
    if (range.meets(own)) fail("a product of what is on its way");
  uint32_t known = 0;
  for (Landed& each : landed)
    if (each.range.meets(own)) {
      known += std::min(each.range.last, own.last) - std::max(each.range.first, own.first);
      each.read = true;
    }
  if (known != own.last - own.first) fail("a product of what nothing was copied to");
  return own;
}

inline Barrier& barrier_at(uint32_t at) {
  const auto found = barriers.find(at);
  if (found == barriers.end()) fail("a barrier that is none");
  return found->second;
}

inline void settle(Barrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  barrier.pending = barrier.expected;
  ++barrier.phase;
}

// The 128-byte swizzle goes by the address: pieces of 16 bytes, by the number of the 128-byte row.
inline void land(const Range& range, const BoxCopy& copy) {
  const Box& box = copy.box;
  for (uint32_t row = 0; row < box.box_rows; ++row)
    for (uint32_t byte = 0; byte < box.box_width; ++byte) {
      const int64_t from_row = int64_t{copy.row} + row, from_byte = int64_t{copy.byte} + byte;
      const bool there = from_row >= 0 && from_byte >= 0 && from_row < static_cast<int64_t>(box.rows) &&
                         from_byte < static_cast<int64_t>(box.width);
      const uint32_t plain = range.first + row * box.box_width + byte;
      dynamic[plain ^ (plain >> 7 & 7) << 4] = there ? box.from[from_row * box.stride + from_byte] : 0;
    }
  landed.push_back({range, false});
  Barrier& barrier = barrier_at(copy.barrier);
  barrier.bytes -= static_cast<int>(box.box_width * box.box_rows);
  settle(barrier);
}

inline bool deliver() {
  if (on_their_way.empty()) return false;
  const auto next = std::next(on_their_way.begin(), chance() % on_their_way.size());  // in any order
  const auto [range, copy] = *next;
  on_their_way.erase(next);
  land(range, copy);
  return true;
}

inline void begin_hopper() {
  barriers.clear();
  on_their_way.clear();
  landed.clear();
  published = false;
  hopper.assign(count, HopperThread{{{}}, false});
}

inline void end_hopper() {
  if (!on_their_way.empty()) trouble = "a copy that nobody has waited for";
  for (const Landed& each : landed)
    if (!each.read) trouble = "a copy that nobody has read";
  for (const HopperThread& each : hopper)
    if (each.products.size() > 1 || !each.products.front().empty()) trouble = "products that nobody has waited for";
}

inline const bool hopper_is_there = [] {
  begin = begin_hopper;
  late = deliver;
  end = end_hopper;
  return true;
}();

}  // namespace emulator

namespace pyengine::cuda {

inline void init_barrier(uint32_t barrier, int arrivals) {
  if (barrier % 8 != 0 || barrier + 8 > emulator::dynamic.size()) emulator::fail("a barrier that is misplaced");
  emulator::barriers[barrier] = {arrivals, arrivals, 0, 0};
  emulator::published = false;
}

inline void publish_barriers() { emulator::published = true; }

inline void arrive(uint32_t at) {
  emulator::Barrier& barrier = emulator::barrier_at(at);
  if (barrier.pending-- == 0) emulator::fail("more arrivals at a barrier than it waits for");
  emulator::settle(barrier);
}

inline void expect_bytes(uint32_t at, int n_bytes) {
  emulator::Barrier& barrier = emulator::barrier_at(at);
  barrier.bytes += n_bytes;
  if (barrier.bytes >= 1 << 20) emulator::fail("more bytes than a barrier counts");
  arrive(at);
}

inline void await_phase(uint32_t at, uint32_t parity) {
  emulator::barrier_at(at);
  emulator::wait_until("a barrier", [at, parity] { return (emulator::barriers.at(at).phase & 1) != parity; });
}

inline void copy_box(uint32_t to, const TensorMap& map, int byte, int row, uint32_t barrier) {
  emulator::Box box;
  memcpy(&box, &map, sizeof box);
  if (box.magic != emulator::BOX_MAGIC) emulator::fail("a tensor map that is none");
  if (!emulator::published) emulator::fail("a copy that may not know its barrier");
  const emulator::Range range{to, to + box.box_width * box.box_rows};
  if (to % 1024 != 0 || range.last > emulator::dynamic.size()) emulator::fail("a copy to where none may be");
  emulator::barrier_at(barrier);
  for (const auto& [other, copy] : emulator::on_their_way)
    if (other.meets(range)) emulator::fail("two copies to one place");
  for (const emulator::HopperThread& thread : emulator::hopper)
    for (const auto& group : thread.products)
      for (const emulator::Product& each : group)
        if (each.a.meets(range) || each.b.meets(range)) emulator::fail("a copy over what is being multiplied");
  emulator::landed.remove_if([&](const emulator::Landed& each) {
    if (!each.range.meets(range)) return false;
    if (!each.read) emulator::fail("a copy over what nobody has read");
    return true;
  });
  emulator::on_their_way.push_back({range, {box, byte, row, barrier}});
}

template <int COUNT>
void give_registers() {
  emulator::wait("setmaxnreg", emulator::GROUP);
}

template <int COUNT>
void take_registers() {
  emulator::wait("setmaxnreg", emulator::GROUP);
}

template <int SUMS>
void hold_sums(int32_t (&)[SUMS]) {}

inline void fence_products() {
  emulator::wait("wgmma.fence", emulator::LANES);
  emulator::hopper[emulator::running].fenced = true;
}

inline void commit_products() {
  emulator::wait("wgmma.commit_group", emulator::LANES);
  emulator::hopper[emulator::running].products.push_back({});
}

template <int PENDING>
void await_products() {
  emulator::wait("wgmma.wait_group", emulator::LANES);
  emulator::HopperThread& thread = emulator::hopper[emulator::running];
  thread.fenced = false;
  for (; thread.products.size() > PENDING + 1; thread.products.pop_front())
    for (const emulator::Product& each : thread.products.front()) each.take();
}

// PTX ISA, "wgmma.mma_async", the fragments of D: a warp has 16 rows, as of mma.m16n8.
template <Kind KIND, int SUMS>
void multiply_async(SumOf<KIND> (&sums)[SUMS], uint64_t a, uint64_t b) {
  emulator::HopperThread& thread = emulator::hopper[emulator::running];
  if (!thread.fenced) emulator::fail("products without wgmma.fence");
  const emulator::Range x = emulator::checked(a, 64), y = emulator::checked(b, 2 * SUMS);
  const auto take = [&sums, a, b, at = emulator::running % emulator::GROUP] {
    const auto row_of = [](uint64_t matrix, int row, uint8_t (&to)[32]) {
      for (int i = 0; i < 32; ++i) to[i] = emulator::dynamic[emulator::place_of(matrix, row, i)];
    };
    uint8_t own[2][32], other[32];
    for (int half = 0; half < 2; ++half) row_of(a, at / 32 * 16 + at % 32 / 4 + 8 * half, own[half]);
    for (int column = 0; column < SUMS / 2; ++column) {
      row_of(b, column / 2 * 8 + at % 4 * 2 + column % 2, other);
      for (int half = 0; half < 2; ++half) {
        SumOf<KIND>& sum = sums[column / 2 * 4 + 2 * half + column % 2];
        sum = dot<KIND>(own[half], other, sum);
      }
    }
  };
  thread.products.back().push_back({x, y, take});
}

}  // namespace pyengine::cuda
