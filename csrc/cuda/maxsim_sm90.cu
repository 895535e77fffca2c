// MaxSim over int8 codes for Hopper, of tokens of 65 to 128 dimensions and queries of hundreds of tokens: pages. What is
// scanned and appended is that of maxsim.cu; kernels/maxsim_sm90_plan.py says what a block takes, and where it is chosen.
//
// A block keeps up to 1,024 query tokens in shared memory, 128 bytes each, and goes through the tokens of its documents
// once. One warp asks for boxes of 128 document tokens (16 KiB) in a ring; two warpgroups take half of the query tokens
// each, twice 64 at a time: 64 x 128 products by four `wgmma`, 64 sums a thread, which are looked at while the other 64 are
// made. Query tokens are rows, so that a thread meets
// the same two of each 64 in all tiles of a document: it keeps its largest products of these, 4 bytes in shared memory for
// 32 products, and lanes exchange them once a document. The weights of 32 document tokens stay in registers for a tile.
//
// The balance, by the datasheet of an H200 (1,979 Tops of int8: 4,096 products a clock and multiprocessor): 64 x 128 x 128
// products take tensor cores 256 clocks. What becomes of 64 x 128 sums is, in each of four schedulers, 64 times a
// register that is set to what makes an integer a float32 (`BIASED`), a multiplication and a maximum, the last at half
// rate: 192 of these 256 clocks issue something, and 128 are busy with maxima. The compiler makes 471 instructions of the
// loop over 128 x 128 sums, 388 of them these three, for 512 clocks of tensor cores: products are the bound, by little. A
// tile of 16 KiB is multiplied with 1,024 query tokens in 4,096 clocks: 4 bytes a clock come from L2, and 96 from shared
// memory, of 128.
#include "hopper.cuh"
#include "maxsim_run.cuh"

namespace pyengine::cuda {
namespace maxsim {

constexpr int WARPGROUPS = 2, SM90_THREADS = 128 * (WARPGROUPS + 1), BOX_TOKENS = 128, ROWS = 64, ROW_BYTES = 128;
constexpr int PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;  // of 168 that each of 384 threads must begin with
constexpr uint32_t BARRIERS = 1024, BOX_BYTES = BOX_TOKENS * ROW_BYTES, BLOCK_BYTES = ROWS * ROW_BYTES;

// What a block's shared memory holds, by address: barriers; `tokens` query tokens; a ring of `stages` boxes. The n-th box
// of all is at place n % stages, for the (n / stages)-th time.
struct Ring {
  uint32_t base, stages, tokens;

  DEVICE uint32_t full(uint32_t n) const { return base + 8 * (n % stages); }
  DEVICE uint32_t empty(uint32_t n) const { return base + 8 * (stages + n % stages); }
  DEVICE uint32_t ready() const { return base + 16 * stages; }
  DEVICE uint32_t idle() const { return base + 16 * stages + 8; }
  DEVICE uint32_t parity(uint32_t n) const { return n / stages & 1; }
  DEVICE uint32_t queries() const { return base + BARRIERS; }
  DEVICE uint32_t docs(uint32_t n) const { return queries() + tokens * ROW_BYTES + n % stages * BOX_BYTES; }
  DEVICE uint32_t end() const { return queries() + tokens * ROW_BYTES + stages * BOX_BYTES; }

