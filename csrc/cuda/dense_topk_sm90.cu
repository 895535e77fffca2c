// Dense top-k for Hopper: tensor maps copy, warpgroups multiply from shared memory, and neither waits for what becomes of
// the products. Plans, bounds and what is appended are those of dense_topk.cu; kernels/dense_sm90_plan.py adds how many
// blocks there are, and what their shared memory holds.
//
// A block keeps to 16, 64 or 128 queries (in two parts but for 128) and goes through tiles of 128 documents. One warp asks for
// boxes of 128 rows x 128 bytes of documents (16 KiB) in a ring; two warpgroups take tiles in turn, 128 x 32 or 128 x 128
// products, the latter 128 sums a thread of the 232 registers that it takes. While one appends, the other multiplies: bounds
// and comparisons are about 14 instructions a product, 1,800 in each of four schedulers, while the products of 768 int8
// dimensions take 3,100 clocks. Tensor cores make 4,096 products a clock, so 16 KiB of documents are multiplied in 512:
// where the queries stay in shared memory, for 128 of them up to 1,152 bytes of a row, 32 bytes a clock come from the L2
// cache, else 64, since boxes of queries come beside. For few queries the bound is memory, some 14 bytes a clock and
// multiprocessor, for which the ring has up to 128 KiB on the way.
#include "dense_scan.cuh"
#include "hopper.cuh"

namespace pyengine::cuda {
namespace {

constexpr int CONSUMERS = 2, SM90_THREADS = 128 * (CONSUMERS + 1);
constexpr int PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;  // of 168 that each of 384 threads must begin with
constexpr uint32_t BARRIERS = 1024, BOX = DOCS * DEPTH;  // bytes

// What a block's shared memory holds, by address: barriers; the queries, if they stay; a ring of `stages` places, each with
// a step of documents, and of queries if they do not. The n-th step of all is at place n % stages, for the
// (n / stages)-th time.
template <int ROWS>
struct Ring {
  static constexpr uint32_t QUERIES = ROWS * DEPTH;
  uint32_t base, stages, steps;
  bool resident;

  DEVICE uint32_t full(uint32_t n) const { return base + 8 * (n % stages); }
  DEVICE uint32_t empty(uint32_t n) const { return base + 8 * (stages + n % stages); }
  DEVICE uint32_t turn(int consumer) const { return base + 8 * (2 * stages + consumer); }
  DEVICE uint32_t ready() const { return base + 8 * (2 * stages + CONSUMERS); }
  DEVICE uint32_t parity(uint32_t n) const { return n / stages & 1; }
  DEVICE uint32_t bytes() const { return BOX + (resident ? 0 : QUERIES); }

  DEVICE uint32_t docs(uint32_t n) const {
    return base + BARRIERS + (resident ? steps * QUERIES : 0) + n % stages * bytes();
  }
  DEVICE uint32_t queries(uint32_t n) const {  // a tile begins at a multiple of `steps`
    return resident ? base + BARRIERS + n % steps * QUERIES : docs(n) + BOX;
  }

  DEVICE void init() const {
    for (uint32_t i = 0; i < stages; ++i) {
      init_barrier(full(i), 1);   // the producer, and the bytes
      init_barrier(empty(i), 4);  // the warps of the warpgroup that has multiplied
    }
    for (int i = 0; i < CONSUMERS; ++i) init_barrier(turn(i), 4);
    init_barrier(ready(), 1);
    publish_barriers();
  }
};

// The tiles of a block: every `groups`-th of the part of the scan.
struct Tiles {
  int64_t query, group, groups, count;

  // f(row) for those that anyone may have; all warps agree on these.
  template <int BQ, class Do>
  DEVICE void each(const Scan& scan, Do f) const {
    for (int64_t number = group; number < count; number += groups) {
      const int64_t row = first_row(scan, number);
      if (anyone_may<Warp>(scan, row, query, BQ)) f(static_cast<int>(row));
    }
  }
};

template <int BQ, int PARTS>
DEVICE void load_queries(const TensorMap& map, int64_t query, int64_t padded, uint32_t to, int byte, uint32_t barrier) {
#pragma unroll
  for (int part = 0; part < PARTS; ++part)
    copy_box(to + part * BQ * DEPTH, map, byte, static_cast<int>(part * padded + query), barrier);
}

// The warp that asks for copies. Three others beside it make a warpgroup, which gives registers away.
template <int BQ, int PARTS>
DEVICE void produce(const Scan& scan, const Tiles& tiles, const Ring<PARTS * BQ>& ring, const TensorMap& docs,
                    const TensorMap& queries) {
  const bool asks = threadIdx.x % 32 == 0;
  const auto load = [&](uint32_t n, uint32_t i, uint32_t barrier) {
    load_queries<BQ, PARTS>(queries, tiles.query, scan.padded, ring.queries(n), i * DEPTH, barrier);
  };
  uint32_t n = 0;
  tiles.each<BQ>(scan, [&](int row) {
    if (!asks) return;
    if (n == 0 && ring.resident) {
      expect_bytes(ring.ready(), ring.steps * ring.QUERIES);
      for (uint32_t i = 0; i < ring.steps; ++i) load(i, i, ring.ready());
    }
    for (uint32_t i = 0; i < ring.steps; ++i, ++n) {
      await_phase(ring.empty(n), ring.parity(n) ^ 1);
      expect_bytes(ring.full(n), ring.bytes());
      copy_box(ring.docs(n), docs, i * DEPTH, row, ring.full(n));
      if (!ring.resident) load(n, i, ring.full(n));
    }
  });
}

// The products of a tile by a warpgroup: two blocks of 64 documents, one below the other.
template <Kind KIND, int BQ, int PARTS>
struct GroupProducts {
  static constexpr int COUNT = BQ, SUMS = PARTS * BQ / 2;  // of a thread
  SumOf<KIND> sums[2][SUMS] = {};

