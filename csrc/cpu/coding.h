// Coding rows while they are copied: what building an index does.
#pragma once

#include "cpu/parallel.h"

namespace pyengine {

// Where n coded rows go.
struct CodedRows {
  float* rows = nullptr;       // [n, dim] a copy; null where none is wanted
  double* norms = nullptr;     // [n] by the specification: not finite where the row is not
  uint8_t* codes = nullptr;    // [n, dim padded to DEPTH_STEP], of finite rows, as are
  float* scale = nullptr;      // [n]
  float* residual = nullptr;   // [n]
};

void code_rows(const float* rows, int64_t n, int dim, const CodedRows& out, int threads, const Interrupt& interrupt);

}  // namespace pyengine
