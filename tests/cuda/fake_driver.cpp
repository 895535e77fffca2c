// A driver without a GPU: a libcuda.so.1 that runs the kernels in the emulator, writes down what is launched, and fails where
// it is told to. Memory of the device is the host's, full of 0xFF at first, with a fence at either end. Copies from pinned
// memory are under way until somebody waits for their stream, and so are larger ones from any other where "coherent" is
// told. One call at a time.
#include <cuda.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "code.cu"
#include "dense_between.cu"
#include "dense_bits.cu"
#include "dense_both.cu"
#include "dense_float32.cu"
#include "dense_rank.cu"
#include "dense_topk.cu"
#include "dense_topk_sm90.cu"
#include "filtering.cu"
#include "maxsim.cu"
#include "maxsim_packed.cu"
#include "maxsim_packed_steps.cu"
#include "maxsim_refine.cu"
#include "maxsim_sm90.cu"
#include "maxsim_steps.cu"
#include "refine.cu"
#include "select.cu"
#include "sparse_refine.cu"
#include "sparse_topk.cu"

namespace {

constexpr size_t FENCE = 64, STAGED = 64 << 10;
constexpr uint8_t POST = 0xC3;
constexpr int MOST_SHARED = 227 << 10;
constexpr unsigned PLAIN_SHARED = 38 << 10;  // without asking: 48 KB, less what kernels have of their own, here all alike

struct Entry {
  std::vector<size_t> parameters;  // the bytes of each
  void (*call)(void** arguments);
};

template <class T>
T copied(const void* from) {
  T value;
  memcpy(static_cast<void*>(&value), from, sizeof value);
  return value;
}

template <auto Kernel, class... A, size_t... I>
void call_with(void** arguments, void (*)(A...), std::index_sequence<I...>) {
  static_assert(((sizeof(A) == 8 || sizeof(A) == 128) && ...), "every parameter is one word, or a tensor map");
  Kernel(copied<A>(arguments[I])...);
}

template <auto Kernel>
void call(void** arguments) {
  const auto count = []<class... A>(void (*)(A...)) { return std::index_sequence_for<A...>(); };
  call_with<Kernel>(arguments, Kernel, count(Kernel));
}

template <class... A>
std::vector<size_t> parameters(void (*)(A...)) {
  return {sizeof(A)...};
}

#define ENTRY(name) {#name, {parameters(pyengine::cuda::name), call<pyengine::cuda::name>}}
#define PACKED_ENTRIES(bits)                                                                                          \
  ENTRY(maxsim_packed##bits##_32_64), ENTRY(maxsim_packed##bits##_64_64), ENTRY(maxsim_packed##bits##_256_64),        \
  ENTRY(maxsim_packed##bits##_32_128), ENTRY(maxsim_packed##bits##_64_128), ENTRY(maxsim_packed##bits##_256_128),     \
  ENTRY(maxsim_packed##bits##_32_steps), ENTRY(maxsim_packed##bits##_128_steps), ENTRY(maxsim_packed##bits##_32_both), \
  ENTRY(maxsim_packed##bits##_128_both), ENTRY(maxsim_measure_packed##bits)
std::map<std::string, Entry> kernels{
    ENTRY(filter_pools),
    ENTRY(tighten_ties),  ENTRY(tighten),       ENTRY(pack_pools),       ENTRY(select_best),    ENTRY(code_float32),  ENTRY(code_float16), ENTRY(code_bfloat16),
    ENTRY(code_queries),  ENTRY(dense_few),      ENTRY(dense_16),      ENTRY(dense_64),     ENTRY(dense_128),
    ENTRY(dense_16_float16), ENTRY(dense_64_float16), ENTRY(dense_128_float16),
    ENTRY(dense_16_bfloat16), ENTRY(dense_64_bfloat16), ENTRY(dense_128_bfloat16),
    ENTRY(dense_between), ENTRY(dense_between_float16), ENTRY(dense_between_bfloat16), ENTRY(dense_between_float32), ENTRY(dense_between_bits), ENTRY(count_before), ENTRY(dense_both),
    ENTRY(dense_16_sm90), ENTRY(dense_64_sm90), ENTRY(dense_128_sm90),
    ENTRY(dense_16_float16_sm90), ENTRY(dense_64_float16_sm90), ENTRY(dense_128_float16_sm90),
    ENTRY(dense_16_bfloat16_sm90), ENTRY(dense_64_bfloat16_sm90), ENTRY(dense_128_bfloat16_sm90),
    ENTRY(dense_16_float32), ENTRY(dense_64_float32), ENTRY(dense_128_float32), ENTRY(code_queries_float32),
    ENTRY(norms_float32), ENTRY(refine_bits),
    ENTRY(split_queries), ENTRY(dense_signs_4), ENTRY(dense_signs_64), ENTRY(dense_bits_8), ENTRY(dense_bits_16),
    ENTRY(code_queries_float16), ENTRY(code_queries_bfloat16), ENTRY(norms_float16), ENTRY(norms_bfloat16),
    ENTRY(refine_float32), ENTRY(refine_float16), ENTRY(refine_bfloat16), ENTRY(refine_int8),
    ENTRY(sparse_topk), ENTRY(sparse_topk_signed), ENTRY(sparse_refine_uint16_float32),
    ENTRY(sparse_refine_uint16_float16), ENTRY(sparse_refine_uint16_uint8), ENTRY(sparse_refine_int32_float32),
    ENTRY(sparse_refine_int32_float16), ENTRY(sparse_refine_int32_uint8), ENTRY(sliced_refine),
    ENTRY(maxsim_16_64),  ENTRY(maxsim_32_64),  ENTRY(maxsim_64_64),  ENTRY(maxsim_128_64),  ENTRY(maxsim_256_64),
    ENTRY(maxsim_16_128), ENTRY(maxsim_32_128), ENTRY(maxsim_64_128), ENTRY(maxsim_128_128), ENTRY(maxsim_256_128),
    ENTRY(maxsim_32_steps), ENTRY(maxsim_128_steps), ENTRY(maxsim_32_both), ENTRY(maxsim_128_both), ENTRY(maxsim_sum),
    ENTRY(maxsim_maxima_float32), ENTRY(maxsim_maxima_float16), ENTRY(maxsim_maxima_bfloat16),
    ENTRY(maxsim_maxima_int8), ENTRY(token_norms_float32), ENTRY(token_norms_float16), ENTRY(token_norms_bfloat16),
    ENTRY(token_norms_int8), ENTRY(token_norms_packed), ENTRY(maxsim_maxima_packed), ENTRY(maxsim_pack), ENTRY(maxsim_sm90),
    PACKED_ENTRIES(1), PACKED_ENTRIES(2), PACKED_ENTRIES(4),
};

std::map<std::string, int> told;  // "version", "devices", "major", "minor"; or an error, by the function that gives it
std::map<uint64_t, size_t> memory;
std::map<void*, int> allowed_shared;
struct Copy {
  CUdeviceptr to;
  const void* from;
  size_t n_bytes;
};
std::map<CUstream, std::vector<Copy>> under_way;
std::map<const uint8_t*, size_t> pinned;
std::mutex mutex;
std::string log_text, trouble;
int contexts = 0, held_contexts = 0;  // that are current, and that devices hold
pid_t user = 0;  // the process that has initialised it: of one forked from that it is not

int setting(const char* name, int otherwise) {
  const auto found = told.find(name);
  return found == told.end() ? otherwise : found->second;
}

CUresult outcome(const char* function) {
  if (contexts < 0) trouble = "a context was popped twice";
  return static_cast<CUresult>(setting(function, 0));
}

bool is_pinned(const void* from) {
  auto found = pinned.upper_bound(static_cast<const uint8_t*>(from));
  return found != pinned.begin() && (--found, from < found->first + found->second);
}

void arrive(CUstream stream) {
  for (const Copy& each : under_way[stream]) memcpy(reinterpret_cast<void*>(each.to), each.from, each.n_bytes);
  under_way[stream].clear();
}

bool held(uint64_t at, size_t n_bytes) {
  auto found = memory.upper_bound(at);
  return found != memory.begin() && (--found, at + n_bytes <= found->first + found->second);
}

}  // namespace

#define ANSWER(name) \
  if (const CUresult result = outcome(#name); result != CUDA_SUCCESS) return result

extern "C" {

void fake_tell(const char* name, int value) { told[name] = value; }

void fake_forget() {
  told.clear();
  log_text.clear();
  trouble.clear();
}

const char* fake_log() { return log_text.c_str(); }
const char* fake_trouble() { return trouble.c_str(); }
int fake_user() { return user; }
int fake_contexts() { return held_contexts; }
int64_t fake_allocated() { return static_cast<int64_t>(memory.size()); }

CUresult cuInit(unsigned) {
  ANSWER(cuInit);
  if (user != 0 && user != getpid()) return CUDA_ERROR_NOT_INITIALIZED;
  user = getpid();
  return CUDA_SUCCESS;
}
CUresult cuDriverGetVersion(int* version) { *version = setting("version", 13000); return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char** text) {
  *text = error == CUDA_ERROR_ILLEGAL_ADDRESS   ? "an illegal memory access was encountered"
          : error == CUDA_ERROR_NOT_INITIALIZED ? "initialization error"
                                                : "out of memory";
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int* count) { *count = setting("devices", 1); ANSWER(cuDeviceGetCount); return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice* device, int number) {
  *device = number;
  return user == getpid() ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}
CUresult cuDeviceGetName(char* name, int size, CUdevice) { snprintf(name, size, "Emulated"); return CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute which, CUdevice) {
  switch (which) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = setting("major", 9); return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = setting("minor", 0); return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = setting("shared", MOST_SHARED); return CUDA_SUCCESS;
    default: return CUDA_ERROR_INVALID_VALUE;
  }
}
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  ANSWER(cuDevicePrimaryCtxRetain);
  *context = nullptr;
  ++held_contexts;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { --held_contexts; return CUDA_SUCCESS; }
CUresult cuCtxPushCurrent_v2(CUcontext) {
  if (user != getpid()) return CUDA_ERROR_NOT_INITIALIZED;
  ++contexts;
  return CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent_v2(CUcontext*) { --contexts; return CUDA_SUCCESS; }
CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  *free = *total = static_cast<size_t>(setting("megabytes", 1024)) << 20;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice) { *pool = nullptr; return CUDA_SUCCESS; }
CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute which, void*) {
  return which == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute which, void* value) {
  const bool reserved = which == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
  if (!reserved && which != CU_MEMPOOL_ATTR_USED_MEM_CURRENT) return CUDA_ERROR_INVALID_VALUE;
  *static_cast<uint64_t*>(value) = static_cast<uint64_t>(reserved ? setting("kept", 0) : 0) << 20;  // megabytes
  return CUDA_SUCCESS;
}

CUresult cuMemAllocAsync(CUdeviceptr* pointer, size_t n_bytes, CUstream) {
  const std::lock_guard<std::mutex> alone(mutex);
  ANSWER(cuMemAllocAsync);
  uint8_t* block = static_cast<uint8_t*>(aligned_alloc(FENCE, (n_bytes + 3 * FENCE - 1) / FENCE * FENCE));
  memset(block, POST, n_bytes + 2 * FENCE);
  memset(block + FENCE, 0xFF, n_bytes);
  *pointer = reinterpret_cast<uint64_t>(block + FENCE);
  memory[*pointer] = n_bytes;
  return CUDA_SUCCESS;
}

CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream stream) {
  const std::lock_guard<std::mutex> alone(mutex);
  arrive(stream);
  const auto found = memory.find(pointer);
  if (found == memory.end()) return CUDA_ERROR_INVALID_VALUE;
  uint8_t* block = reinterpret_cast<uint8_t*>(pointer) - FENCE;
  for (size_t i = 0; i < FENCE; ++i)
    if (block[i] != POST || block[FENCE + found->second + i] != POST) trouble = "a write beyond an allocation";
  free(block);
  memory.erase(found);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t n_bytes, CUstream stream) {
  const std::lock_guard<std::mutex> alone(mutex);
  if (!held(to, n_bytes)) return CUDA_ERROR_INVALID_VALUE;
  if (is_pinned(from) || (setting("coherent", 0) && n_bytes > STAGED))
    return under_way[stream].push_back({to, from, n_bytes}), CUDA_SUCCESS;
  memcpy(reinterpret_cast<void*>(to), from, n_bytes);
  return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t n_bytes, CUstream stream) {
  const std::lock_guard<std::mutex> alone(mutex);
  arrive(stream);
  if (!held(from, n_bytes)) return CUDA_ERROR_INVALID_VALUE;
  memcpy(to, reinterpret_cast<void*>(from), n_bytes);
  return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
  const std::lock_guard<std::mutex> alone(mutex);
  ANSWER(cuStreamSynchronize);
  arrive(stream);
  return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
  static uint64_t made = 4096;
  *stream = reinterpret_cast<CUstream>(++made);
  return flags == CU_STREAM_NON_BLOCKING ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuStreamDestroy_v2(CUstream) { return CUDA_SUCCESS; }

CUresult cuMemHostAlloc(void** memory, size_t n_bytes, unsigned) {
  const std::lock_guard<std::mutex> alone(mutex);
  ANSWER(cuMemHostAlloc);
  *memory = memset(malloc(n_bytes), 0xFF, n_bytes);
  pinned[static_cast<uint8_t*>(*memory)] = n_bytes;
  return CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void* memory) {
  const std::lock_guard<std::mutex> alone(mutex);
  pinned.erase(static_cast<uint8_t*>(memory));
  free(memory);
  return CUDA_SUCCESS;
}

CUresult cuPointerGetAttribute(void* value, CUpointer_attribute which, CUdeviceptr pointer) {
  const std::lock_guard<std::mutex> alone(mutex);
  if (which != CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL || !held(pointer, 1)) return CUDA_ERROR_INVALID_VALUE;
  *static_cast<int*>(value) = setting("ordinal", 0);
  return CUDA_SUCCESS;
}

CUresult cuLibraryLoadData(CUlibrary* library, const void* code, CUjit_option*, void**, unsigned, CUlibraryOption*, void**,
                           unsigned) {
  ANSWER(cuLibraryLoadData);
  uint32_t magic;
  memcpy(&magic, code, sizeof magic);
  *library = nullptr;
  return magic == 0xBA55ED50 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}
CUresult cuLibraryUnload(CUlibrary) { return CUDA_SUCCESS; }

CUresult cuLibraryGetKernel(CUkernel* kernel, CUlibrary, const char* name) {
  const auto found = kernels.find(name);
  if (found == kernels.end()) return CUDA_ERROR_NOT_FOUND;
  *kernel = reinterpret_cast<CUkernel>(&*found);
  return CUDA_SUCCESS;
}

CUresult cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t* offset, size_t* size) {
  const auto* entry = reinterpret_cast<const std::pair<const std::string, Entry>*>(kernel);
  if (index >= entry->second.parameters.size()) return CUDA_ERROR_INVALID_VALUE;
  *offset = 0;  // nobody asks
  *size = entry->second.parameters[index];
  return CUDA_SUCCESS;
}

// What cuda.h demands of a map, for the only kind that is made here.
CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* from, const cuuint64_t* size,
                                const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t* every,
                                CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion lines,
                                CUtensorMapFloatOOBfill fill) {
  ANSWER(cuTensorMapEncodeTiled);
  if (contexts < 1) return CUDA_ERROR_INVALID_CONTEXT;
  const uint64_t address = reinterpret_cast<uint64_t>(from), limit = uint64_t{1} << 32;
  if (reinterpret_cast<uint64_t>(map) % 64 != 0 || type != CU_TENSOR_MAP_DATA_TYPE_UINT8 || rank != 2 || address % 16 != 0 ||
      size[0] == 0 || size[0] > limit || size[1] == 0 || size[1] > limit || strides[0] % 16 != 0 ||
      strides[0] >= uint64_t{1} << 40 || strides[0] < size[0] || box[0] != 128 || box[1] == 0 || box[1] > 256 ||
      every[0] != 1 || every[1] != 1 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
      swizzle != CU_TENSOR_MAP_SWIZZLE_128B || lines > CU_TENSOR_MAP_L2_PROMOTION_L2_256B ||
      fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
    return CUDA_ERROR_INVALID_VALUE;
  const emulator::Box made{emulator::BOX_MAGIC, static_cast<const uint8_t*>(from), size[0], size[1], strides[0], box[0], box[1]};
  memcpy(map, &made, sizeof made);
  return CUDA_SUCCESS;
}

CUresult cuKernelSetAttribute(CUfunction_attribute which, int value, CUkernel kernel, CUdevice) {
  if (which != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value > setting("shared", MOST_SHARED)) return CUDA_ERROR_INVALID_VALUE;
  allowed_shared[kernel] = value;
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                        unsigned shared, CUstream stream, void** arguments, void**) {
  const std::lock_guard<std::mutex> alone(mutex);
  const auto* entry = reinterpret_cast<const std::pair<const std::string, Entry>*>(function);
  arrive(stream);
  log_text += entry->first + " grid " + std::to_string(x) + " " + std::to_string(y) + " threads " + std::to_string(threads) +
              " shared " + std::to_string(shared) + " stream " + std::to_string(reinterpret_cast<uint64_t>(stream)) + "\n";
  ANSWER(cuLaunchKernel);
  if (contexts < 1 || x == 0 || y == 0 || z != 1 || threads % 32 != 0 || threads == 0 || threads > 1024 ||
      (shared > PLAIN_SHARED && static_cast<int>(shared) > allowed_shared[function]))
    return CUDA_ERROR_INVALID_VALUE;
  try {
    emulator::run({x, y, 1}, threads, shared, [&] { entry->second.call(arguments); });
  } catch (const std::runtime_error& error) {
    trouble = entry->first + ": " + error.what();
    return CUDA_ERROR_LAUNCH_FAILED;
  }
  return CUDA_SUCCESS;
}

}  // extern "C"
