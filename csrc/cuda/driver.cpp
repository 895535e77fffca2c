#include "cuda/driver.h"

#include <dlfcn.h>

#include <stdexcept>

namespace pyengine::cuda {
namespace {

constexpr int NOT_INITIALIZED = 3, NO_DEVICE = 100, NOT_FOUND = 500;  // CUDA_ERROR_...
constexpr int OLDEST = 13000;                            // what the fat binaries are made by
constexpr int MAJOR = 75, MINOR = 76, MOST_SHARED = 97;  // attributes of a device
constexpr int SHARED_BYTES = 8;                          // attribute of a kernel
constexpr int RELEASE_THRESHOLD = 4, RESERVED = 5, USED = 7;  // attributes of a memory pool
constexpr int ORDINAL = 9;                               // attribute of a pointer
constexpr unsigned NON_BLOCKING = 1;                     // a stream that the default one does not wait for
constexpr int BYTES = 0, NO_INTERLEAVE = 0, SWIZZLE_128 = 3, LINES_256 = 3, ZEROS = 0;  // of a tensor map
const char* const FORKED =
    ", as where a process was forked from one that had used CUDA: start it by 'spawn' or 'forkserver'";
const char* const UNAVAILABLE = "CUDA backend unavailable: ";

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

// Declared here, since a build needs no headers of CUDA. Handles are pointers, device memory is uint64.
struct Functions {
  int (*cuInit)(unsigned);
  int (*cuDriverGetVersion)(int*);
  int (*cuGetErrorString)(int, const char**);
  int (*cuDeviceGetCount)(int*);
  int (*cuDeviceGet)(int*, int);
  int (*cuDeviceGetName)(char*, int, int);
  int (*cuDeviceGetAttribute)(int*, int, int);
  int (*cuDevicePrimaryCtxRetain)(void**, int);
  int (*cuDevicePrimaryCtxRelease_v2)(int);
  int (*cuCtxPushCurrent_v2)(void*);
  int (*cuCtxPopCurrent_v2)(void**);
  int (*cuMemGetInfo_v2)(size_t*, size_t*);
  int (*cuDeviceGetDefaultMemPool)(void**, int);
  int (*cuMemPoolSetAttribute)(void*, int, void*);
  int (*cuMemPoolGetAttribute)(void*, int, void*);
  int (*cuMemAllocAsync)(uint64_t*, size_t, void*);
  int (*cuMemFreeAsync)(uint64_t, void*);
  int (*cuMemcpyHtoDAsync_v2)(uint64_t, const void*, size_t, void*);
  int (*cuMemcpyDtoHAsync_v2)(void*, uint64_t, size_t, void*);
  int (*cuStreamSynchronize)(void*);
  int (*cuStreamCreate)(void**, unsigned);
  int (*cuStreamDestroy_v2)(void*);
  int (*cuMemHostAlloc)(void**, size_t, unsigned);
  int (*cuMemFreeHost)(void*);
  int (*cuPointerGetAttribute)(void*, int, uint64_t);
  int (*cuLibraryLoadData)(void**, const void*, void*, void*, unsigned, void*, void*, unsigned);
  int (*cuLibraryUnload)(void*);
  int (*cuLibraryGetKernel)(void**, void*, const char*);
  int (*cuKernelGetParamInfo)(void*, size_t, size_t*, size_t*);
  int (*cuKernelSetAttribute)(int, int, void*, int);
  int (*cuLaunchKernel)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**,
                        void**);
  int (*cuTensorMapEncodeTiled)(void*, int, uint32_t, void*, const uint64_t*, const uint64_t*, const uint32_t*,
                                const uint32_t*, int, int, int, int);
};

namespace {

template <class F>
void find(void* handle, const std::string& library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(handle, name));
  if (!function)
    throw std::runtime_error(std::string(UNAVAILABLE) + "the NVIDIA driver (" + library + ") has no function " + name +
                             ": these kernels need version 580 or newer");
}

void find_all(void* handle, const std::string& library, Functions& to) {
#define FIND(name) find(handle, library, #name, to.name)
  FIND(cuInit);
  FIND(cuDriverGetVersion);
  FIND(cuGetErrorString);
  FIND(cuDeviceGetCount);
  FIND(cuDeviceGet);
  FIND(cuDeviceGetName);
  FIND(cuDeviceGetAttribute);
  FIND(cuDevicePrimaryCtxRetain);
  FIND(cuDevicePrimaryCtxRelease_v2);
  FIND(cuCtxPushCurrent_v2);
  FIND(cuCtxPopCurrent_v2);
  FIND(cuMemGetInfo_v2);
  FIND(cuDeviceGetDefaultMemPool);
  FIND(cuMemPoolSetAttribute);
  FIND(cuMemPoolGetAttribute);
  FIND(cuMemAllocAsync);
  FIND(cuMemFreeAsync);
  FIND(cuMemcpyHtoDAsync_v2);
  FIND(cuMemcpyDtoHAsync_v2);
  FIND(cuStreamSynchronize);
  FIND(cuStreamCreate);
  FIND(cuStreamDestroy_v2);
  FIND(cuMemHostAlloc);
  FIND(cuMemFreeHost);
  FIND(cuPointerGetAttribute);
  FIND(cuLibraryLoadData);
  FIND(cuLibraryUnload);
  FIND(cuLibraryGetKernel);
  FIND(cuKernelGetParamInfo);
  FIND(cuKernelSetAttribute);
  FIND(cuLaunchKernel);
  FIND(cuTensorMapEncodeTiled);
#undef FIND
}

void* stream_of(uint64_t stream) { return reinterpret_cast<void*>(stream); }

// Makes a context current for as long as it lives, and the one before it current again.
class Current {
 public:
  Current(const Driver& driver, void* context) : driver_(driver) {
    driver.check(driver.functions().cuCtxPushCurrent_v2(context), "cuCtxPushCurrent");
  }
  ~Current() {
    void* unused;
    driver_.functions().cuCtxPopCurrent_v2(&unused);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  const Driver& driver_;
};

}  // namespace

Driver::Driver(const std::string& library)
    : handle_(dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL)), functions_(std::make_unique<Functions>()) {
  if (!handle_)
    throw std::runtime_error(std::string(UNAVAILABLE) + "cannot load the NVIDIA driver (" + library + "): " + dlerror());
  find(handle_, library, "cuDriverGetVersion", functions_->cuDriverGetVersion);
  int version = 0;
  functions_->cuDriverGetVersion(&version);
  if (version < OLDEST)
    throw std::runtime_error(std::string(UNAVAILABLE) + "the NVIDIA driver is made for CUDA " + version_text(version) +
                             ", and these kernels need " + version_text(OLDEST) + ": version 580 or newer");
  find_all(handle_, library, *functions_);
  int result = functions_->cuInit(0);
  if (result == 0) result = functions_->cuDeviceGetCount(&count_);
  if (result == NO_DEVICE || (result == 0 && count_ == 0))
    throw std::runtime_error(std::string(UNAVAILABLE) + "the NVIDIA driver finds no GPU");
  try {
    check(result, "cuInit");
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(UNAVAILABLE + std::string(error.what()));
  }
}

