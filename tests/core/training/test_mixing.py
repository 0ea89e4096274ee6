"""Mixup and CutMix: timm's and torchvision's own numbers for a pair of images, and the loss that
they stand for."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.config.run import Finetune, Metadata
from pipeline.core.losses import CrossEntropy, Focal
from pipeline.core.networks.image import import_timm
from pipeline.core.runtime.errors import UserError
from pipeline.core.training.mixing import Mixing, box, mixed_targets


def pictures(count: int, side: int = 24) -> torch.Tensor:
    chance = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, side, side, 3), generator=chance).byte()


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
def test_a_pair_is_mixed_as_timm_mixes_it(monkeypatch, mixup, cutmix):
    """timm pairs an image with the batch turned round: for two images the same partner."""
    import_timm()
    from timm.data import mixup as timms

    images = pictures(2)
    for step in range(20):
        # Our draws, in our order, given to timm.
        rng = np.random.default_rng((5, step, 1))
        share = rng.beta(mixup or cutmix, mixup or cutmix)
        draws = iter([rng.integers(24), rng.integers(24)] if cutmix else [])
        theirs = timms.Mixup(mixup, cutmix, num_classes=2, label_smoothing=0.0)
        monkeypatch.setattr(theirs, "_params_per_batch", lambda s=share: (s, cutmix > 0))
        with monkeypatch.context() as patched:
            patched.setattr(timms.np.random, "randint", lambda *_, d=draws, **__: next(d))
            expected, labels = theirs(
                images.permute(0, 3, 1, 2).float().clone(), torch.tensor([1, 0])
            )
        mixed, targets, _ = Mixing(5, mixup, cutmix)(step, images, torch.eye(2).flip(1))
        torch.testing.assert_close(mixed.permute(0, 3, 1, 2).float(), expected)
        torch.testing.assert_close(targets, labels, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
def test_a_pair_is_mixed_as_torchvision_mixes_it(monkeypatch, mixup, cutmix):
    """torchvision pairs an image with the one before it: for two images the same partner. Its box
    has an even width, so steps whose box is odd are left out."""
    import_timm()
    from torchvision.transforms import v2

    images = pictures(2)
    compared = 0
    for step in range(40):
        rng = np.random.default_rng((5, step, 1))
        share = rng.beta(mixup or cutmix, mixup or cutmix)
        # Our centre is drawn from top to bottom first, theirs from left to right.
        y, x = (rng.integers(24), rng.integers(24)) if cutmix else (0, 0)
        if cutmix and int(24 * (1 - share) ** 0.5) % 2:
            continue
        compared += 1
        theirs = (v2.CutMix if cutmix else v2.MixUp)(alpha=1.0, num_classes=2)
        fixed = SimpleNamespace(sample=lambda _, s=share: torch.tensor(s))
        monkeypatch.setattr(theirs, "_dist", fixed)
        draws = iter([torch.tensor([int(x)]), torch.tensor([int(y)])])
        with monkeypatch.context() as patched:
            patched.setattr(torch, "randint", lambda *_, d=draws, **__: next(d))
            expected, labels = theirs(images.permute(0, 3, 1, 2).float(), torch.tensor([1, 0]))
        mixed, targets, _ = Mixing(5, mixup, cutmix)(step, images, torch.eye(2).flip(1))
        torch.testing.assert_close(mixed.permute(0, 3, 1, 2).float(), expected)
        torch.testing.assert_close(targets, labels, rtol=0, atol=1e-6)
    assert compared > 10


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 7), st.integers(0, 10_000), st.booleans(), st.floats(0, 1))
def test_the_loss_of_the_mixed_is_the_mixed_loss(count, seed, weighted, share):
    """Σ (λ w_i ℓ(s, y_i) + (1 - λ) w_j ℓ(s, y_j)) / Σ (λ w_i + (1 - λ) w_j) over known labels."""
    rng = np.random.default_rng(seed)
    y = rng.random((count, 3)).astype(np.float32)
    y[rng.random(y.shape) < 0.3] = np.nan
    w = rng.random(y.shape).astype(np.float32) if weighted else np.ones_like(y)
    s = rng.normal(size=y.shape).astype(np.float32)
    half = count // 2
    tensors = torch.from_numpy(y), torch.from_numpy(w) if weighted else None
    targets, weights = mixed_targets(*tensors, half, share)
    for loss in (CrossEntropy(), Focal()):
        ours = loss(torch.from_numpy(s), targets, weights=weights).item()
        above = below = 0.0
        for i in range(count):
            for row, part in ((i, share), ((i + half) % count, 1 - share)):
                for k in range(3):
                    if np.isnan(y[row, k]):
                        continue
                    one = [torch.tensor([float(v)]) for v in (s[i, k], y[row, k])]
                    above += part * w[row, k] * loss(*one).item()
                    below += part * w[row, k]
        assert ours == pytest.approx(above / below if below else 0.0, rel=1e-3, abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.integers(8, 64), st.integers(8, 64), st.floats(0, 1), st.integers(0, 10_000))
def test_a_box_lies_in_the_image_and_has_at_most_its_area(height, width, share, seed):
    top, bottom, left, right = box(np.random.default_rng(seed), height, width, share)
    assert 0 <= top <= bottom <= height and 0 <= left <= right <= width
    assert (bottom - top) * (right - left) <= (1 - share) * height * width + 1e-6


def test_with_both_a_step_takes_one_of_them():
    images = pictures(4)
    targets = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    kinds = [Mixing(0, 1.0, 1.0)(step, images, targets)[0].dtype for step in range(60)]
    assert 15 < kinds.count(torch.uint8) < 45
    assert torch.equal(images, pictures(4))  # what is mixed is a copy


@pytest.mark.parametrize("loss", ["aucm", "aucs", "pairwise"])
@pytest.mark.parametrize("field", ["mixup", "cutmix"])
def test_auc_losses_refuse_mixed_images_and_say_why(loss, field):
    with pytest.raises(UserError, match="a mixed one is neither: mixup and cutmix are for 'ce'"):
        Finetune(loss=loss, **{field: 0.2})
    assert Finetune(loss="ce", **{field: 0.2})


def test_a_network_on_patient_columns_has_no_images():
    with pytest.raises(UserError, match="no images"):
        Metadata(finetune=Finetune(loss="ce", mixup=0.2))


def test_partners_must_be_in_one_process():
    mixing = Mixing(0, 1.0, 0.0)
    mixing.require_even(30, 1)
    mixing.require_even(32, 8)
    with pytest.raises(UserError, match=r"batch_size=24: .* 8 processes need a multiple of 16"):
        mixing.require_even(24, 8)
