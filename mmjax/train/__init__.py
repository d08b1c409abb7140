"""Training: state, step, loop, optimiser, checkpoints and logs."""
