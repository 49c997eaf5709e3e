"""The kernels that numba compiles, and the engines that run them on the CPU."""
