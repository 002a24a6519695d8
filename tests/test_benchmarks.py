"""Several benchmarks in one run: what the command line means, what is left out, and by whose rules each is scored."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from configs import ConfigError
from configs.several import CONFIGS, expanded
from evaluation.benchmarks import make_benchmarks
from evaluation.predictions import BadPredictions, PredictionWriter, gather, read_predictions
from evaluation.progress import RunningScore
from evaluation.score import make_protocol
from segmentation.data.scenes import Scenes
from segmentation.metrics import Evaluator
from segmentation.protocols import Lisa, Rela, Rmsin
from segmentation.published import Published
from tests.official import write_grefcoco
from tests.runs import launch
from tests.test_predictions import RUN, records


def section(*arguments: str) -> dict:
    """The benchmark section of an evaluate.py command."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        composed = compose("evaluate", expanded(arguments, ["benchmark"])).benchmark
    made = OmegaConf.to_container(OmegaConf.create({"benchmark": composed}), resolve=True)
    assert isinstance(made, dict)
    return made["benchmark"]


def test_a_list_is_a_section_for_each_with_the_root_they_share():
    made = section(
        "benchmark=[scenes_val,refcoco_val,muse_val]", "benchmark.root=/data", "benchmark.parts.muse_val.root=/b"
    )
    assert list(made["parts"]) == ["scenes_val", "refcoco_val", "muse_val"]
    assert "root" not in made["parts"]["scenes_val"]
    assert (made["parts"]["refcoco_val"]["root"], made["parts"]["muse_val"]["root"]) == ("/data", "/b")
    assert made["absent"] == "stop"
    assert section("benchmark=scenes_val", "benchmark.length=3")["length"] == 3  # one is as it was


def test_all_is_every_benchmark_that_needs_a_root_alone():
    made = section("benchmark=all", "benchmark.root=/data")
    files = {path.stem for path in (CONFIGS / "benchmark").glob("*.yaml")}
    others = {"none", "several", "jsonl", "ors_bench", "scenes_val", "scenes_testA", "scenes_testB"}
    assert set(made["parts"]) == files - others and len(made["parts"]) > 20
    assert {part["root"] for part in made["parts"].values()} == {"/data"}
    assert made["absent"] == "name"


def test_what_is_there_is_made_and_the_rest_is_named(tmp_path):
    root = write_grefcoco(tmp_path)
    listed = section("benchmark=[grefcoco_val,muse_val,scenes_val]", f"benchmark.root={root}", "benchmark.absent=name")
    made, absent = make_benchmarks(listed, Path("out"))
    assert [benchmark.folder for benchmark in made] == [Path("out/grefcoco_val"), Path("out/scenes_val")]
    assert len(made[0].samples) == 2 and made[0].section["root"] == str(root)
    assert list(absent) == ["muse_val"] and "muse_val.json: no such file" in absent["muse_val"]
    with pytest.raises(ConfigError, match=r"benchmark\.parts\.muse_val: .*muse_val\.json: no such file"):
        make_benchmarks(listed | {"absent": "stop"}, Path("out"))
    with pytest.raises(ConfigError, match=r"benchmark\.root=/nowhere: no benchmark is there\. /nowhere/.*no "):
        make_benchmarks(section("benchmark=all", "benchmark.root=/nowhere"), Path("out"))
    with pytest.raises(ConfigError, match=r"benchmark\.parts\.muse_val\.root: no value; give one: benchmark\.root="):
        make_benchmarks(section("benchmark=[muse_val]"), Path("out"))
    with pytest.raises(ConfigError, match=r"no benchmark is there\. Name some"):
        make_benchmarks(section("benchmark=several"), Path("out"))
    with pytest.raises(ConfigError, match=r"nearest valid one is 'stop'"):
        make_benchmarks(listed | {"absent": "stopp"}, Path("out"))
    ((one,), absent) = make_benchmarks(section("benchmark=scenes_val"), Path("out"))
    assert (one.folder, absent) == (Path("out"), {})
    (tmp_path / "grefcoco/instances.json").write_text("{")  # there, and damaged: never left out
    with pytest.raises(ConfigError, match=r"grefcoco_val: .*not complete JSON"):
        make_benchmarks(listed, Path("out"))