  DEVICE void multiply(const Ring<PARTS * BQ>& ring, uint32_t n, int other) {
    const bool speaks = threadIdx.x % 32 == 0;
    for (uint32_t i = 0; i < ring.steps; ++i, ++n) {
      await_phase(ring.full(n), ring.parity(n));
      if (i + 1 == ring.steps && speaks) arrive(ring.turn(other));  // all that this tile waits for has come
      const uint64_t docs = matrix_at(ring.docs(n)), queries = matrix_at(ring.queries(n));
      fence_products();
#pragma unroll
      for (int at = 0; at < DEPTH; at += 32)
#pragma unroll
        for (int m = 0; m < 2; ++m)
          multiply_async<KIND>(sums[m], matrix_beyond(docs, m * BOX / 2 + at), matrix_beyond(queries, at));
      commit_products();
      await_products<1>();
      if (i > 0 && speaks) arrive(ring.empty(n - 1));
    }
    await_products<0>();
    if (speaks) arrive(ring.empty(n - 1));
  }

  // What append_passing asks for.
  DEVICE int doc(int i) const {
    return i / 2 * 64 + threadIdx.x % 128 / 32 * 16 + i % 2 * 8 + threadIdx.x % 32 / 4;
  }
  DEVICE int query(int number) const { return number / 8 * 8 + threadIdx.x % 4 * 2 + number % 2; }
  DEVICE float sum(int number, const QueryTerms& terms) const {
    const int m = number / 4 % 2, i = number / 8 * 4 + number % 4;
    if constexpr (PARTS == 1) return weighed(terms, sums[m][i]);
    else return weighed(terms, sums[m][i], sums[m][SUMS / 2 + i]);
  }
};

// A warpgroup. Its steps are those of every other tile; it looks at the ring only once the other has seen all of the steps
// before: a barrier tells the phase that runs from the one before it, no more.
template <Kind KIND, int BQ, int PARTS>
DEVICE void consume(const Scan& scan, const Tiles& tiles, const Ring<PARTS * BQ>& ring, TileQueries<BQ>& own) {
  const int consumer = threadIdx.x / 128;
  own.template load<Warpgroup>(scan, tiles.query);
  Warpgroup::sync();
  uint32_t number = 0;
  tiles.each<BQ>(scan, [&](int row) {
    const uint32_t tile = number++;
    if (tile % CONSUMERS != static_cast<uint32_t>(consumer)) return;
    if (tile < CONSUMERS && ring.resident) await_phase(ring.ready(), 0);
    await_phase(ring.turn(consumer), (tile / CONSUMERS + consumer + 1) & 1);
    GroupProducts<KIND, BQ, PARTS> products;
    products.multiply(ring, tile * ring.steps, 1 - consumer);
    append_passing<Warpgroup>(scan, own, products, row, tiles.query);
  });
}

template <Kind KIND, int BQ, int PARTS>
DEVICE void scan_tiles(const Scan& scan, const TensorMap& docs, const TensorMap& queries, int64_t steps, int64_t stages,
                       int64_t resident, int64_t count, uint8_t* shared) {
  __shared__ TileQueries<BQ> own[CONSUMERS];
  const int64_t blocks = (scan.n_queries + BQ - 1) / BQ;
  const Tiles tiles{blockIdx.x % blocks * BQ, blockIdx.x / blocks, gridDim.x / blocks, count};
  const Ring<PARTS * BQ> ring{(shared_address(shared) + 1023) / 1024 * 1024, static_cast<uint32_t>(stages),
                              static_cast<uint32_t>(steps), resident != 0};
  if (threadIdx.x == 0) ring.init();
  __syncthreads();
  constexpr bool wide = PARTS * BQ == 128;  // others begin with fewer than there are to share, and need no more
  if (threadIdx.x / 128 == CONSUMERS) {
    if constexpr (wide) give_registers<PRODUCER_REGISTERS>();
    if (threadIdx.x / 32 == CONSUMERS * 4) produce<BQ, PARTS>(scan, tiles, ring, docs, queries);
  } else {
    if constexpr (wide) take_registers<CONSUMER_REGISTERS>();
    consume<KIND, BQ, PARTS>(scan, tiles, ring, own[threadIdx.x / 128]);
  }
}

}  // namespace

#define DENSE_SM90(name, ...)                                                                             \
  KERNEL(name, SM90_THREADS, 1)(TENSOR_MAP docs, TENSOR_MAP queries, int64_t steps, int64_t stages,       \
                                int64_t resident, int64_t count, SCAN_PARAMETERS) {                       \
    DYNAMIC_SHARED(shared);                                                                               \
    scan_tiles<__VA_ARGS__>(SCAN, docs, queries, steps, stages, resident, count, shared);                 \
  }
#define TILES_SM90(suffix, kind)                      \
  DENSE_SM90(dense_16##suffix##_sm90, kind, 16, 2)    \
  DENSE_SM90(dense_64##suffix##_sm90, kind, 64, 2)    \
  DENSE_SM90(dense_128##suffix##_sm90, kind, 128, 1)

TILES_SM90(, INT8)
TILES_SM90(_float16, FLOAT16)
TILES_SM90(_bfloat16, BFLOAT16)

}  // namespace pyengine::cuda