  DEVICE void init() const {
    for (uint32_t i = 0; i < stages; ++i) {
      init_barrier(full(i), 1);  // the producer, and the bytes
      init_barrier(empty(i), 4 * WARPGROUPS);
    }
    init_barrier(ready(), 1);
    init_barrier(idle(), 4 * WARPGROUPS);
    publish_barriers();
  }
};

// The value of the first lane, so that the compiler knows it to be that of all: products are not for paths that may part.
DEVICE int uniform(int value) { return __shfl_sync(WARP, value, 0); }

// f(document, token) for each box of a panel.
template <class Do>
DEVICE void each_box(const Run& run, Do f) {
  for (int doc = 0; doc < run.count; ++doc)
    for (int token = 0; token < run.length[doc]; token += BOX_TOKENS) f(doc, token);
}

// The warp that asks for copies. Three others beside it make a warpgroup, which gives registers away.
DEVICE void produce(const Scan& scan, const Run& run, const Ring& ring, const TensorMap& docs,
                    const TensorMap& queries) {
  const int64_t group = blockIdx.x % scan.groups, first = scan.panels[group], last = scan.panels[group + 1];
  uint32_t n = 0;
  for (int64_t panel = first; panel < last; ++panel) {
    await_phase(ring.idle(), (panel - first + 1) & 1);
    expect_bytes(ring.ready(), static_cast<int>(ring.tokens) * ROW_BYTES);
    for (uint32_t at = 0; at < ring.tokens; at += ROWS)
      copy_box(ring.queries() + at * ROW_BYTES, queries, 0, static_cast<int>(panel * ring.tokens + at), ring.ready());
    each_box(run, [&](int doc, int token) {
      await_phase(ring.empty(n), ring.parity(n) ^ 1);
      expect_bytes(ring.full(n), BOX_BYTES);
      copy_box(ring.docs(n), docs, 0, static_cast<int>(run.start[doc] + token), ring.full(n));
      ++n;
    });
  }
}

// The largest products of half a panel by a warpgroup: of each thread those of its two query tokens of 64 with its columns,
// `best` [tokens / 64, 2, 128].
struct Half {
  int tokens;
  uint32_t queries;  // in shared memory
  float* best;

  // A box of document tokens, of which there are `count`, at `weights`. What is beyond weighs NaN, which no maximum takes.
  DEVICE void add(uint64_t docs, const float* weights, int count, bool first) const {
    float weight[32], less[32];
    weigh(weights, count, weight, less);
#pragma unroll 1
    for (int at = 0; at < tokens; at += 2 * ROWS) {
      int32_t sums[2][64];
      const uint64_t own = matrix_at(queries + at * ROW_BYTES);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int i = 0; i < 64; ++i) sums[m][i] = BIASED;
        hold_sums(sums[m]);
      }
      fence_products();
      begin_products(sums[0], own, docs);
      begin_products(sums[1], matrix_beyond(own, BLOCK_BYTES), docs);
      float* kept = best + at * 4 + threadIdx.x % 128;
      await_products<1>();
      take_largest(sums[0], weight, less, kept, first);
      await_products<0>();
      take_largest(sums[1], weight, less, kept + 4 * ROWS, first);
    }
  }

  static DEVICE void begin_products(int32_t (&sums)[64], uint64_t own, uint64_t docs) {
#pragma unroll
    for (int k = 0; k < ROW_BYTES; k += 32) multiply_async<INT8>(sums, matrix_beyond(own, k), matrix_beyond(docs, k));
    commit_products();
  }

  static DEVICE void take_largest(int32_t (&sums)[64], const float (&weight)[32], const float (&less)[32], float* kept,
                                  bool first) {
    hold_sums(sums);
    float most[2][2] = {{first ? -INFINITY : kept[0], -INFINITY}, {first ? -INFINITY : kept[128], -INFINITY}};
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      const int half = i / 2 % 2, column = i / 4 * 2 + i % 2;
      most[half][i % 2] = fmaxf(most[half][i % 2], weighed(sums[i], weight[column], less[column]));
    }
    kept[0] = fmaxf(most[0][0], most[0][1]);
    kept[128] = fmaxf(most[1][0], most[1][1]);
  }

  static DEVICE void weigh(const float* weights, int count, float (&weight)[32], float (&less)[32]) {
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int token = i / 2 * 8 + threadIdx.x % 4 * 2 + i % 2;
      const float there = weights[token];  // no branch, for which products would wait: there are 128 more than tokens
      weight[i] = token < count ? there : NAN;
      less[i] = less_of(weight[i]);
    }
  }

  // The terms a f M of the query tokens.
  DEVICE void finish(float* terms, const float* coefficients) const {
    const int thread = threadIdx.x % 128, lane = thread % 32;
    for (int m = 0; m < tokens / ROWS; ++m)
      for (int half = 0; half < 2; ++half) {
        const int token = m * ROWS + thread / 32 * 16 + half * 8 + lane / 4;
        const float largest = larger_of(larger_of(best[(2 * m + half) * 128 + thread], 1), 2);
        if (lane % 4 == 0) terms[token] = coefficients[token] * largest;
      }
  }
};

