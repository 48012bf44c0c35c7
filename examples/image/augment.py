"""Augmentation: every image is turned, zoomed and shifted a little, and gets some noise, anew each time it is drawn."""

import math

import torch

ROTATION_DEGREES = 10.0
ZOOM = 0.1
SHIFT_PIXELS = 0.75
NOISE = 0.5
LARGEST_GREY = 16.0


def augment(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Changed copies of `images` [n, 1, height, width]; the grey values stay in 0..16, and outside is paper."""
    count, side = len(images), images.shape[-1]

    def uniform(limit: float) -> torch.Tensor:
        return (2 * torch.rand(count, generator=random) - 1) * limit

    angle, zoom = uniform(math.radians(ROTATION_DEGREES)), 1 + uniform(ZOOM)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    across, down = uniform(2 * SHIFT_PIXELS / side), uniform(2 * SHIFT_PIXELS / side)
    rows = [torch.stack([cosine, -sine, across], dim=1), torch.stack([sine, cosine, down], dim=1)]
    grid = torch.nn.functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(images, grid, align_corners=False)
    noise = NOISE * torch.randn(images.shape, generator=random)
    return (moved + noise).clamp(0, LARGEST_GREY)
