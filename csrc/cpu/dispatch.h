// Which instruction sets this machine has, and which one is in use.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace pyengine {

// The tables that can run here, best first.
const std::vector<const KernelTable*>& available_kernels();

// The table in use: the best one, or the one that PYENGINE_CPU_ISA names. Throws std::runtime_error for an unknown
// name.
const KernelTable& kernels();

// Use the named table from now on, in every thread; throws std::runtime_error if this machine does not have it.
void use_kernels(const std::string& name);

}  // namespace pyengine
