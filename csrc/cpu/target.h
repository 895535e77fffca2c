// Raising the instruction set for a region of one file. Put every #include above the region: a shared inline function
// compiled inside it could be the copy that the linker keeps for all.
#pragma once

#define PYENGINE_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define PYENGINE_TARGET_BEGIN(isa) \
  PYENGINE_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define PYENGINE_TARGET_END _Pragma("clang attribute pop")
#else
#define PYENGINE_TARGET_BEGIN(isa) _Pragma("GCC push_options") PYENGINE_PRAGMA(GCC target(isa))
#define PYENGINE_TARGET_END _Pragma("GCC pop_options")
#endif
