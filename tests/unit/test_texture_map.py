# SPDX-License-Identifier: GPL-3.0-or-later
"""A texture under the differentiable rasterizer: bilinear sampling, its gradients, seams, and a texture recovered."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreamwright.backend.cameras.poses import Cameras, orbit_cameras
from dreamwright.backend.geometry.color import linear_to_display
from dreamwright.backend.geometry.texel_layout import TexelLayout, texel_layout
from dreamwright.backend.geometry.texture import Texture
from dreamwright.backend.geometry.topology import Surface, paired_half_edges
from dreamwright.backend.geometry.unwrap import Unwrapping, unwrap
from dreamwright.backend.mesh_rendering.render import Topology, render_mesh
from dreamwright.backend.mesh_rendering.texture_map import TextureMap, bilinear
from dreamwright.backend.rendering.shading import Shading
from dreamwright.backend.scenes.texel_colors import TexelColors, vertex_albedo
from tests.testing.primitive_meshes import cube, icosphere

SIZE = 128
UNLIT, LIT = Shading(), Shading("shaded", 0.4, 0.6)


def waves(points: np.ndarray) -> np.ndarray:
    """Colors in [0.1, 0.9] that change by at most 2.4 a unit of length."""
    return 0.5 + 0.4 * np.sin(6.0 * points)


@given(seed=st.integers(0, 10_000), size=st.integers(2, 9))
def test_sample_is_the_mean_of_four_texels(seed: int, size: int) -> None:
    """Against a loop over all texels with the weights max(0, 1 - |distance|) in each axis; edges are repeated."""
    random = np.random.default_rng(seed)
    image, uv = random.random((size, size, 3)), random.uniform(-0.1, 1.1, (20, 2))
    found = bilinear(torch.from_numpy(image), torch.from_numpy(uv)).numpy()
    place = np.clip(uv * size - 0.5, 0, size - 1)
    hat = np.maximum(0, 1 - np.abs(place[:, :, None] - np.arange(size)))  # (20, u and v, size)
    assert np.allclose(found, np.einsum("pi,pj,ijc->pc", hat[:, 1], hat[:, 0], image), rtol=0, atol=1e-12)


def test_sample_has_exact_gradients() -> None:
    """Central differences in float64, with places away from the lines where the slope jumps."""
    random = torch.Generator().manual_seed(0)
    image = torch.rand(6, 6, 3, generator=random, dtype=torch.float64).requires_grad_()
    cell = torch.randint(0, 5, (30, 2), generator=random)
    uv = ((cell + 0.6 + 0.8 * torch.rand(30, 2, generator=random, dtype=torch.float64)) / 6).requires_grad_()
    assert torch.autograd.gradcheck(bilinear, (image, uv))


def test_sample_agrees_with_the_exported_texture() -> None:
    """Where the color is constant around a place, its decoding from linear RGB changes nothing: half a level of 8 bits
    (0.002) remains. Elsewhere exports interpolate in linear RGB, as renderers do."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, :32], image[:32, 32:], image[32:, :32] = (200, 40, 90), (10, 250, 0), (70, 70, 255)
    corners = np.array([[0, 1, 2]], np.int32)
    texture = Texture(image, Unwrapping(np.zeros((3, 2), np.float32), corners, np.arange(3, dtype=np.int32)))
    uv = np.array([[0.1, 0.2], [0.9, 0.1], [0.2, 0.7], [0.8, 0.8], [0.0, 0.0]])
    found = bilinear(torch.from_numpy(image / 255.0), torch.from_numpy(uv)).numpy()
    assert np.allclose(found, linear_to_display(texture.linear_at(uv)), rtol=0, atol=1e-9)


# --- under the rasterizer


