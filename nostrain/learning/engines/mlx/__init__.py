"""The engine `mlx`: `mlx.core` alone, on a Mac's GPU or on the CPU. Nothing else in `learning` imports it."""
