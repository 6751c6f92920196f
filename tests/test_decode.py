"""Multi-formation: decoding against a plain loop, its plans, sets with tiles in training, and the way back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from distill.decode import BOUND, DECODE_TYPES, GREY, decode, decoded, decoded_count, pack
from distill.image_set import ImageSet
from distill.initial import initial_images
from distill.spaces import NormalizedSpace, PixelSpace
from downstream.protocol import protocol
from downstream.training import Conditions, new_network, train, training_space
from fyi_bench import rng
from fyi_bench.errors import UnknownNameError, UsageError

SPACE = NormalizedSpace((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=rng.stream(0, "pictures", *shape), dtype=torch.float64)


def plain(images: torch.Tensor, factor: int) -> torch.Tensor:
    """One class [n, ch, H, W], tile by tile, with torch's own bilinear enlargement."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (0, -width % factor, 0, -height % factor), value=0.5)
    tall, wide = padded.shape[-2] // factor, padded.shape[-1] // factor
    tiles = [
        F.interpolate(
            padded[:, :, i * tall : (i + 1) * tall, j * wide : (j + 1) * wide],
            size=(height, width), mode="bilinear", align_corners=False,
        )
        for i in range(factor)
        for j in range(factor)
    ]  # fmt: skip
    return torch.cat(tiles)


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_single_is_the_plain_loop(factor, size):
    images = pictures(2, 3, 3, *size)
    found = decode(images, factor)
    assert found.shape == (2, decoded_count(3, factor), 3, *size)
    for one, stored in zip(found, images, strict=True):
        torch.testing.assert_close(one, plain(stored, factor), rtol=1e-12, atol=1e-12)


def test_multi_takes_every_factor_and_bound_what_fits():
    images = pictures(2, 4, 3, 8, 8)
    multi = decode(images, 3, "multi")[0]
    torch.testing.assert_close(multi, torch.cat([plain(images[0], k) for k in (1, 2, 3)]), rtol=1e-12, atol=1e-12)
    # 4 images, at most 20: one in 9 tiles (3 places stay for the others), two in 4, one whole
    bound = decode(images, 3, "bound", bound=20)[0]
    parts = [plain(images[0, :1], 3), plain(images[0, 1:3], 2), plain(images[0, 3:], 1)]
    torch.testing.assert_close(bound, torch.cat(parts), rtol=1e-12, atol=1e-12)


@settings(deadline=None)
@given(n=st.integers(1, 150), factor=st.integers(1, 5), bound=st.integers(1, 200))
def test_plans_use_every_image_once_and_keep_the_bound(n, factor, bound):
    plan = DECODE_TYPES.get("bound")(n, factor, bound)
    used = [k for which, _ in plan for k in range(which.start, which.stop)]
    assert used == list(range(n))
    assert decoded_count(n, factor, "bound", bound) <= max(n, bound)
    assert [k for _, k in plan] == sorted((k for _, k in plan), reverse=True)
    assert decoded_count(n, factor) == n * factor**2
    assert decoded_count(n, factor, "multi") == n * sum(k**2 for k in range(1, factor + 1))


def test_decoding_is_differentiable():
    images = pictures(1, 2, 1, 5, 5).requires_grad_(True)
    for kind in DECODE_TYPES:
        assert torch.autograd.gradcheck(lambda x, kind=kind: decode(x, 2, kind), (images,))


@settings(max_examples=20, deadline=None)
@given(tile=st.integers(1, 4), factor=st.integers(1, 4))
def test_packed_images_stand_in_the_tiles_they_decode_from(tile, factor):
    """Images of one colour survive the way there and back."""
    size = tile * factor
    values = torch.arange(2 * factor**2 * 3, dtype=torch.float64).view(2, -1, 1, 1, 1) / 100
    stored = pack(values.expand(-1, -1, 3, size, size), factor)
    assert stored.shape == (2, 3, 3, size, size)
    again = decode(stored, factor)
    torch.testing.assert_close(again, values.expand_as(again))


def test_pack_shrinks_by_the_nearest_pixel_and_gives_the_first_tiles_the_rest():
    images = pictures(1, 9, 1, 7, 7)
    stored = pack(images, 3)[0, 0, 0]
    edges = [0, 3, 5, 7]
    for tile in range(9):
        i, j = divmod(tile, 3)
        rows, columns = (slice(edges[k], edges[k + 1]) for k in (i, j))
        size = (rows.stop - rows.start, columns.stop - columns.start)
        expected = F.interpolate(images[0, tile : tile + 1], size=size, mode="nearest")[0, 0]
        assert torch.equal(stored[rows, columns], expected)


