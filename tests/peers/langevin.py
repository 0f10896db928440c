"""A Metropolis-adjusted Langevin step in PyTorch: what `sampling.py` and `training.py` share. Not a script."""

import torch


def step(value_and_gradient, at, size, covariance, factor):
    """Moves each row of `at` = (x, w(x), its gradient) by `size`, preconditioned by covariance = factor factor'.

    Returns the rows after it and the probability with which each was accepted.
    """
    x, value, gradient = at
    noise = torch.randn_like(x)
    moved = x - size * gradient @ covariance + (2 * size) ** 0.5 * noise @ factor.T
    new_value, new_gradient = value_and_gradient(moved)
    # In coordinates that the preconditioner whitens, the way back is noise + sqrt(size / 2) factor' (g + g').
    back = noise - (size / 2) ** 0.5 * (gradient + new_gradient) @ factor
    log_ratio = value - new_value + 0.5 * (noise.square().sum(1) - back.square().sum(1))
    probability = log_ratio.exp().clamp(max=1)
    accepted = torch.rand_like(probability) < probability
    choose = lambda new, old: torch.where(accepted[:, None] if old.ndim == 2 else accepted, new, old)
    return (choose(moved, x), choose(new_value, value), choose(new_gradient, gradient)), probability
