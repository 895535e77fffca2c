// Threads that live for one call: nothing of ours survives a fork.
#pragma once

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace pyengine {

// Default rounding and no flushing of denormals while the specification is computed, whatever the caller has set.
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment() { std::fegetenv(&saved_), std::fesetenv(FE_DFL_ENV); }
  ~DefaultFloatEnvironment() { std::fesetenv(&saved_); }
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
  std::fenv_t saved_;
};

// Called now and then on the calling thread; throws to stop the work.
using Interrupt = std::function<void()>;

// body(item, thread) for every item, handed out in order to `threads` threads, the caller's among them. The first
// exception stops the others and is thrown to the caller.
template <class Body>
void parallel_for(int64_t items, int threads, const Interrupt& interrupt, const Body& body) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> stop{false};
  std::exception_ptr error;
  std::mutex error_lock;
  auto work = [&](int thread) {
    const DefaultFloatEnvironment environment;
    auto last_check = std::chrono::steady_clock::now();
    try {
      for (int64_t item; !stop && (item = next++) < items;) {
        body(item, thread);
        if (thread != 0) continue;
        const auto now = std::chrono::steady_clock::now();
        if (now - last_check > std::chrono::milliseconds(50)) interrupt(), last_check = now;
      }
    } catch (...) {
      const std::lock_guard<std::mutex> hold(error_lock);
      if (!error) error = std::current_exception();
      stop = true;
    }
  };
  std::vector<std::thread> helpers;
  const int helpers_wanted = static_cast<int>(std::min<int64_t>(threads, items)) - 1;
  helpers.reserve(std::max(0, helpers_wanted));
  try {
    for (int thread = 1; thread <= helpers_wanted; ++thread) helpers.emplace_back(work, thread);
  } catch (...) {
    // No more threads to be had: the ones that started, and this one, do all the work.
  }
  work(0);
  for (std::thread& helper : helpers) helper.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace pyengine
