// Vectors whose data starts at a cache line, so that no 64-byte load touches two.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace pyengine {

template <class T>
struct CacheLineAllocator {
  using value_type = T;
  static constexpr std::align_val_t LINE{64};

  CacheLineAllocator() = default;
  template <class U>
  CacheLineAllocator(const CacheLineAllocator<U>&) {}

  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), LINE)); }
  void deallocate(T* p, size_t) { ::operator delete(p, LINE); }
  template <class U>
  bool operator==(const CacheLineAllocator<U>&) const { return true; }
  template <class U>
  bool operator!=(const CacheLineAllocator<U>&) const { return false; }
};

template <class T>
using AlignedVector = std::vector<T, CacheLineAllocator<T>>;

}  // namespace pyengine
