import json
from collections import Counter

import pytest
from hydra import compose, initialize_config_dir

import configs
import configs.entry
from configs.several import CONFIGS, expanded
from rollouts.sections import make_samples, make_training_samples
from segmentation.data.check import BrokenData, check
from segmentation.data.grefcoco import GRefCOCO
from segmentation.data.jsonl import Jsonl
from segmentation.data.leaks import held_out
from segmentation.data.mixture import Mixture
from segmentation.data.muse import Muse
from segmentation.data.refer import Refer
from segmentation.data.samples import Shard
from segmentation.data.scenes import Scenes, _phrased
from tests.official import HEIGHT, WIDTH, photo, write_grefcoco, write_muse
from tests.test_refer import write_refer


def scenes(**lengths: int) -> dict[str, Scenes]:
    return {name: Scenes(length=length, seed=seed) for seed, (name, length) in enumerate(lengths.items())}


def places(mixture: Mixture) -> list[tuple[str, int]]:
    return [mixture.source(index) for index in range(len(mixture))]


def test_without_weights_every_sample_comes_once():
    mixture = Mixture(scenes(a=30, b=50, c=3))
    assert sorted(places(mixture)) == [(name, i) for name, n in (("a", 30), ("b", 50), ("c", 3)) for i in range(n)]
    assert len({s.id for s in mixture}) == 83
    check(mixture)


def test_weights_are_the_shares_and_a_part_is_used_up_before_it_comes_again():
    mixture = Mixture(scenes(a=30, b=50, c=3), {"a": 2, "b": 1}, length=100)
    counts = Counter(name for name, _ in places(mixture))
    assert counts == {"a": 50, "b": 25, "c": 25}
    for name, size in (("a", 30), ("c", 3)):
        drawn = [row for part, row in places(mixture) if part == name]
        for start in range(0, len(drawn) - size + 1, size):
            assert sorted(drawn[start : start + size]) == list(range(size))
    assert [r for p, r in places(mixture) if p == "a"][:30] != list(range(30)), "in a random order"
    ids = [s.id for s in mixture]
    assert len(set(ids)) == 100
    assert sum(name.endswith("#9") for name in ids) == 1, "c has 3 samples: the 25th comes for the ninth time"
    check(mixture)


def test_parts_are_mixed_throughout():
    names = [name for name, _ in places(Mixture(scenes(a=500, b=500)))]
    assert all(150 < names[start : start + 400].count("a") < 250 for start in range(0, 1000, 400)[:2])


def test_the_same_in_every_run_whatever_was_asked_before():
    first, second = (Mixture(scenes(a=20, b=30), seed=5) for _ in range(2))
    backwards = [second[index].id for index in reversed(range(50))]
    assert [s.id for s in first] == backwards[::-1]
    assert places(first) != places(Mixture(scenes(a=20, b=30), seed=6))


def test_a_run_goes_on_from_its_index_and_shards_share_out_every_sample():
    mixture = Mixture(scenes(a=20, b=31))
    whole = [s.id for s in mixture]
    assert [Mixture(scenes(a=20, b=31))[index].id for index in range(17, 51)] == whole[17:]
    shards = [Shard(mixture, number, 4) for number in range(4)]
    assert [len(shard) for shard in shards] == [13, 13, 13, 12]
    assert [shards[i % 4][i // 4].id for i in range(51)] == whole
    assert shards[3].image_id(0) is None
    with pytest.raises(ValueError, match="shard 4 of 4: shards are numbered from 0 to 3"):
        Shard(mixture, 4, 4)


def test_a_weight_of_zero_leaves_a_part_out():
    assert {name for name, _ in places(Mixture(scenes(a=5, b=5), {"b": 0}, length=8))} == {"a"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"parts": {}}, r"data\.parts is empty"),
        ({"weights": {"d": 1}}, r"data\.weights\.d: there is no such part; they are a, b"),
        ({"weights": {"a": -1}}, "weights are 0 or more"),
        ({"weights": {"a": 0, "b": 0}}, "one of them is more"),
        ({"weights": {"a": float("nan")}}, "weights are 0 or more"),
        ({"length": 0}, r"data\.length=0"),
        ({"leaks": "fix"}, r"data\.leaks='fix'; it is 'drop' or 'keep'"),
    ],
)
def test_wrong_arguments_are_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        Mixture(**{"parts": scenes(a=5, b=5), **arguments})


