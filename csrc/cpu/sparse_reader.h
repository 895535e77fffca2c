// Reading postings: what the terms of many queries add to the sums of a window of documents.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/sparse_queries.h"

namespace pyengine {

// The postings of a term in a window: [first, first + n) of its list.
struct Chunk {
  uint32_t first, n;
};

// Where a query stands in a rare list: its next posting, in `window`, or NONE.
struct RareRead {
  static constexpr uint32_t NONE = UINT32_MAX;
  uint32_t at, window;
};

// Of one thread: where it stands in the postings of a group of windows.
struct ReaderState {
  int64_t first = 0;          // window
  std::vector<Chunk> chunks;  // [windows][list terms of all queries]
  std::vector<RareRead> rare;  // [rare terms of all queries]
};

// The terms of all queries in one of the postings, one query after another.
class PostingReader {
 public:
  explicit PostingReader(const KernelTable& table) : table_(table) {}

  // From here on it reads the postings of that number.
  void gather(const std::vector<SparseQuery>& queries, size_t postings);

  // The order in which queries are best read: those that share columns follow one another, while these are in a cache.
  const std::vector<size_t>& order() const { return order_; }
  const std::vector<QueryTerm>& columns(size_t query) const { return *spans_[query].columns; }

  // Before the windows first .. last - 1 are read.
  void find(ReaderState& state, int64_t first, int64_t last) const;
  // Add the lists and rare postings of a query in a window, which rises. Whether it has terms of these kinds.
  bool add(ReaderState& state, int64_t window, size_t query, int16_t* sums) const;
  void add_columns(size_t query, int64_t window, int16_t* sums) const;

 private:
  // Where a query's terms are.
  struct Span {
    int64_t list, last_list, rare, last_rare;
    const std::vector<QueryTerm>* columns;
  };

  void find_chunks(ReaderState& state, int64_t last) const;
  void find_rare(ReaderState& state) const;

  const KernelTable& table_;
  std::vector<QueryTerm> lists_, rare_;
  std::vector<size_t> order_;  // of the queries
  std::vector<Span> spans_;    // [query]
};

}  // namespace pyengine
