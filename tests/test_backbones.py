"""Features lie where the picture's parts lie, in every family: paint a part, and find the change at that very cell."""

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tvF

from segmentation.backbones import make_backbone
from tests import families
from tests.families import CELL, FAMILIES, PATCH, inputs_of, noise, prompt, seen, sizes_of

# (width, height), each left untouched by the family's processor, so that painted patches are patches of the model.
SIZES = {
    "qwen2_5_vl": [(64, 64), (128, 96), (80, 160), (208, 64)],
    "qwen3_vl": [(64, 64), (128, 96), (80, 160), (208, 64)],
    "internvl": [(32, 32), (64, 32), (32, 96), (96, 64)],  # tiles of 32 x 32: 1, 1 x 2, 3 x 1, 2 x 3
}


@pytest.fixture(scope="module")
def policies():
    return families.policies()


def grid(features):
    """Image states `(1, D, h', w')`, of a full forward."""
    assert features.image_states is not None
    return features.image_states


def painted(picture, side, row, column):
    """The picture with one square of `side` pixels black."""
    copy = picture.copy()
    copy.paste((0, 0, 0), (column * side, row * side, (column + 1) * side, (row + 1) * side))
    return copy


def changed_cell(before, after):
    """Row and column of the cell that changed most between maps `(1, C, h, w)`."""
    change = (after - before).norm(dim=1)[0]
    row, column = divmod(int(change.argmax()), change.shape[1])
    return row, column


