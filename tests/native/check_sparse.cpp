// The kernels of sparse rows against plain loops: sums of levels, and what is taken of them.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "checks.h"

using namespace pyengine;

namespace {

constexpr int N_SUMS = 1 << 14;

int16_t weight(int factor, int level, int zero) {
  const double exact = factor * (level - zero) / 512.0;
  return static_cast<int16_t>(factor < 0 && zero == 0 ? std::floor(exact) : std::ceil(exact));
}

std::vector<uint8_t> random_levels(int n, int zero) {
  std::uniform_int_distribution<int> level(0, 255), kind(0, 3);
  std::vector<uint8_t> levels(n);
  for (uint8_t& each : levels) each = static_cast<uint8_t>(kind(engine) ? level(engine) : kind(engine) ? 255 : zero);
  return levels;
}

std::vector<int16_t> random_sums(int n) {
  std::uniform_int_distribution<int> sum(-16000, 16000);
  std::vector<int16_t> sums(n);
  for (int16_t& each : sums) each = static_cast<int16_t>(sum(engine));
  return sums;
}

void check_add_postings(const KernelTable& table, int n, int factor, int zero) {
  std::vector<uint16_t> docs(N_SUMS);
  std::iota(docs.begin(), docs.end(), uint16_t{0});
  std::shuffle(docs.begin(), docs.end(), engine);
  const std::vector<uint8_t> levels = random_levels(n, zero);
  std::vector<int16_t> sums = random_sums(N_SUMS), wanted = sums;
  for (int i = 0; i < n; ++i) wanted[docs[i]] = static_cast<int16_t>(wanted[docs[i]] + weight(factor, levels[i], zero));
  table.add_postings(docs.data(), levels.data(), n, factor, zero, sums.data());
  require(sums == wanted, table, "add_postings", n);
}

void check_add_column(const KernelTable& table, int n, int factor, int zero) {
  const std::vector<uint8_t> column = random_levels(n, zero);
  std::vector<int16_t> sums = random_sums(n + 64), wanted = sums;
  for (int i = 0; i < n; ++i)
    wanted[i] = static_cast<int16_t>(wanted[i] + weight(factor, column[i], zero));
  table.add_column(column.data(), n, factor, zero, sums.data());
  require(sums == wanted, table, "add_column", n);
}

// What lies behind the n sums stays.
void check_take_sums(const KernelTable& table, int n, int16_t least) {
  std::vector<int16_t> sums = random_sums(n + 64), before = sums, values(n);
  for (int i = 0; i < n; i += 3) sums[i] = before[i] = static_cast<int16_t>(std::max(least - 1 + i % 4, -32768));
  std::vector<int32_t> places(n);
  const int found = table.take_sums(sums.data(), n, least, places.data(), values.data());
  int next = 0;
  for (int i = 0; i < n; ++i) {
    require(sums[i] == 0, table, "take_sums (what stays)", n);
    if (before[i] < least) continue;
    require(next < found && places[next] == i && values[next] == before[i], table, "take_sums", n);
    ++next;
  }
  require(next == found, table, "take_sums (too many)", n);
  require(std::equal(sums.begin() + n, sums.end(), before.begin() + n), table, "take_sums (behind)", n);
}

void check_kth_sum(const KernelTable& table, int n) {
  std::vector<int16_t> sums = random_sums(n);
  for (int i = 0; i < n; i += 3) sums[i] = static_cast<int16_t>(i % 4 ? 7 : i % 8 ? 32767 : -32768);
  std::vector<int16_t> sorted = sums;
  std::sort(sorted.rbegin(), sorted.rend());
  for (int k : {1, 2, n / 3 + 1, n})
    require(k > n || table.kth_sum(sums.data(), n, k) == sorted[k - 1], table, "kth_sum", n);
}

}  // namespace

void check_sparse(const KernelTable& table) {
  for (int zero : {0, 128})
    for (int factor : {0, 1, 37, 511, 512, 513, 32767, -1, -700, -32767}) {
      for (int n : {0, 1, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 1000}) check_add_postings(table, n, factor, zero);
      for (int n : {64, 128, 320, N_SUMS}) check_add_column(table, n, factor, zero);
    }
  for (int n : {1, 2, 31, 33, 64, 1000, N_SUMS}) check_kth_sum(table, n);
  for (int n : {64, 128, 320, N_SUMS})
    for (int least : {-32768, -32767, -500, 0, 1, 15999, 32766, 32767}) check_take_sums(table, n, static_cast<int16_t>(least));
}