def quad() -> tuple[np.ndarray, np.ndarray, Tensor]:
    """A square in the plane y = 0, seen from the front (-Y), with the whole image on it; uv (6, 2) of its corners."""
    vertices = np.array([[-0.4, 0, -0.4], [0.4, 0, -0.4], [0.4, 0, 0.4], [-0.4, 0, 0.4]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    corners = np.array([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    return vertices, faces, torch.from_numpy(corners[faces].reshape(-1, 2))


def front() -> Cameras:
    return orbit_cameras([0.0], 0.0, 2.0, 1.5)


def shown(
    vertices: Tensor, faces: np.ndarray, tints: Tensor, texture: TextureMap, cameras: Cameras, size: int, lit: bool
) -> Tensor:
    topology = Topology.of(vertices.detach().numpy(), faces, 180.0)
    lights = cameras.position + torch.tensor([0.3, 0.0, 0.8])
    black, looks = torch.zeros(len(cameras), 3), [LIT if lit else UNLIT] * len(cameras)
    return render_mesh(topology, vertices, tints, black, cameras, looks, lights, size, 1, texture).image


def test_each_quarter_is_where_it_belongs() -> None:
    """By hand: u to the right and v down, seen from the front; the square's edge is 2 * 1.5 * 0.4 / 2 = 0.6 wide."""
    vertices, faces, uv = quad()
    image = torch.zeros(8, 8, 3, dtype=torch.float64)
    image[:4, :4, 0], image[:4, 4:, 1], image[4:, :4, 2] = 1.0, 1.0, 1.0
    seen = shown(
        torch.from_numpy(vertices), faces, torch.zeros(4, 3).double(), TextureMap(uv, image), front(), 40, False
    )
    for row, column, color in ((12, 12, (1, 0, 0)), (12, 27, (0, 1, 0)), (27, 12, (0, 0, 1)), (27, 27, (0, 0, 0))):
        assert torch.allclose(seen[0, :, row, column], torch.tensor(color, dtype=torch.float64), atol=1e-6)
    gray = shown(
        torch.from_numpy(vertices), faces, torch.full((4, 3), 0.25).double(), TextureMap(uv, image), front(), 40, False
    )
    assert torch.allclose(gray[0, :, 12, 12], torch.tensor([1.0, 0.25, 0.25], dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("lit", [False, True])
def test_image_has_exact_gradients(lit: bool) -> None:
    """d <weights, image> in a direction of texels, of tints and of vertices, against central differences in float64.

    A soft texture: at a step of 1e-6 no sampled place crosses a line between texel centers but by chance, where it
    changes the slope by a share of 1e-6; no pixel changes its face.
    """
    vertices, faces, uv = quad()
    random = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.rand(*shape, generator=random, dtype=torch.float64)  # noqa: E731
    values = torch.from_numpy(vertices) + 0.02 * draw(4, 3), 0.1 * draw(4, 3), 0.2 + 0.5 * draw(5, 5, 3)
    weights, directions = draw(1, 3, 24, 24), [draw(4, 3), draw(4, 3), draw(5, 5, 3)]

    def loss(place: Tensor, tint: Tensor, image: Tensor) -> Tensor:
        return (weights * shown(place, faces, tint, TextureMap(uv, image), front(), 24, lit)).sum()

    leaves = [value.clone().requires_grad_() for value in values]
    gradients = torch.autograd.grad(loss(*leaves), leaves)
    for index, (gradient, direction) in enumerate(zip(gradients, directions, strict=True)):
        step = 1e-6
        up, down = (
            loss(*(v + sign * step * direction if i == index else v for i, v in enumerate(values)))
            for sign in (1.0, -1.0)
        )
        wanted = float(up - down) / (2 * step)
        assert abs(wanted) > 1e-2 and float((gradient * direction).sum()) == pytest.approx(wanted, rel=1e-4)


# --- seams


def painted(
    vertices: np.ndarray, faces: np.ndarray, size: int = SIZE
) -> tuple[Unwrapping, TexelLayout, np.ndarray, Tensor]:
    """An unwrapped mesh, its layout, the `waves` of its own texels, and the image of those."""
    surface, places = Surface(vertices, faces), unwrap(vertices, faces, size)
    texels = TexelColors(surface, Texture(np.zeros((size, size, 3), np.uint8), places))
    own = texels.layout.own
    colors = waves(np.einsum("mc,mck->mk", own.barycentric, vertices[faces[own.face]]))
    return places, texels.layout, colors, texels.image(torch.from_numpy(colors))


def along_seams(faces: np.ndarray, places: Unwrapping, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uv (S, 2) on one and the other side of each edge between charts, `share` of the way along it, and its ends."""
    count = len(faces)
    sides = [(half % count, half // count) for half in paired_half_edges(faces)]
    (a, b), (d, c) = ((places.corners[face, corner], places.corners[face, (corner + 1) % 3]) for face, corner in sides)
    seam = (a != c) | (b != d)
    one, other = (1 - share) * places.uv[a] + share * places.uv[b], (1 - share) * places.uv[c] + share * places.uv[d]
    return one[seam], other[seam], np.stack([places.vertex[a], places.vertex[b]], axis=1)[seam]


MESHES = {"ball": icosphere(3, 0.4), "cube": cube(0.7)}


@pytest.mark.parametrize("name", MESHES)
def test_both_sides_of_a_seam_show_the_same(name: str) -> None:
    """Of a smooth color. A texel is 0.4 * sqrt(4 pi / 8,500) = 0.015 long, so half of one changes it by 0.018.

    Both the difference and the error stay below twice that everywhere, and far below in the mean, where the copy of
    the nearest texel of the same chart has 0.005. Without anything beside the charts the mean is 0.13.
    """
    vertices, faces = MESHES[name]
    places, _, _, image = painted(vertices, faces)
    differences, errors = [], []
    for share in (0.1, 0.35, 0.5, 0.8):
        one, other, ends = along_seams(faces, places, share)
        sides = [bilinear(image, torch.from_numpy(uv).double()).numpy() for uv in (one, other)]
        true = waves((1 - share) * vertices[ends[:, 0]] + share * vertices[ends[:, 1]])
        differences.append(np.abs(sides[0] - sides[1]))
        errors.append(np.abs(sides[0] - true))
    assert len(differences[0]) >= 5, "the mesh has no seams"
    assert np.max(differences) < 0.036 and np.mean(differences) < 0.0035
    assert np.max(errors) < 0.036 and np.mean(errors) < 0.004


def test_texels_beside_the_charts_are_means_of_own_ones() -> None:
    vertices, faces = MESHES["ball"]
    places = unwrap(vertices, faces, SIZE)
    layout = texel_layout(Surface(vertices, faces), places, SIZE)
    assert layout.weight.min() >= 0 and np.allclose(layout.weight.sum(1), 1, atol=1e-12)
    assert layout.source.min() >= 0 and layout.source.max() < len(layout.own.pixel)
    assert not np.isin(layout.border, layout.own.pixel).any()
    assert len(np.unique(layout.border)) == len(layout.border)
    # Every place on every face is sampled from own texels and those beside them alone.
    random = np.random.default_rng(0)
    face, weight = random.integers(0, len(faces), 5000), random.dirichlet([1, 1, 1], 5000)
    uv = np.einsum("mc,mck->mk", weight, places.uv[places.corners[face]].astype(np.float64))
    known = torch.zeros(SIZE * SIZE, 1, dtype=torch.float64)
    known[np.concatenate([layout.own.pixel, layout.border])] = 1.0
    assert float(bilinear(known.view(SIZE, SIZE, 1), torch.from_numpy(uv)).min()) > 1 - 1e-9


def test_a_gradient_reaches_across_a_seam() -> None:
    """Texels of both charts get a gradient from a sample on one side."""
    vertices, faces = MESHES["cube"]
    surface, places = Surface(vertices, faces), unwrap(vertices, faces, SIZE)
    texels = TexelColors(surface, Texture(np.zeros((SIZE, SIZE, 3), np.uint8), places))
    colors = torch.full((len(texels.base), 3), 0.5, dtype=torch.float64, requires_grad=True)
    one, _, ends = along_seams(faces, places, 0.5)
    bilinear(texels.image(colors), torch.from_numpy(one).double()).sum().backward()
    points = np.einsum("mc,mck->mk", texels.layout.own.barycentric, vertices[faces[texels.layout.own.face]])
    hit = points[colors.grad.abs().sum(1).numpy() > 1e-3]
    reached = 0
    for place in vertices[ends].mean(1):  # the two sides of a cube's edge are constant in different coordinates
        near = hit[np.linalg.norm(hit - place, axis=1) < 0.05]
        reached += (np.abs(np.abs(near) - 0.35) < 1e-9).any(0).sum() >= 2
    assert reached >= 0.5 * len(ends) > 2  # a border that runs through texel centers reads nothing beyond them


def test_smoothing_keeps_constants_and_removes_what_alternates() -> None:
    """By hand: (1 2 1) / 4 of a constant is the constant, also across seams; of +1 -1 +1 it is 0 in one round.

    A single texel far from borders becomes the product of (1 2 1) / 4 with itself: 1/4 of it stays.
    """
    vertices, faces = MESHES["cube"]
    texels = TexelColors(
        Surface(vertices, faces), Texture(np.zeros((SIZE, SIZE, 3), np.uint8), unwrap(vertices, faces, SIZE))
    )
    pixel = torch.from_numpy(texels.layout.own.pixel)
    row, column = pixel // SIZE, pixel % SIZE
    constant = torch.full((len(pixel), 3), 0.7, dtype=torch.float64)
    assert torch.allclose(texels.smoothed(constant, 3), constant, rtol=0, atol=1e-6)
    own = torch.zeros(SIZE, SIZE).bool()
    own.view(-1)[pixel] = True
    inner = torch.nn.functional.max_pool2d(1.0 - own[None, None].float(), 5, 1, 2)[0, 0].view(-1)[pixel] == 0
    inner &= (torch.minimum(row, column) > 2) & (torch.maximum(row, column) < SIZE - 3)
    checks = (1.0 - 2.0 * ((row + column) % 2)).double()[:, None].expand(-1, 3)
    assert inner.sum() > 1000 and float(texels.smoothed(checks, 1)[inner].abs().max()) < 1e-12
    single, chosen = torch.zeros_like(constant), int(inner.nonzero()[0])
    single[chosen] = 1.0
    spread = texels.smoothed(single, 1)
    assert spread[chosen, 0] == pytest.approx(0.25, abs=1e-12) and float(spread[:, 0].sum()) == pytest.approx(
        1, abs=1e-9
    )
    assert torch.equal(texels.smoothed(single, 0), single)


def test_vertex_colors_are_the_textures() -> None:
    """Of `waves`, within the change over a texel (0.036) and 8 bits, at vertices inside of charts and on seams."""
    vertices, faces = MESHES["ball"]
    places, _, colors, _ = painted(vertices, faces)
    texels = TexelColors(Surface(vertices, faces), Texture(np.zeros((SIZE, SIZE, 3), np.uint8), places))
    texture = texels.texture(torch.from_numpy(colors))
    found = linear_to_display(vertex_albedo(texture, len(vertices)))
    assert np.abs(found - waves(vertices)).max() < 0.04 and np.abs(found - waves(vertices)).mean() < 0.006


def test_texture_is_recovered_from_its_renders() -> None:
    """Adam on texels from 10 views of a ball, from gray: the mean error falls from 0.29 to less than a tenth of that.

    A texel is 0.45 * sqrt(4 pi / 363) = 0.084 long and a pixel at the ball 0.02 to 0.03, so all texels are sampled.
    """
    vertices, faces = icosphere(2, 0.45)
    size, rows = 32, 40
    places, _, colors, image = painted(vertices, faces, size)
    texels = TexelColors(Surface(vertices, faces), Texture(np.full((size, size, 3), 128, np.uint8), places))
    topology, where = Topology.of(vertices, faces, 180.0), torch.from_numpy(vertices).float()
    rings = [orbit_cameras([90.0 * turn for turn in range(4)], 0.0, 2.0, 1.9)]
    rings += [orbit_cameras([0.0, 120.0, 240.0], elevation, 2.0, 1.9) for elevation in (60.0, -60.0)]
    fields = Cameras.__dataclass_fields__
    cameras = Cameras(*(torch.cat([getattr(ring, name) for ring in rings]) for name in fields))
    none, black, looks = torch.zeros(len(vertices), 3), torch.zeros(len(cameras), 3), [UNLIT] * len(cameras)

    def views(picture: Tensor) -> Tensor:
        texture = TextureMap(texels.uv, picture)
        return render_mesh(topology, where, none, black, cameras, looks, cameras.position, rows, 1, texture).image

    wanted, found = views(image.float()), texels.base.clone().requires_grad_()
    optimizer = torch.optim.Adam([found], lr=0.1, betas=(0.8, 0.95))
    for _ in range(40):
        optimizer.zero_grad()
        (views(texels.image(found)) - wanted).square().sum().backward()
        optimizer.step()
    before, after = (
        float((values.detach().double() - torch.from_numpy(colors)).abs().mean()) for values in (texels.base, found)
    )
    left = float((views(texels.image(found.detach())) - wanted).abs().mean())
    print(f"texels {len(found)}: error {before:.3f} before, {after:.4f} after; images differ by {left:.5f}")
    assert before > 0.2 and after < 0.1 * before and left < 0.005
