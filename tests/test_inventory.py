"""segmentation.data.inventory: what lies in a folder of data."""

import json

import pytest

from segmentation.data.inventory import choices, main


def test_every_dataset_with_a_root_is_tried():
    tried = {name for _, name in choices()}
    assert {"refcoco", "grefcoco_val", "reasonseg_test", "coco_panoptic", "refcoco_m"} <= tried
    assert not tried & {"scenes", "mixture", "jsonl", "none"}


@pytest.mark.realdata
def test_real_data_are_found_and_the_rest_is_named(real_data, capsys):
    with pytest.raises(SystemExit) as ended:
        main([f"root={real_data / 'refer_mini'}", "opened=2"])
    said = capsys.readouterr().out
    lines = {line.split()[1]: line for line in said.splitlines()}
    assert ended.value.code == 1
    # a sample of RefCOCO is not RefCOCO: the number tells
    assert lines["benchmark=refcoco_val"].startswith("broken") and "published are 10,834" in said
    assert "absent" in lines["data=muse"] and "no such file" in lines["data=muse"]


def test_a_broken_file_is_broken_and_not_absent(tmp_path, capsys):
    folder = tmp_path / "refcoco"
    folder.mkdir()
    (folder / "refs(unc).p").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    (folder / "instances.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    (tmp_path / "images/mscoco/images/train2014").mkdir(parents=True)
    with pytest.raises(SystemExit) as ended:
        main([f"root={tmp_path}"])
    said = capsys.readouterr().out
    assert ended.value.code == 1
    assert "broken  data=refcoco" in said and "system" in said
    assert "absent  data=reasonseg" in said


@pytest.mark.parametrize("arguments", [[], ["root="], ["root=x", "colour=red"], ["root=x", "opened=many"]])
def test_what_it_cannot_read_is_its_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "usage" in capsys.readouterr().err


def test_a_folder_that_is_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([f"root={tmp_path / 'nothing'}"])
    assert ended.value.code == 2 and "no such folder" in capsys.readouterr().err
