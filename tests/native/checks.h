// What the checks of kernel tables share: random values, and how a difference ends the program.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "cpu/kernels.h"

inline std::mt19937 engine(7);

inline void require(bool holds, const pyengine::KernelTable& table, const char* what, int n) {
  if (holds) return;
  std::printf("%s: %s is wrong at n = %d\n", table.name, what, n);
  std::exit(1);
}

inline std::vector<float> random_floats(size_t n, float scale) {
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& x : values) x = scale * normal(engine);
  return values;
}

inline std::vector<float> random_sizes(size_t n, float scale) {
  std::vector<float> values = random_floats(n, scale);
  for (float& x : values) x = std::fabs(x);
  return values;
}

// ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))
inline double add_lanes(const double* lane) {
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

template <class T>
double lanes(const T* a, const T* b, int n, bool difference) {
  double lane[8] = {};
  for (int i = 0; i < n; ++i) {
    const double x = a[i], y = b[i], d = x - y;
    const double term = difference ? d * d : x * y;
    lane[i % 8] += term;
  }
  return add_lanes(lane);
}

inline bool same_bits(double a, double b) { return std::memcmp(&a, &b, sizeof a) == 0; }

// Late interaction's kernels: check_maxsim.cpp.
void check_maxsim(const pyengine::KernelTable& table);

// Those of sparse rows: check_sparse.cpp.
void check_sparse(const pyengine::KernelTable& table);
