// A ring of one place and one warpgroup, right or with one mistake: what the emulator makes of each.
#include "hopper.cuh"

using namespace pyengine::cuda;

namespace {

enum Fault {
  NONE, NO_WAIT, NO_EXPECTATION, NO_FENCE, NO_RELEASE, EARLY_RELEASE, UNAWAITED, TOO_MANY_ARRIVALS, TOO_FEW_ARRIVALS,
  MISALIGNED, UNPUBLISHED, UNREAD, LONE_WARP,
};

constexpr uint32_t FULL = 0, EMPTY = 8, PLACE = 1024, ROWS = 64;

void copy_twice(Fault fault, const TensorMap& map) {
  for (uint32_t round = 0; round < 2; ++round) {
    if (fault != NO_RELEASE) await_phase(EMPTY, round ^ 1);
    if (fault == NO_EXPECTATION) arrive(FULL);
    else expect_bytes(FULL, ROWS * 128);
    copy_box(PLACE, map, 0, 0, FULL);
  }
  if (fault == UNREAD) {
    await_phase(EMPTY, 1);
    expect_bytes(FULL, ROWS * 128);
    copy_box(PLACE, map, 0, 0, FULL);
    await_phase(FULL, 0);
  }
}

// sums [64 x 32] of the first 32 bytes of all rows with the first 32 rows, twice.
void multiply_twice(Fault fault, int32_t (&sums)[16]) {
  const bool speaks = threadIdx.x % 32 == 0 || fault == TOO_MANY_ARRIVALS;
  for (uint32_t round = 0; round < 2; ++round) {
    if (fault != NO_WAIT) await_phase(FULL, round);
    if (fault != NO_FENCE) fence_products();
    const uint64_t matrix = matrix_at(PLACE + (fault == MISALIGNED ? 128 : 0));
    multiply_async<INT8>(sums, matrix, matrix);
    if (fault != LONE_WARP || threadIdx.x < 96) commit_products();
    if (fault == EARLY_RELEASE && speaks) arrive(EMPTY);
    if (fault != UNAWAITED) await_products<0>();
    if (fault != EARLY_RELEASE && speaks && !(fault == TOO_FEW_ARRIVALS && threadIdx.x == 0)) arrive(EMPTY);
  }
}

void kernel(Fault fault, const TensorMap& map, int32_t* found) {
  if (threadIdx.x == 0) {
    init_barrier(FULL, 1);
    init_barrier(EMPTY, 4);
    if (fault != UNPUBLISHED) publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x == 128) copy_twice(fault, map);
  if (threadIdx.x >= 128) return;
  int32_t sums[16] = {};
  multiply_twice(fault, sums);
  for (int i = 0; i < 16; ++i) {
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 % 2 * 8;
    found[row * 32 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2] = sums[i];
  }
}

}  // namespace

// What went wrong, empty if nothing did. `rows` [64, 128] bytes, `found` [64, 32].
extern "C" const char* run(int64_t fault, const uint8_t* rows, int32_t* found) {
  static std::string said;
  said.clear();
  TensorMap map;
  const emulator::Box box{emulator::BOX_MAGIC, rows, 128, ROWS, 128, 128, ROWS};
  memcpy(&map, &box, sizeof box);
  try {
    emulator::run({1, 1, 1}, 160, 16384, [&] { kernel(static_cast<Fault>(fault), map, found); });
  } catch (const std::runtime_error& error) {
    said = error.what();
  }
  return said.c_str();
}