// Add the terms of half a panel, which begins at that query token of all, to the sums of its queries: a warp for each.
DEVICE void add_half(const Scan& scan, const Run& run, const float* terms, int64_t begin, int half, float* sums) {
  const int lane = threadIdx.x % 32;
  for (int q = threadIdx.x % 128 / 32; q < run.n_queries; q += 4) {
    const int64_t first = scan.begins[run.query + q] - begin, last = first + scan.lengths[run.query + q];
    float sum = 0;
    for (int at = static_cast<int>(first > 0 ? first : 0) + lane; at < min(last, int64_t{half}); at += 32)
      sum += terms[at];
    sum = warp_sum(sum);
    if (lane == 0) sums[q] += sum;
  }
}

// A warpgroup. `sums` [RUN, SLOTS], `best` and `terms` are its own.
DEVICE void consume(const Scan& scan, const Run& run, const Ring& ring, float (*sums)[SLOTS], float* best,
                    float* terms) {
  const int64_t group = blockIdx.x % scan.groups, first = scan.panels[group], last = scan.panels[group + 1];
  const int consumer = uniform(threadIdx.x / 128), half = static_cast<int>(ring.tokens) / WARPGROUPS;
  const int count = uniform(run.count);
  const bool speaks = threadIdx.x % 32 == 0;
  const Half own{half, ring.queries() + consumer * half * ROW_BYTES, best};
  uint32_t n = 0;
  for (int64_t panel = first; panel < last; ++panel) {
    await_phase(ring.ready(), (panel - first) & 1);
    const int64_t begin = panel * ring.tokens + consumer * half;
    for (int doc = 0; doc < count; ++doc) {
      const int length = uniform(run.length[doc]);
      if (length == 0) continue;
      for (int token = 0; token < length; token += BOX_TOKENS, ++n) {
        await_phase(ring.full(n), ring.parity(n));
        own.add(matrix_at(ring.docs(n)), scan.weights + run.start[doc] + token, length - token, token == 0);
        if (speaks) arrive(ring.empty(n));
      }
      own.finish(terms, scan.coefficients + begin);
      Warpgroup::sync();
      add_half(scan, run, terms, begin, half, sums[doc]);
      Warpgroup::sync();
    }
    if (speaks) arrive(ring.idle());
  }
}

DEVICE void scan_pages(const Scan& scan, const TensorMap& docs, const TensorMap& queries, int64_t stages,
                       int64_t tokens, uint8_t* shared) {
  __shared__ Run run;
  __shared__ float sums[WARPGROUPS][RUN][SLOTS];
  const Ring ring{(shared_address(shared) + 1023) / 1024 * 1024, static_cast<uint32_t>(stages),
                  static_cast<uint32_t>(tokens)};
  float* best = reinterpret_cast<float*>(shared + (ring.end() - shared_address(shared)));
  if (threadIdx.x == 0) ring.init();
  for (int i = threadIdx.x; i < WARPGROUPS * RUN * SLOTS; i += SM90_THREADS)
    sums[i / (RUN * SLOTS)][i / SLOTS % RUN][i % SLOTS] = 0;
  run.load(scan);
  bool read = false;
  for (int doc = 0; doc < run.count; ++doc) read |= run.length[doc] > 0;
  read = uniform(read);
  const int consumer = uniform(threadIdx.x / 128), half = static_cast<int>(tokens) / WARPGROUPS;
  if (consumer == WARPGROUPS) {
    give_registers<PRODUCER_REGISTERS>();
    if (read && threadIdx.x == 128 * WARPGROUPS) produce(scan, run, ring, docs, queries);
    return;  // what follows would be compiled for so few registers
  }
  take_registers<CONSUMER_REGISTERS>();
  if (read) consume(scan, run, ring, sums[consumer], best + consumer * 4 * half, best + 4 * tokens + consumer * half);
  __syncthreads();
  for (int i = threadIdx.x; i < RUN * SLOTS; i += 128 * WARPGROUPS)
    run.forth[i / SLOTS][i % SLOTS] = sums[0][i / SLOTS][i % SLOTS] + sums[1][i / SLOTS][i % SLOTS];
  __syncthreads();
  run.append(scan, false, 128 * WARPGROUPS);
}

}  // namespace maxsim

KERNEL(maxsim_sm90, maxsim::SM90_THREADS, 1)(TENSOR_MAP doc_map, TENSOR_MAP query_map, int64_t stages, int64_t tokens,
                                             MAXSIM_PARAMETERS) {
  DYNAMIC_SHARED(shared);
  maxsim::scan_pages(MAXSIM_SCAN, doc_map, query_map, stages, tokens, shared);
}

}  // namespace pyengine::cuda