Driver::~Driver() = default;  // the library stays: others may have it too

void Driver::check(int result, const char* what) const {
  if (result == 0) return;
  const char* text = nullptr;
  functions_->cuGetErrorString(result, &text);
  throw std::runtime_error(std::string(what) + " failed: " + (text ? text : "unknown error") + " (CUDA error " +
                           std::to_string(result) + ")" + (result == NOT_INITIALIZED ? FORKED : ""));
}

int Driver::handle(int device) const {
  int found = 0;
  check(functions_->cuDeviceGet(&found, device), "cuDeviceGet");
  return found;
}

int Driver::capability(int device) const {
  int major = 0, minor = 0;
  check(functions_->cuDeviceGetAttribute(&major, MAJOR, handle(device)), "cuDeviceGetAttribute");
  check(functions_->cuDeviceGetAttribute(&minor, MINOR, handle(device)), "cuDeviceGetAttribute");
  return 10 * major + minor;
}

int Driver::shared_bytes(int device) const {
  int most = 0;
  check(functions_->cuDeviceGetAttribute(&most, MOST_SHARED, handle(device)), "cuDeviceGetAttribute");
  return most;
}

Device::Device(std::shared_ptr<Driver> driver, int number, void* context)
    : driver_(std::move(driver)), number_(number), handle_(driver_->handle(number)), context_(context) {
  driver_->check(driver_->functions().cuDevicePrimaryCtxRetain(&context_, handle_), "cuDevicePrimaryCtxRetain");
}