def test_each_dataset_has_the_protocol_of_its_papers_unless_one_is_named():
    published = Published()
    assert [published.of(name) for name in ("grefcoco", "rrsisd", "refcoco", "mine")] == [
        Rela(),
        Rmsin(),
        Lisa(),
        Lisa(),
    ]
    assert Published(ignore="background", empty_pixels=50).of("grefcoco") == Rela("background", 0.0, 50)
    samples = Scenes("val", length=1)
    with initialize_config_dir(str(CONFIGS), version_base=None):
        chosen = [compose("score", overrides).protocol for overrides in ([], ["protocol=rela"])]
        wrong = compose("score", ["protocol.empty_iou=2"]).protocol
    assert [make_protocol(one, samples) for one in chosen] == [Lisa(), Rela()]
    with pytest.raises(ConfigError, match=r"protocol: empty_iou=2"):
        make_protocol(wrong, samples)


@pytest.mark.parametrize("processes", [(1, 1), (3, 2), (1, 3)])
def test_no_line_is_lost_or_doubled_by_kills_and_other_numbers_of_processes(tmp_path, processes):
    samples, made = records(12)
    before, after = processes
    for number in range(before):  # killed: each wrote some, and the half of a line
        part = tmp_path / f"predictions-{number}-of-{before}.jsonl"
        with PredictionWriter(part, RUN) as writer:
            for record in made[number::before][: 2 + number]:
                writer.write(record)
        part.write_bytes(part.read_bytes() + b'{"id": "ha')
    kept = {record.id for record in read_predictions(gather(tmp_path, RUN))}
    assert len(kept) == sum(2 + number for number in range(before))
    assert not [*tmp_path.glob("predictions-*")]
    for number in range(after):
        with PredictionWriter(tmp_path / f"predictions-{number}-of-{after}.jsonl", RUN) as writer:
            for record in made[number::after]:
                if record.id not in kept:
                    writer.write(record)
    parts = {path: path.read_bytes() for path in tmp_path.glob("predictions-*")}
    path = gather(tmp_path, RUN)
    for part, content in parts.items():  # killed after the parts were put together and before they were removed
        part.write_bytes(content)
    again = list(read_predictions(gather(tmp_path, RUN)))
    assert sorted(again, key=lambda record: record.id) == sorted(made, key=lambda record: record.id)
    assert list(read_predictions(path)) == again and len(samples) == len(again)
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(BadPredictions, match=r"predictions\.jsonl, line 13: 'id' is None"):
        gather(tmp_path, RUN)
    with pytest.raises(BadPredictions, match="another run"):
        gather(tmp_path, RUN | {"checkpoint": "other"})


def test_the_running_score_is_the_ciou_of_what_was_answered():
    samples, made = records(25)
    evaluator = Evaluator(Rela())
    with RunningScore("scenes", 25, Rela(), quiet=True) as running:
        for sample, record in zip(samples, made, strict=True):
            running.add(sample, record.prediction)
            evaluator.add(sample, record.prediction, record.mask)
            (task,) = running._progress.tasks
            ciou = evaluator.result()["cIoU"]
            assert task.fields["seen"] == (f"cIoU {ciou:.4f}" if ciou is not None else "")
            assert task.completed == len(evaluator.rows)


def test_one_command_evaluates_on_several_and_makes_table_and_report(tmp_path):
    root = write_grefcoco(tmp_path)
    asked = ["benchmark=[grefcoco_val,scenes_val]", f"benchmark.root={root}", "benchmark.parts.scenes_val.length=5"]
    asked += ["answers=annotated", "overlays=0", "report=2", f"output_dir={tmp_path}/out"]
    said = launch("evaluation/evaluate.py", *asked)
    metrics = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("out/*/metrics.json")}
    assert {name: (one["protocol"], one["n_scored"]) for name, one in metrics.items()} == {
        "grefcoco_val": ("rela", 2),
        "scenes_val": ("lisa", 5),
    }
    assert "reported:" in said and "measured" in said
    markdown = (tmp_path / "out/table.md").read_text()
    assert "reported: MLLMSeg" in markdown and "scenes val" in markdown
    assert f"{100 * metrics['grefcoco_val']['gIoU']:.1f}" in markdown
    assert (tmp_path / "out/table.csv").exists() and (tmp_path / "out/table.tex").exists()
    page = (tmp_path / "out/report.html").read_text()
    assert 'scope="col">grefcoco_val' in page and 'scope="col">scenes_val' in page
