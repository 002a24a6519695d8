"""The whole path on real RefCOCO images by overrides alone: warm start, GRPO with vLLM, evaluation on two splits."""

import json

import pytest

from tests.runs import BASE, QUICK_GRPO, QUICK_SFT, launch


@pytest.mark.realdata
@pytest.mark.vllm
def test_warm_start_grpo_and_evaluation_on_refcoco(tmp_path, real_data):
    refcoco = ["data=refcoco", f"data.root={real_data / 'refer_mini'}", "data.split=val"]
    warm, tuned = tmp_path / "warm_start", tmp_path / "grpo"
    launch("sft/warm_start.py", *refcoco, f"model.path={BASE}", f"output_dir={warm}", *QUICK_SFT)
    launch("rl/grpo.py", *refcoco, f"model.path={warm}/policy", f"output_dir={tuned}", *QUICK_GRPO)
    scored = 0
    for split in ("testA", "testB"):
        out = tmp_path / split
        benchmark = [f"benchmark=refcoco_{split}", f"benchmark.root={real_data / 'refer_mini'}"]
        launch("evaluation/evaluate.py", *benchmark, f"model.path={tuned}/policy", f"output_dir={out}", "max_tokens=48")
        metrics = json.loads((out / "metrics.json").read_text())
        assert metrics["n_expected"] == metrics["n_scored"] > 0
        assert metrics["n_found"] + metrics["n_no_target"] + metrics["n_invalid"] == metrics["n_expected"]
        scored += metrics["n_scored"]
    assert scored == _sentences(real_data, "testA", "testB")


def _sentences(root, *splits):
    from segmentation.data.refer import Refer

    return sum(len(Refer(root / "refer_mini", split=split)) for split in splits)