// What fails from here on is undone by the destructor: there is a Device by now.
Device::Device(std::shared_ptr<Driver> driver, int number) : Device(std::move(driver), number, nullptr) {
  const Functions& cu = driver_->functions();
  Current current(*driver_, context_);
  uint64_t keep = UINT64_MAX;  // what a search gives back is there for the next one
  driver_->check(cu.cuDeviceGetDefaultMemPool(&pool_, handle_), "cuDeviceGetDefaultMemPool");
  driver_->check(cu.cuMemPoolSetAttribute(pool_, RELEASE_THRESHOLD, &keep), "cuMemPoolSetAttribute");
  for (const Image& image : images()) {
    if (image.capability != 0 && image.capability != capability()) continue;
    void* library;
    driver_->check(cu.cuLibraryLoadData(&library, image.bytes, nullptr, nullptr, 0, nullptr, nullptr, 0),
                   "cuLibraryLoadData");
    libraries_.push_back(library);
  }
}

Device::~Device() {
  for (void* library : libraries_) driver_->functions().cuLibraryUnload(library);
  driver_->functions().cuDevicePrimaryCtxRelease_v2(handle_);
}

std::string Device::name() const {
  char text[256] = "";
  driver_->check(driver_->functions().cuDeviceGetName(text, sizeof text, handle_), "cuDeviceGetName");
  return text;
}

int64_t Device::free_bytes() const {
  Current current(*driver_, context_);
  size_t free = 0, total = 0;
  driver_->check(driver_->functions().cuMemGetInfo_v2(&free, &total), "cuMemGetInfo");
  uint64_t reserved = 0, used = 0;
  driver_->check(driver_->functions().cuMemPoolGetAttribute(pool_, RESERVED, &reserved), "cuMemPoolGetAttribute");
  driver_->check(driver_->functions().cuMemPoolGetAttribute(pool_, USED, &used), "cuMemPoolGetAttribute");
  return static_cast<int64_t>(free + reserved - used);
}

uint64_t Device::allocate(int64_t n_bytes, uint64_t stream) const {
  Current current(*driver_, context_);
  uint64_t pointer = 0;
  const std::string what = "an allocation of " + std::to_string(n_bytes) + " bytes on the GPU";
  driver_->check(driver_->functions().cuMemAllocAsync(&pointer, n_bytes, stream_of(stream)), what.c_str());
  return pointer;
}

void Device::release(uint64_t pointer, uint64_t stream) const noexcept {
  try {
    Current current(*driver_, context_);
    driver_->functions().cuMemFreeAsync(pointer, stream_of(stream));
  } catch (const std::runtime_error&) {  // at the end of the process the driver may be gone, and the memory with it
  }
}

int Device::owner_of(uint64_t pointer) const {
  Current current(*driver_, context_);
  int ordinal = 0;
  driver_->check(driver_->functions().cuPointerGetAttribute(&ordinal, ORDINAL, pointer), "cuPointerGetAttribute");
  return ordinal;
}

void Device::copy_in(uint64_t to, const void* from, int64_t n_bytes, uint64_t stream) const {
  if (n_bytes == 0) return;
  Current current(*driver_, context_);
  driver_->check(driver_->functions().cuMemcpyHtoDAsync_v2(to, from, n_bytes, stream_of(stream)), "a copy to the GPU");
}

void Device::copy_out(void* to, uint64_t from, int64_t n_bytes, uint64_t stream) const {
  const Functions& cu = driver_->functions();
  Current current(*driver_, context_);
  if (n_bytes > 0)
    driver_->check(cu.cuMemcpyDtoHAsync_v2(to, from, n_bytes, stream_of(stream)), "a copy from the GPU");
  driver_->check(cu.cuStreamSynchronize(stream_of(stream)), "cuStreamSynchronize");
}

