// A table of many numbers, of which most are 0: memory is taken where one is not.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace pyengine {

template <class T>
class PagedTable {
 public:
  explicit PagedTable(int64_t n) : pages_((n + PAGE - 1) / PAGE, zeros()), owned_(pages_.size()) {}

  T operator[](int64_t i) const { return pages_[i / PAGE][i % PAGE]; }

  T& set(int64_t i) {
    const int64_t page = i / PAGE;
    if (!owned_[page]) owned_[page].reset(new T[PAGE]()), pages_[page] = owned_[page].get();
    return owned_[page][i % PAGE];
  }

 private:
  static constexpr int64_t PAGE = 1 << 15;

  static const T* zeros() {
    static const T page[PAGE] = {};
    return page;
  }

  std::vector<const T*> pages_;
  std::vector<std::unique_ptr<T[]>> owned_;
};

}  // namespace pyengine
