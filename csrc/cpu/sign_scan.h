// Sign vectors against one bit plane, as in Hamming search: the product of their codes is dims - 2 popcount(a xor b).
#pragma once

#include <vector>

#include "cpu/dense.h"

namespace pyengine {

// Queries as bits, where all of them are sign vectors and the corpus is scanned as one whole bit plane.
class SignQueries {
 public:
  SignQueries(const Corpus& corpus, const Queries& queries, int64_t first, int64_t count);

  bool empty() const { return count_ == 0; }

  // KernelTable::scan_panels for queries [first, first + n), first a multiple of 8, whose terms the block holds. The
  // tile's codes are rows of bits, `levels` is the KernelTable's: what a sign was coded as.
  size_t scan(const DocTile& tile, const QueryBlock& block, int64_t first, int n, int levels, Hit* hits) const;

 private:
  int dims_, words_;
  int64_t count_ = 0;
  std::vector<uint64_t> rows_, panels_;  // [count][words]; [count / 8][words][8]
};

}  // namespace pyengine
