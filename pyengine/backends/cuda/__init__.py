"""The CUDA kernels of the extension on an NVIDIA GPU, without torch."""
