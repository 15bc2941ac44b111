"""Network architectures, time-major: `[T, N, C, H, W]` in, `[T, N, K]` out."""