def leaky(root):
    """RefCOCO whose train has images 101..104, and gRefCOCO whose val keeps one of them."""

    def one_split_an_image(refs, _):
        refs[:] = [ref for ref in refs if ref["split"] == ("val" if ref["image_id"] == 100 else "train")]

    write_refer(root, edit=one_split_an_image)

    def images(content):
        for number, image in ((7, 100), (8, 102)):
            for entry in content["instances"]["annotations"] + content["refs"]:
                entry["image_id"] = image if entry["image_id"] == number else entry["image_id"]
            for entry in content["instances"]["images"]:
                entry["id"] = image if entry["id"] == number else entry["id"]

    write_grefcoco(root / "g", images)
    return {"refcoco": Refer(root, split="train"), "grefcoco": GRefCOCO(root / "g", "train")}


def test_no_image_of_any_val_or_test_split_is_trained_on(tmp_path, capsys):
    parts = leaky(tmp_path)
    mixture = Mixture(parts, weights={"refcoco": 1, "grefcoco": 1}, leaks="keep")
    assert {s.image_id for s in mixture} >= {100, 102} and "keep" in mixture.report
    del parts["grefcoco"]
    with_all = Mixture({**parts, "scenes": Scenes(length=2)}, held_out={"gref_val": GRefCOCO(tmp_path / "g", "val")})
    assert {with_all.image_id(i) for i in range(len(with_all))} == {101, 103, 104, None}
    assert with_all.report.splitlines() == [
        "mixture: 2 images are held out for val and test",
        "  refcoco: 2 of 8 samples dropped, 6 left",
        "  scenes: 0 of 2 samples dropped, 2 left",
    ]
    assert capsys.readouterr().out.endswith(with_all.report + "\n")


def test_lines_for_test_hold_their_pictures_out_with_or_without_a_coco_id(tmp_path):
    for name in "abc":
        photo(tmp_path / f"{name}.png")
    asked = [("a.png", "train"), ("b.png", "val"), ("b.png", "train"), ("c.png", "testA")]
    lines = [
        {"id": f"{number}", "image": name, "height": HEIGHT, "width": WIDTH, "expression": "it", "targets": []}
        | {"split": split}
        for number, (name, split) in enumerate(asked)
    ]
    for name, some in (("all.jsonl", lines), ("train.jsonl", lines[::2]), ("val.jsonl", lines[1::2])):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in some))
    whole = Jsonl(tmp_path, "all.jsonl")
    assert [sample.id for sample in Mixture({"mine": whole})] == ["0"] and whole.image_id(0) is None
    train, val = Jsonl(tmp_path, "train.jsonl"), Jsonl(tmp_path, "val.jsonl")
    assert len(Mixture({"mine": train})) == 2  # its own lines are all for training
    assert [sample.id for sample in Mixture({"mine": train}, held_out={"val": val})] == ["0"]


def test_muse_holds_out_what_its_other_files_have(tmp_path):
    write_muse(tmp_path)
    train = Muse(tmp_path, "train")
    assert train.held_out == frozenset() and len(Mixture({"muse": train})) == 3
    content = json.loads((tmp_path / "muse/MUSE_train.json").read_text())
    (tmp_path / "muse/MUSE_val.json").write_text(json.dumps(content[1:]))
    assert Muse(tmp_path, "train").held_out == {9} == Muse(tmp_path, "val").held_out
    assert {sample.image_id for sample in Mixture({"muse": Muse(tmp_path, "train")})} == {7}


def test_what_one_part_holds_out_is_dropped_from_the_others(tmp_path):
    parts = leaky(tmp_path)
    assert held_out(parts.values()) == {100, 102}
    with pytest.raises(ValueError, match=r"data\.parts\.grefcoco: no sample is left.*data\.leaks=keep"):
        Mixture(parts)


def test_made_up_pictures_are_not_made_to_look_for_leaks(tmp_path):
    drawn = _phrased.cache_info().misses
    Mixture({"refcoco": leaky(tmp_path)["refcoco"], "scenes": Scenes(length=100_000)})
    assert _phrased.cache_info().misses == drawn