uint64_t Device::make_stream() const {
  Current current(*driver_, context_);
  void* stream = nullptr;
  driver_->check(driver_->functions().cuStreamCreate(&stream, NON_BLOCKING), "cuStreamCreate");
  return reinterpret_cast<uint64_t>(stream);
}

void Device::drop_stream(uint64_t stream) const noexcept {
  try {
    Current current(*driver_, context_);
    driver_->functions().cuStreamDestroy_v2(stream_of(stream));
  } catch (const std::runtime_error&) {  // as in release
  }
}

void Device::wait(uint64_t stream) const {
  Current current(*driver_, context_);
  driver_->check(driver_->functions().cuStreamSynchronize(stream_of(stream)), "cuStreamSynchronize");
}

void* Device::allocate_pinned(int64_t n_bytes) const {
  Current current(*driver_, context_);
  void* memory = nullptr;
  const std::string what = "an allocation of " + std::to_string(n_bytes) + " pinned bytes";
  driver_->check(driver_->functions().cuMemHostAlloc(&memory, n_bytes, 0), what.c_str());
  return memory;
}

void Device::release_pinned(void* memory) const noexcept {
  try {
    Current current(*driver_, context_);
    driver_->functions().cuMemFreeHost(memory);
  } catch (const std::runtime_error&) {  // as in release
  }
}

Device::Kernel& Device::kernel(const std::string& name) {
  const auto known = kernels_.find(name);
  if (known != kernels_.end()) return known->second;
  const Functions& cu = driver_->functions();
  for (void* library : libraries_) {
    Kernel found{nullptr, {}, 0, 0};
    const int result = cu.cuLibraryGetKernel(&found.handle, library, name.c_str());
    if (result == NOT_FOUND) continue;
    driver_->check(result, ("loading " + name).c_str());
    size_t offset, size;
    while (cu.cuKernelGetParamInfo(found.handle, found.parameters.size(), &offset, &size) == 0) {
      found.parameters.push_back(size / sizeof(uint64_t));
      found.words += found.parameters.back();
    }
    return kernels_.emplace(name, found).first->second;
  }
  throw std::runtime_error("no kernel is called " + name);
}

TensorMap Device::tensor_map(uint64_t pointer, uint64_t width, uint64_t rows, uint64_t stride,
                             unsigned box_rows) const {
  Current current(*driver_, context_);
  alignas(64) TensorMap map;
  const uint64_t size[] = {width, rows};
  const uint32_t box[] = {128, box_rows}, every[] = {1, 1};
  driver_->check(driver_->functions().cuTensorMapEncodeTiled(map.data(), BYTES, 2, reinterpret_cast<void*>(pointer), size,
                                                             &stride, box, every, NO_INTERLEAVE, SWIZZLE_128, LINES_256,
                                                             ZEROS),
                 "cuTensorMapEncodeTiled");
  return map;
}

void Device::launch(const std::string& name, Size grid, unsigned threads, unsigned shared, uint64_t stream,
                    std::vector<uint64_t> words) {
  const Functions& cu = driver_->functions();
  Current current(*driver_, context_);
  void* handle;
  std::vector<void*> places;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    Kernel& found = kernel(name);
    if (words.size() != found.words)
      throw std::runtime_error(name + " takes " + std::to_string(found.words) + " words of arguments; got " +
                               std::to_string(words.size()));
    uint64_t* word = words.data();
    for (const size_t own : found.parameters) {
      places.push_back(word);
      word += own;
    }
    if (shared > found.shared) {  // without asking it is 48 KB, less what the kernel has of its own
      driver_->check(cu.cuKernelSetAttribute(SHARED_BYTES, static_cast<int>(shared), found.handle, handle_),
                     ("asking for " + std::to_string(shared) + " bytes of shared memory for " + name).c_str());
      found.shared = shared;
    }
    handle = found.handle;
  }
  driver_->check(cu.cuLaunchKernel(handle, grid[0], grid[1], grid[2], threads, 1, 1, shared, stream_of(stream),
                                   places.data(), nullptr),
                 ("the launch of " + name).c_str());
}

}  // namespace pyengine::cuda
