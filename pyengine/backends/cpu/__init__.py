"""The CPU kernels: AVX2, AVX-512, AMX and NEON, by the extension."""
