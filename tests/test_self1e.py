"""SELF1E's head: its published size, the projector's cells it reads, its auxiliary logits."""

import pytest
import torch
import torch.nn.functional as F

from segmentation.backbones.features import Features, projector_cells, stack
from segmentation.decoders import Self1EHead
from tests.small_decoders import LLM, cut, pictures, size


@pytest.mark.parametrize("width", [1536, 3584])
def test_self1e_has_as_many_parameters_as_published(width):
    with torch.device("meta"):
        assert size(Self1EHead(width)) == 12 * width**2 + 12 * width


def test_self1e_needs_the_projector():
    whole = pictures((2, 2))
    with pytest.raises(ValueError, match="Self1EHead was given no projected_fine"):
        Self1EHead(LLM).encode_image(Features(whole.vision, whole.image_states, whole.pixels, whole.projected))


def test_projector_cells():
    vision = torch.arange(6.0).reshape(1, 1, 2, 3)  # 0 1 2 / 3 4 5
    assert torch.equal(projector_cells(vision, "replicate"), vision.expand(1, 4, 2, 3))
    scan = projector_cells(vision, "scan")
    assert scan[0, :, 0, 0].tolist() == [0, 1, 3, 4] and scan[0, :, 1, 2].tolist() == [5, 5, 5, 5]
    two = torch.cat([vision, 10 + vision], dim=1)
    assert projector_cells(two, "scan")[0, :, 0, 1].tolist() == [1, 11, 2, 12, 4, 14, 5, 15]


def test_features_carry_the_projector_through_stacking():
    whole = pictures((2, 3), count=2)
    parts = [Features(*(cut(getattr(whole, name), k) for name in Features.__dataclass_fields__)) for k in (0, 1)]
    both = stack(parts).to(torch.float64)
    assert both.projected is not None and both.projected_fine is not None and whole.projected is not None
    assert both.projected_fine.shape == (2, LLM, 4, 6) and torch.equal(both.projected, whole.projected.double())
    bare = Features(whole.vision, whole.image_states, whole.pixels)
    with pytest.raises(ValueError, match="2 sizes"):
        stack([whole, bare])
    assert stack([bare, bare]).projected is None


def test_self1e_without_change_shows_the_projector_alone():
    """Refilling adds what the language model changed: with `spread` equal to `own` and states equal to V1, nothing."""
    torch.manual_seed(0)
    head, whole = Self1EHead(LLM).eval(), pictures((2, 3))
    head.spread.load_state_dict(head.own.state_dict())
    same = Features(whole.vision, whole.projected, whole.pixels, whole.projected, whole.projected_fine)
    with torch.no_grad():
        fine = head.encode_image(same).fine
        assert whole.projected_fine is not None
        own = F.pixel_shuffle(head.own(whole.projected_fine.movedim(1, -1)).movedim(-1, 1), 2)
        torch.testing.assert_close(fine, head.combine(own.movedim(1, -1)).movedim(-1, 1), atol=1e-5, rtol=1e-5)
    assert fine.shape == (2, LLM, 8, 12)


def test_self1e_has_auxiliary_logits_at_the_vision_grid():
    head, features = Self1EHead(LLM), pictures((2, 3))
    state, index, token = head.encode_image(features), torch.tensor([0, 1, 1]), torch.randn(3, LLM)
    assert head.auxiliary(state, index, token).shape == (3, 4, 6)
    assert head.decode(state, index, seg_states=token)[0].shape == (3, 8, 12)
    with pytest.raises(ValueError, match="seg_states"):
        head.auxiliary(state, index, None)