def cells(width, height, side):
    """Corners, and cells off every diagonal, so that no exchange of axes or orders goes unseen."""
    rows, columns = height // side, width // side
    return {(0, 0), (0, columns - 1), (rows - 1, 0), (1, 0), (0, 1), (rows // 2, columns // 3), (rows - 1, columns - 2)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("which", range(4))
def test_a_painted_patch_changes_its_cell_of_every_map(policies, family, which):
    model, processor = policies[family]
    width, height = SIZES[family][which]
    picture = noise((width, height))
    places = sorted(cells(width, height, PATCH))
    (before, *after) = seen(model, processor, [picture, *(painted(picture, PATCH, *at) for at in places)], (0, -1))
    assert [tuple(layer.shape[2:]) for layer in before.vision] == [(height // PATCH, width // PATCH)] * 2
    for place, features in zip(places, after, strict=True):
        for first, second in zip(before.vision, features.vision, strict=True):
            assert changed_cell(first, second) == place


@pytest.mark.parametrize("family", FAMILIES)
def test_several_sizes_in_one_batch(policies, family):
    """Each picture's own cell moves, that of the others does not, in maps and in image states."""
    model, processor = policies[family]
    pictures = [noise(size, seed) for seed, size in enumerate(SIZES[family])]
    before = seen(model, processor, pictures)
    for row, (width, height) in enumerate(SIZES[family]):
        place = (height // CELL - 1, width // CELL - 2)
        after = seen(model, processor, [painted(p, CELL, *place) if r == row else p for r, p in enumerate(pictures)])
        assert changed_cell(grid(before[row]), grid(after[row])) == place
        assert grid(before[row]).shape[2:] == (height // CELL, width // CELL)
        map_row, map_column = changed_cell(before[row].vision[0], after[row].vision[0])
        assert (map_row // 2, map_column // 2) == place
        for other in set(range(4)) - {row}:
            torch.testing.assert_close(after[other].vision[0], before[other].vision[0])
            torch.testing.assert_close(after[other].image_states, before[other].image_states)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_painted_cell_changes_its_image_state(policies, family):
    model, processor = policies[family]
    for width, height in SIZES[family]:
        picture = noise((width, height))
        places = sorted(cells(width, height, CELL))
        (before, *after) = seen(model, processor, [picture, *(painted(picture, CELL, *at) for at in places)])
        for place, features in zip(places, after, strict=True):
            assert changed_cell(grid(before), grid(features)) == place


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shift", [False, True])
def test_image_states_are_those_of_their_tokens(policies, family, shift):
    """Against transformers' own `output_hidden_states`, position by position."""
    model, processor = policies[family]
    pictures = [noise(size, seed) for seed, size in enumerate(SIZES[family])]
    inputs = inputs_of(processor, pictures)
    with torch.no_grad():
        hidden = model(**inputs, output_hidden_states=True).hidden_states[-1]
    assert inputs["attention_mask"][0, 0] == 0, "padded on the left"
    for row, features in enumerate(seen(model, processor, pictures, shift=shift)):
        first = inputs["input_ids"][row].tolist().index(model.config.image_token_id) - shift
        states = grid(features)
        torch.testing.assert_close(states[0, :, 0, 0], hidden[row, first])
        if family == "internvl":
            last = first + 4 * (pictures[row].height // 32) * (pictures[row].width // 32) - 1  # before the thumbnail
        else:
            torch.testing.assert_close(states[0].flatten(1).T, hidden[row, first : first + states[0, 0].numel()])
            last = first + states[0, 0].numel() - 1
        torch.testing.assert_close(states[0, :, -1, -1], hidden[row, last])


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_are_the_picture_the_model_saw(policies, family):
    model, processor = policies[family]
    pictures = [
        *(noise(size) for size in SIZES[family]),
        noise((101, 77)),
        noise((50, 143)),
    ]  # the last two are resized
    for picture, features in zip(pictures, seen(model, processor, pictures), strict=True):
        height, width = features.pixels.shape[2:]
        resized = tvF.resize(tvF.pil_to_tensor(picture), [height, width], InterpolationMode.BICUBIC, antialias=True)
        assert features.pixels.min() >= 0 and features.pixels.max() <= 1
        torch.testing.assert_close(features.pixels[0] * 255, resized.float(), atol=0.01, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_vision_alone_equals_the_full_forward(policies, family):
    model, processor = policies[family]
    pictures = [noise(size, seed) for seed, size in enumerate(SIZES[family])]
    full = seen(model, processor, pictures, (0, 1, -1))
    backbone = make_backbone(model, processor, (0, 1, -1))
    inputs = {name: value for name, value in inputs_of(processor, pictures).items() if name != "input_ids"}
    with torch.no_grad():
        everything = backbone.vision(inputs, image_sizes=sizes_of(pictures))
        some = backbone.vision(inputs, rows=[3, 1], image_sizes=sizes_of(pictures))
    for expected, features in zip([*full, full[3], full[1]], [*everything, *some], strict=True):
        assert features.image_states is None
        torch.testing.assert_close(features.vision, expected.vision, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(features.pixels, expected.pixels)


def test_qwen3_deepstack_levels_are_what_its_merger_reads(policies):
    model, processor = policies["qwen3_vl"]
    backbone = make_backbone(model, processor, "deepstack")
    assert backbone.spec.vision_layers == tuple(model.config.vision_config.deepstack_visual_indexes) == (1,)
    inputs = inputs_of(processor, [noise((96, 64))])
    with torch.no_grad(), backbone.record() as recording:
        fed = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).deepstack_features[0]
        again = model.model.visual.deepstack_merger_list[0](recording.outputs[0])
    torch.testing.assert_close(again, fed)


def test_layers_and_spec(policies):
    model, processor = policies["internvl"]
    spec = make_backbone(model, processor, [0, -1]).spec
    assert (spec.family, spec.vision_layers, spec.vision_dims, spec.llm_dim) == ("internvl", (0, 2), (48, 48), 64)
    with pytest.raises(ValueError, match="no block 3, the encoder has 3"):
        make_backbone(model, processor, (3,))
    with pytest.raises(ValueError, match="internvl has no such levels"):
        make_backbone(model, processor, "deepstack")


def test_the_last_map_of_internvl_is_what_its_projector_reads(policies):
    """Before pixel shuffle, and without CLS."""
    model, processor = policies["internvl"]
    picture = noise((32, 32))
    expected = model.model.get_image_features(inputs_of(processor, [picture])["pixel_values"]).last_hidden_state
    (features,) = seen(model, processor, [picture], (-1,))
    torch.testing.assert_close(features.vision[0][0].flatten(1).T, expected[0, 1:])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cells", ["replicate", "scan"])
def test_projected_is_what_the_language_model_is_fed(policies, family, cells):
    model, processor = policies[family]
    width, height = SIZES[family][3]
    place = (height // PATCH - 2, width // PATCH - 3)
    pictures = [noise(SIZES[family][1], 1), noise((width, height)), painted(noise((width, height)), PATCH, *place)]
    backbone = make_backbone(model, processor, (0,), cells)
    inputs = inputs_of(processor, pictures)
    grids = {name: value for name, value in inputs.items() if name == "image_grid_thw"}
    with torch.no_grad():
        fed = model.model.get_image_features(inputs["pixel_values"], **grids).pooler_output
        with backbone.record() as recording:
            model(**inputs)
        _, before, after = backbone.features(recording, inputs, image_sizes=sizes_of(pictures))
        alone = backbone.vision(inputs, [1], image_sizes=sizes_of(pictures))[0]
    if family == "internvl":  # tiles of 2 x 2 tokens, behind the 2 tiles and the thumbnail of the first picture
        expected = torch.cat([torch.cat([t.T.view(-1, 2, 2) for t in fed[3 + r : 6 + r]], 2) for r in (0, 3)], 1)
    else:
        expected = fed[1].T.view(-1, height // CELL, width // CELL)
    for features in (before, alone):
        assert features.projected is not None and features.projected_fine is not None and len(features.vision) == 1
        torch.testing.assert_close(features.projected[0], expected, atol=1e-5, rtol=1e-4)
        assert features.projected_fine.shape[2:] == (height // PATCH, width // PATCH)
    assert after.projected_fine is not None and before.projected_fine is not None
    change = (after.projected_fine - before.projected_fine).norm(dim=1)[0]
    places = [place] if cells == "replicate" else [(place[0] - y, place[1] - x) for y in (0, 1) for x in (0, 1)]
    strongest = change.flatten().topk(len(places)).indices.tolist()
    assert sorted(divmod(index, change.shape[1]) for index in strongest) == sorted(places)


def test_internvl_needs_the_sizes_of_tiled_pictures(policies):
    model, processor = policies["internvl"]
    backbone = make_backbone(model, processor)
    inputs = inputs_of(processor, [noise((96, 64)), noise((32, 32))])
    with torch.no_grad(), backbone.record() as recording:
        model(**inputs)
    with pytest.raises(ValueError, match="arrange 8 tiles of 2 pictures"):
        backbone.features(recording, inputs)
    with pytest.raises(ValueError, match="make 6 tiles, pixel_values has 8"):
        backbone.features(recording, inputs, image_sizes=[(32, 64), (64, 32)])
    with pytest.raises(ValueError, match="28 image tokens was given a size of 1 tiles of 4"):
        backbone.features(recording, inputs, image_sizes=[(32, 32), (64, 96)])
    with pytest.raises(ValueError, match="tell an InternVL picture's tiles"):
        backbone.vision({"pixel_values": inputs["pixel_values"]})
    single = processor(images=[noise((96, 64))], text=[prompt(processor)], crop_to_patches=False, return_tensors="pt")
    assert tuple(backbone.vision(single)[0].pixels.shape) == (1, 3, 32, 32)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("images", [(1, 0), (1, 2)], ids=["none", "two"])
def test_a_row_must_have_one_image(policies, family, images):
    model, processor = policies[family]
    texts = [prompt(processor, images=number) for number in images]
    pictures = [noise(SIZES[family][0], seed) for seed in range(sum(images))]
    inputs = inputs_of(processor, pictures, texts)
    backbone = make_backbone(model, processor)
    with torch.no_grad(), backbone.record() as recording:
        model(**inputs)
    with pytest.raises(ValueError, match=f"row 1 has {images[1]} images"):
        backbone.features(recording, inputs)
