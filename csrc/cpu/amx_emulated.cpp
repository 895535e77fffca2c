// The AMX kernel over software tiles: lets a machine without AMX test everything but the instructions themselves.
#if defined(PYENGINE_TESTING) && defined(__x86_64__)
#define PYENGINE_SOFTWARE_TILES
#include "cpu/amx.cpp"
#endif
