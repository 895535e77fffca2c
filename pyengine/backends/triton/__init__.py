"""The Triton kernels on an NVIDIA GPU, on tensors of torch."""
