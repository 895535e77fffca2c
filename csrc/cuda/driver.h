// The NVIDIA driver, found when it is first asked for: nothing of CUDA is linked. Every parameter of a kernel is one word of
// eight bytes, a pointer or an int64, or a tensor map of sixteen, so that a launch needs no knowledge of its kernel.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace pyengine::cuda {

struct Image {  // a fat binary that is part of the extension
  const char* name;
  const void* bytes;
  int capability;  // of the only GPUs that it is for; 0: it is for all
};
const std::vector<Image>& images();  // empty where the build found no CUDA compiler

struct Functions;  // of the driver, by name

// Raises std::runtime_error with a sentence that says why there is none, or none that will do.
class Driver {
 public:
  explicit Driver(const std::string& library);
  ~Driver();
  int count() const { return count_; }
  int handle(int device) const;
  int capability(int device) const;    // 90 is 9.0
  int shared_bytes(int device) const;  // of a block at most
  const Functions& functions() const { return *functions_; }
  void check(int result, const char* what) const;

 private:
  void* handle_;
  std::unique_ptr<Functions> functions_;
  int count_ = 0;
};

using Size = std::array<unsigned, 3>;
using TensorMap = std::array<uint64_t, 16>;

// A GPU, in its primary context, which it shares with torch and others.
class Device {
 public:
  Device(std::shared_ptr<Driver> driver, int number);
  ~Device();
  int number() const { return number_; }
  int capability() const { return driver_->capability(number_); }
  int shared_bytes() const { return driver_->shared_bytes(number_); }
  std::string name() const;
  int64_t free_bytes() const;  // with those that the pool keeps for what comes next
  uint64_t allocate(int64_t n_bytes, uint64_t stream) const;
  void release(uint64_t pointer, uint64_t stream) const noexcept;
  int owner_of(uint64_t pointer) const;  // the number of the GPU whose memory that is
  void copy_in(uint64_t to, const void* from, int64_t n_bytes, uint64_t stream) const;
  void copy_out(void* to, uint64_t from, int64_t n_bytes, uint64_t stream) const;  // waits for the stream
  uint64_t make_stream() const;  // which waits for no other
  void drop_stream(uint64_t stream) const noexcept;
  void wait(uint64_t stream) const;
  void* allocate_pinned(int64_t n_bytes) const;  // memory of the host, from which copies are made while others go on
  void release_pinned(void* memory) const noexcept;
  // Of `rows` of `width` bytes, `stride` apart, for copies of boxes of `box_rows` times 128 bytes to shared memory, their
  // pieces of 16 bytes permuted (the 128-byte swizzle), with zeros for what lies beyond.
  TensorMap tensor_map(uint64_t pointer, uint64_t width, uint64_t rows, uint64_t stride, unsigned box_rows) const;
  // `words` are those of all arguments, one after another.
  void launch(const std::string& kernel, Size grid, unsigned threads, unsigned shared, uint64_t stream,
              std::vector<uint64_t> words);

 private:
  struct Kernel {
    void* handle;
    std::vector<size_t> parameters;  // the words of each
    size_t words;                    // of all
    unsigned shared;                 // bytes that it has been allowed
  };
  Device(std::shared_ptr<Driver> driver, int number, void* context);  // which it holds, and nothing loaded
  Kernel& kernel(const std::string& name);

  std::shared_ptr<Driver> driver_;
  int number_, handle_;
  void *context_, *pool_ = nullptr;
  std::vector<void*> libraries_;
  std::map<std::string, Kernel> kernels_;
  std::mutex mutex_;
};

}  // namespace pyengine::cuda
