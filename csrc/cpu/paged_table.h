// A table of many numbers, of which most are 0: memory is taken where one is not.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace pyengine {

// Of so many that pages of which each has a few would be most of them: hashed, with linear probing.
template <class T>
class HashedTable {
 public:
  T operator[](int64_t i) const {
    const size_t at = find(static_cast<int32_t>(i));
    return keys_[at] == NONE ? T() : values_[at];
  }

  T& set(int64_t i) {
    if (2 * (used_ + 1) > keys_.size()) grow();
    const int32_t key = static_cast<int32_t>(i);
    const size_t at = find(key);
    if (keys_[at] == NONE) keys_[at] = key, ++used_;
    return values_[at];
  }

 private:
  static constexpr int32_t NONE = -1;

  size_t find(int32_t key) const {
    size_t at = static_cast<uint32_t>(key) * uint64_t{0x9e3779b97f4a7c15} >> shift_;
    while (keys_[at] != key && keys_[at] != NONE) at = (at + 1) & (keys_.size() - 1);
    return at;
  }

  void grow() {
    HashedTable larger;
    larger.shift_ = shift_ - 1;
    larger.keys_.assign(2 * keys_.size(), NONE), larger.values_.assign(2 * keys_.size(), T());
    for (size_t at = 0; at < keys_.size(); ++at)
      if (keys_[at] != NONE) larger.set(keys_[at]) = values_[at];
    *this = std::move(larger);
  }

  int shift_ = 60;  // 64 less the bits of the size
  size_t used_ = 0;
  std::vector<int32_t> keys_ = std::vector<int32_t>(16, NONE);
  std::vector<T> values_ = std::vector<T>(16);
};

template <class T>
class PagedTable {
 public:
  explicit PagedTable(int64_t n)
      : hashed_(n > MOST_PAGED), pages_(hashed_ ? 0 : (n + PAGE - 1) / PAGE, zeros()), owned_(pages_.size()) {}

  T operator[](int64_t i) const { return hashed_ ? scattered_[i] : pages_[i / PAGE][i % PAGE]; }

  T& set(int64_t i) {
    if (hashed_) return scattered_.set(i);
    const int64_t page = i / PAGE;
    if (!owned_[page]) owned_[page].reset(new T[PAGE]()), pages_[page] = owned_[page].get();
    return owned_[page][i % PAGE];
  }

 private:
  static constexpr int64_t PAGE = 1 << 12, MOST_PAGED = 1 << 22;

  static const T* zeros() {
    static const T page[PAGE] = {};
    return page;
  }

  bool hashed_;
  std::vector<const T*> pages_;
  std::vector<std::unique_ptr<T[]>> owned_;
  HashedTable<T> scattered_;
};

}  // namespace pyengine