def test_only_the_first_rank_prints(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    Mixture(scenes(a=2))
    assert capsys.readouterr().out == ""


def section(root) -> dict:
    part = {"_target_": "segmentation.data.refer.Refer", "root": str(root), "split": "train", "on_error": "raise"}
    made = {"_target_": "segmentation.data.scenes.Scenes", "length": 4, "on_error": "raise"}
    shared = {"weights": {"refcoco": 2}, "held_out": {}, "root": str(root), "on_error": "raise"}
    return {"_target_": "segmentation.data.mixture.Mixture", "parts": {"refcoco": part, "scenes": made}, **shared}


def test_a_config_makes_a_mixture(tmp_path):
    leaky(tmp_path)
    mixture = make_samples(section(tmp_path))
    assert isinstance(mixture, Mixture) and Counter(name for name, _ in places(mixture)) == {"refcoco": 8, "scenes": 4}
    assert len(make_training_samples(section(tmp_path))) == 12


def composed(root, *overrides: str) -> Mixture:
    with initialize_config_dir(str(configs.entry.CONFIGS), version_base=None):
        cfg = compose("warm_start", ["data=mixture", f"data.root={root}", *overrides])
    configs.entry.check_config(cfg, cfg)
    made = make_samples(cfg.data)
    assert isinstance(made, Mixture)
    return made


def test_parts_are_added_and_removed_on_the_command_line(tmp_path):
    leaky(tmp_path)
    less = ["~data.parts.refcoco_plus", "~data.parts.refcocog", "~data.parts.grefcoco"]
    more = ["+data@data.parts.scenes=scenes", "data.parts.scenes.length=3", "data.weights={refcoco: 1, scenes: 2}"]
    assert len(composed(tmp_path, *less)) == 8
    mixture = composed(tmp_path, *less, *more, "data.length=30")
    assert Counter(name for name, _ in places(mixture)) == {"refcoco": 10, "scenes": 20}
    held = ["+benchmark@data.held_out.gref=grefcoco_val", f"data.held_out.gref.root={tmp_path}/g"]
    assert {s.image_id for s in composed(tmp_path, *less, *held)} == {101, 103, 104}
    with pytest.raises(configs.ConfigError, match=r"data\.held_out\.gref\.root: no value; give one"):
        composed(tmp_path, *less, held[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: s["parts"]["refcoco"].update(spilt="val"),
            r"data\.parts\.refcoco\.spilt.*data\.parts\.refcoco\.split",
        ),
        (lambda s: s["parts"]["refcoco"].update(split="vall"), r"data\.parts\.refcoco: data\.split='vall'"),
        (lambda s: s.update(weights={"coco": 1}), r"data\.weights\.coco"),
        (lambda s: s.update(weights={"refcoco": "x"}), r"data\.weights: expected"),
    ],
)
def test_what_is_wrong_with_a_part_is_named_by_its_key(tmp_path, change, said):
    leaky(tmp_path)
    values = section(tmp_path)
    change(values)
    with pytest.raises(configs.ConfigError, match=said):
        make_samples(values)


def test_a_broken_part_is_found(tmp_path):
    parts = leaky(tmp_path)
    for image in (tmp_path / "images").rglob("*.jpg"):
        image.unlink()
    with pytest.raises(BrokenData, match="of 12 samples cannot be used"):
        check(Mixture({"scenes": Scenes(length=4), "refcoco": parts["refcoco"]}))


def test_large_mixtures_are_made_quickly(tmp_path):
    mixture = Mixture({"a": Scenes(length=3_000_000), "b": Scenes(length=10)}, {"a": 1, "b": 1})
    assert len(mixture) == 3_000_010 and mixture.source(2_999_999)[0] in "ab"
    assert json.dumps(mixture.source(5))


def test_a_list_of_datasets_is_a_mixture_with_a_section_for_each():
    arguments = ["data=[refcoco,scenes]", "data.root=/data", "data.weights={refcoco: 2}", "data.parts.scenes.length=9"]
    with initialize_config_dir(str(CONFIGS), version_base=None):
        made = compose("warm_start", expanded(arguments, ["data"])).data
        four = compose("warm_start", ["data=mixture", "data.root=/data"]).data
        one = compose("warm_start", expanded(["data=scenes"], ["data"])).data
    assert made._target_ == four._target_ == "segmentation.data.mixture.Mixture"
    assert list(made.parts) == ["refcoco", "scenes"] and set(made) == set(four)
    assert (made.parts.refcoco.root, made.weights, made.parts.scenes.length) == ("/data", {"refcoco": 2}, 9)
    assert list(four.parts) == ["refcoco", "refcoco_plus", "refcocog", "grefcoco"]
    assert one._target_ == "segmentation.data.scenes.Scenes"
    assert expanded(["data=all"], ["data"]) == ["data=all"]  # of benchmarks alone
    with pytest.raises(
        configs.ConfigError, match=r"benchmark=\[scenes_val,scenes_testA\]: this command takes one benchmark"
    ):
        expanded(["benchmark=[scenes_val,scenes_testA]"], ["data"])
    rewards = ["rewards=[default,mask_dice]", "rewards.box_iou.weight=[1]"]
    assert expanded(rewards, ["data"]) == rewards


def test_images_are_skipped_in_all_parts_or_in_none():
    scenes = {"_target_": "segmentation.data.scenes.Scenes", "length": 2}
    section = {"_target_": "segmentation.data.mixture.Mixture", "on_error": "raise"}
    parts = {"a": scenes, "b": scenes | {"seed": 1, "on_error": "skip"}}
    with pytest.raises(
        configs.ConfigError, match=r"data\.parts\.b\.on_error: it is one for all parts, data\.on_error=skip"
    ):
        make_training_samples(section | {"parts": parts})
    assert make_training_samples(section | {"parts": parts, "on_error": "skip"}).on_error == "skip"
