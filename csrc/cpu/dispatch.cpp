#include "cpu/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pyengine {
namespace {

#if defined(__x86_64__)
// The kernel saves tile data only for processes that asked: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
bool tiles_permitted() {
#if defined(__linux__)
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}
#endif

std::vector<const KernelTable*> detect() {
  std::vector<const KernelTable*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  if (avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("amx-tile") &&
      __builtin_cpu_supports("amx-int8") && __builtin_cpu_supports("amx-bf16") && tiles_permitted())
    found.push_back(&AMX_KERNELS);
  if (avx512) found.push_back(&AVX512_KERNELS);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    found.push_back(&AVX2_KERNELS);
#elif defined(__aarch64__)
  found.push_back(&NEON_KERNELS);
#endif
  found.push_back(&BASELINE_KERNELS);
#if defined(PYENGINE_TESTING) && defined(__x86_64__)
  if (avx512) found.push_back(&AMX_EMULATED_KERNELS);
#endif
  return found;
}

const KernelTable* find(const std::string& name, const char* what) {
  std::string names;
  for (const KernelTable* table : available_kernels()) {
    if (name == table->name) return table;
    names += (names.empty() ? "" : ", ") + std::string(table->name);
  }
  throw std::runtime_error(std::string(what) + " must be one of what this machine has (" + names + "); got '" + name +
                           "'");
}

std::atomic<const KernelTable*> active{nullptr};

}  // namespace

const std::vector<const KernelTable*>& available_kernels() {
  static const std::vector<const KernelTable*> tables = detect();
  return tables;
}

const KernelTable& kernels() {
  const KernelTable* table = active.load(std::memory_order_acquire);
  if (!table) {
    const char* forced = std::getenv("PYENGINE_CPU_ISA");
    table = forced && *forced ? find(forced, "PYENGINE_CPU_ISA") : available_kernels().front();
    active.store(table, std::memory_order_release);
  }
  return *table;
}

void use_kernels(const std::string& name) { active.store(find(name, "isa"), std::memory_order_release); }

}  // namespace pyengine