@pytest.mark.parametrize("name", ["real", "mix", "kmeans"])
def test_initial_images_with_tiles_are_shrunk_real_images(name):
    problem = tiny.problem(ipc=2, space=PixelSpace(), dtype=torch.float64)
    stored = initial_images(problem, name, factor=2).view(3, 2, 3, 8, 8)
    real = problem.images_at(torch.stack(problem.rows))
    small = F.interpolate(real.flatten(0, 1), size=4, mode="nearest").view(3, -1, 3, 4, 4)
    for c in range(3):
        for m in range(2):
            for i in range(2):
                for j in range(2):
                    tile = stored[c, m, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
                    assert any(torch.equal(tile, other) for other in small[c])


def test_initial_tiles_repeat_where_a_class_is_small():
    problem = tiny.problem(ipc=2, real=tiny.real_set(per_class=3), space=PixelSpace())
    for name in ("real", "kmeans"):
        assert initial_images(problem, name, factor=2).shape == (6, 3, 8, 8)


def test_noise_is_grey_in_pixel_space():
    noise = initial_images(tiny.problem(ipc=8, space=PixelSpace()), "noise")
    assert 0 <= float(noise.min()) < 0.1 < 0.9 < float(noise.max()) <= 1
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(initial_images(tiny.problem(ipc=8), "noise").std()) == pytest.approx(1, abs=0.05)


def tiled_set(space=None, labels=None) -> ImageSet:
    images = pictures(6, 3, 8, 8).float()
    hard = torch.tensor([4, 1, 1, 4, 2, 2])
    made = ImageSet(images, hard if labels is None else labels, PixelSpace(), 5, factor=2)
    return made if space is None else made.to_space(space)


def test_a_set_is_decoded_class_by_class():
    stored, plain_set = tiled_set(), decoded(tiled_set())
    assert (plain_set.factor, plain_set.decode_type, plain_set.num_classes) == (1, "single", 5)
    assert plain_set.labels.tolist() == [1] * 8 + [2] * 8 + [4] * 8
    of_class_4 = decode(stored.images[[0, 3]].unsqueeze(0), 2)[0]
    assert torch.equal(plain_set.images[16:], of_class_4)
    assert decoded(plain_set) is plain_set


def test_soft_labels_go_with_their_images():
    soft = torch.eye(5)[[4, 1, 1, 4, 2, 2]] * torch.arange(1, 7).view(-1, 1)
    labels = decoded(tiled_set(labels=soft)).labels
    assert labels.argmax(1).tolist() == [1] * 8 + [2] * 8 + [4] * 8
    assert labels.max(1).values[:8].tolist() == [2, 3] * 4


def test_the_space_of_a_set_does_not_change_what_it_decodes_to():
    """The border that is added is grey in every space (5 does not divide 8)."""
    stored = ImageSet(pictures(2, 3, 8, 8).float(), torch.tensor([0, 1]), PixelSpace(), 2, factor=5)
    normalized = decoded(stored.to_space(SPACE))
    assert normalized.space == SPACE
    torch.testing.assert_close(normalized.pixels(), decoded(stored).images, rtol=0, atol=1e-6)
    corner = decoded(stored).images[-1, :, -1, -1]
    torch.testing.assert_close(corner, torch.full((3,), GREY))


def test_whole_number_pixels_decode_too():
    stored = ImageSet(torch.randint(0, 256, (2, 3, 8, 8), generator=rng.stream(0, "u8")).to(torch.uint8),
                      torch.tensor([0, 1]), PixelSpace(), 2, factor=2)  # fmt: skip
    assert torch.equal(decoded(stored).images, decoded(stored.to_space(PixelSpace())).images)


@pytest.mark.long
def test_training_on_tiles_is_training_on_the_decoded_set():
    stored = ImageSet(pictures(4, 3, 8, 8).float(), torch.tensor([0, 0, 1, 1]), PixelSpace(), 2, factor=2)
    short = protocol("quick", "accuracy").with_overrides({"epochs": "2", "eval_model": tiny.MODEL})
    found = []
    for image_set in (stored, decoded(stored)):
        network = new_network(tiny.MODEL, image_set, 0)
        found.append(train(network, image_set, short, 0, Conditions(space=training_space(image_set, SPACE))))
    assert found[0].losses == found[1].losses
    assert len(decoded(stored)) == 16
    for one, other in zip(*(t.network.parameters() for t in found), strict=True):
        assert torch.equal(one, other)


def test_pixels_are_trained_on_normalised_and_other_spaces_as_they_are():
    assert training_space(tiled_set(), SPACE) == SPACE
    own = NormalizedSpace((0.1,) * 3, (1.0,) * 3)
    assert training_space(tiled_set(own), SPACE) == own


def test_impossible_tiles_are_refused():
    with pytest.raises(UsageError, match="8x8 pixels cannot hold 9 x 9"):
        decode(pictures(1, 1, 3, 8, 8), 9)
    with pytest.raises(UsageError, match="cannot hold 0 x 0"):
        pack(pictures(1, 1, 3, 8, 8), 0)
    with pytest.raises(UnknownNameError, match="Did you mean 'bound'"):
        decode(pictures(1, 1, 3, 8, 8), 2, "bond")
    assert BOUND == 128
