"""Small correct kernels, stages, maps and densities: controls, and what the zoo breaks."""
