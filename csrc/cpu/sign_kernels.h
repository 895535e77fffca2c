// Popcounts of many pairs: one function per instruction set.
#pragma once

#include "cpu/kernels.h"

namespace pyengine {

constexpr int SIGN_PANEL = 8;  // queries interleaved by words

struct SignBlock {
  const uint8_t* docs;  // [count] rows of bits, `stride` bytes apart
  size_t stride;
  int count, words;        // words of 64 bits in a row
  const uint64_t* rows;    // queries [n][words]
  const uint64_t* panels;  // the same as [n / 8][words][8]
  int n;                   // at most MAX_PANELS * PANEL
  const int64_t* most;     // [n padded to 8] a pair is a hit where its popcount is at most this; -1 in the padding
};

// Writes the hits, whose `product` is the popcount of doc xor query, and returns how many.
using ScanSigns = size_t (*)(const SignBlock& block, Hit* hits);

// The fastest of this machine that goes with the table in use.
ScanSigns sign_kernel(const KernelTable& table);

size_t scan_signs_baseline(const SignBlock& block, Hit* hits);
#if defined(__x86_64__)
size_t scan_signs_popcnt(const SignBlock& block, Hit* hits);
size_t scan_signs_avx512(const SignBlock& block, Hit* hits);
#endif

}  // namespace pyengine
