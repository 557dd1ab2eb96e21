"""Molecules on density grids, as the formula says: every voxel of every atom, no cleverness. f64.

A density is one Gaussian for each atom, cut off by a box of voxels around it, united within a channel; positions in angstrom.
"""

import torch
from torch import Tensor

RESOLUTION_A = 0.25
WIDTH_VOXELS = 0.93 * 0.5 / RESOLUTION_A
PADDING = 999


def voxelise(positions: Tensor, channels: Tensor, elements: int, side: int) -> Tensor:
    """positions [n, 3], channels [n] (999: padding) -> [elements, side, side, side] in 0..1."""
    grid = torch.zeros(elements, side, side, side, dtype=torch.float64)
    # The offset of an eighth of a voxel and the lopsided window are the reference's.
    voxel = torch.arange(side, dtype=torch.float64) + 66 - side / 2
    for position, channel in zip(positions.double(), channels.tolist()):
        if channel == PADDING:
            continue
        at = position / RESOLUTION_A + 65
        distance = at[:, None] - (voxel + RESOLUTION_A / 2)
        inside = (voxel >= at[:, None].floor() - 4) & (voxel <= at[:, None].floor() + 6)
        factor = (-(distance / WIDTH_VOXELS).square()).exp() * inside
        value = torch.einsum("i,j,k->ijk", *factor)
        grid[channel] = 1 - (1 - grid[channel]) * (1 - value)
    return grid


def euler_rotation(angles: Tensor) -> Tensor:
    """Rz Ry Rx [3, 3]; the sign of the sine in Ry is the reference's, the inverse of the usual one."""
    (cx, cy, cz), (sx, sy, sz) = angles.double().cos(), angles.double().sin()
    x = torch.tensor([[1, 0, 0], [0, cx, -sx], [0, sx, cx]], dtype=torch.float64)
    y = torch.tensor([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]], dtype=torch.float64)
    z = torch.tensor([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]], dtype=torch.float64)
    return z @ y @ x


def place(positions: Tensor, angles: Tensor, uniform_shift: Tensor) -> dict[str, Tensor]:
    """A molecule [n, 3] centred, then rotated, then shifted by up to half an angstrom along each axis."""
    rotation = euler_rotation(angles)
    centred = positions.double() - positions.double().mean(0)
    rotated = centred @ rotation.T
    shifted = rotated + (2 * uniform_shift.double() - 1) * 0.5
    return {"rotation": rotation, "centered": centred, "rotated": rotated, "shifted": shifted}


# --- rotations of the cube -------------------------------------------------------------------------------------------


def cube_rotations() -> Tensor:
    """[24, 3, 3]: the signed permutation matrices with determinant 1."""
    signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0], dtype=torch.float64)] * 3)
    axes = torch.cartesian_prod(*[torch.arange(3)] * 3)
    axes = axes[[len(set(row)) == 3 for row in axes.tolist()]]
    every = torch.stack([torch.eye(3, dtype=torch.float64)[order] * sign[:, None] for order in axes for sign in signs])
    return every[torch.linalg.det(every) > 0]


def gather_table(rotation: Tensor, side: int) -> Tensor:
    """[side^3]: the voxel that moves to each place, (T_R x)[q] = x[R^T (q - mid) + mid]."""
    places = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3) - (side - 1) / 2
    sources = ((places @ rotation) + (side - 1) / 2).round().long()
    return (sources[:, 0] * side + sources[:, 1]) * side + sources[:, 2]


def rotate(grids: Tensor, rotation: Tensor) -> Tensor:
    """Grids [..., side, side, side]: what was at p comes to R p."""
    return grids.flatten(-3)[..., gather_table(rotation, grids.shape[-1])].view_as(grids)


def group_tables(rotations: Tensor) -> dict[str, Tensor]:
    """How the matrices [24, 3, 3] multiply, by index, and how each moves voxels."""

    def place_of(matrix: Tensor) -> int:
        return int((rotations - matrix).abs().sum((1, 2)).argmin())

    tables = {
        "rot.product": torch.tensor([[place_of(a @ b) for b in rotations] for a in rotations]),
        "rot.inverse": torch.tensor([place_of(a.T) for a in rotations]),
    }
    tables |= {f"rot.gather_g{side}": torch.stack([gather_table(r, side) for r in rotations]) for side in (2, 4, 5)}
    return {name: table.int() for name, table in tables.items()}
