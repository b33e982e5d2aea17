"""Points to Gaussian heatmaps and back, to parts of a pixel: what is read from the heatmap of a point is that point."""

import torch

REACH = 2  # pixels around the highest one that are read
FAINTEST = 1e-6  # a logarithm needs more than 0, and what a network gives may be less


def draw(points: torch.Tensor, size: int, sigma: float) -> torch.Tensor:
    """(..., size, size): exp(-d^2 / (2 sigma^2)) of the distance d of each pixel's centre to points (..., 2), x and y.

    The height is 1 at the point itself, as in Tompson et al. 2014 (https://arxiv.org/abs/1406.2984, section 3) and in
    Newell et al. 2016. A point may lie outside.
    """
    places = torch.arange(size, dtype=points.dtype, device=points.device)
    across, down = (-((places - points[..., axis, None]) ** 2) / (2 * sigma**2) for axis in (0, 1))
    return torch.exp(down[..., :, None] + across[..., None, :])


def read_out(heatmaps: torch.Tensor) -> torch.Tensor:
    """The points (..., 2) of heatmaps (..., S, S): x and y in pixels, exact for what ``draw`` gives, at any sigma.

    The logarithm of a Gaussian is a paraboloid. The nearest one, c + g·u + a |u|^2 with weighted least squares, is put
    through the 25 pixels around the highest one (fewer at an edge), and its top -g / (2 a) is the point. It is the
    read-out of DARK (Zhang et al. 2020, https://arxiv.org/abs/1910.06278, eq. 3 to 6) with a curvature that is equal in
    all directions, by more than the nearest pixels, and by their heights: the weight is the height's square, with which
    errors of the heights count alike. Where there is no top, as on a flat heatmap, it is the highest pixel; and it
    never lies further than ``REACH`` from that one.
    """
    shape, size = heatmaps.shape[:-2], heatmaps.shape[-1]
    flat = heatmaps.reshape(-1, size * size)
    at = flat.argmax(dim=1)
    highest = torch.stack([at % size, at // size], dim=1)
    steps = torch.arange(-REACH, REACH + 1, device=heatmaps.device)
    u = torch.cartesian_prod(steps, steps)
    places = highest[:, None] + u
    inside = ((places >= 0) & (places < size)).all(dim=2)
    index = places.clamp(0, size - 1)
    heights = flat.gather(1, index[..., 1] * size + index[..., 0]).double().clamp(min=FAINTEST)
    u = u.double()
    terms = torch.cat([torch.ones_like(u[:, :1]), u, (u**2).sum(dim=1, keepdim=True)], dim=1)  # (25, 4)
    weights = heights**2 * inside
    left = torch.einsum("nk,ki,kj->nij", weights, terms, terms)
    right = torch.einsum("nk,ki->ni", weights * heights.log(), terms)
    found, failed = torch.linalg.solve_ex(left, right)
    curved = (failed == 0) & (found[:, 3] < 0)
    shift = torch.where(curved[:, None], -found[:, 1:3] / (2 * found[:, 3:4].clamp(max=-FAINTEST)), 0.0)
    points = highest + shift.nan_to_num(0.0).clamp(-REACH, REACH)
    return points.to(heatmaps.dtype).reshape(*shape, 2)
