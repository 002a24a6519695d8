"""Two processes are one run: the same completions and rewards, the same policy, no sample twice and none left out.

REFSEG_DATA is not needed. `make test-distributed` runs these: each starts rl/grpo.py by accelerate, with a trained
decoder among the rewards.
"""

import json
import subprocess
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file

from rollouts.policy import load_model, load_processor
from segmentation.backbones import make_backbone
from segmentation.decoders import BoxGuidedDecoder
from tests.distributed_runs import LORA, TINY, train
from tests.runs import ROOT, accelerate, environment, history
from tests.test_painter import SMALL

pytestmark = pytest.mark.distributed
KINDS = {"lora": [LORA], "full": []}
LAUNCHERS = ("cpu", "zero2", "zero3")  # accelerate (1.15) has no FSDP on a CPU, and would run DDP instead
WEIGHTS = "model.safetensors"
VALIDATED = ["benchmark=scenes_val", "benchmark.length=3", "validation.overlays=0", "trainer.save_strategy=steps"]
SAMPLES = 5  # two prompts at once, on one process or on two: they do not divide


@pytest.fixture(scope="module")
def decoder(taught, tmp_path_factory):
    """A decoder of the taught policy, untrained: masks of it are as good as any to compare."""
    processor, model = load_processor(taught), load_model(taught, "float32")
    spec = make_backbone(model, processor, (0, -1)).spec
    torch.manual_seed(0)
    made = BoxGuidedDecoder(spec.llm_dim, spec.vision_dims, **SMALL, use_token=False, use_states=False, spec=spec)
    folder = tmp_path_factory.mktemp("decoder")
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(taught, decoder, tmp_path_factory):
    """Runs by launcher, processes and overrides."""

    def start(launcher, processes, *overrides):
        folder = tmp_path_factory.mktemp(f"{launcher}-{processes}")
        return train(folder, taught, decoder, launcher, processes, f"data.length={SAMPLES}", *overrides)

    return start


@pytest.fixture(scope="module")
def alone(run):
    """What one process does, with LoRA and without, and with vLLM."""
    done = {}

    def get(kind, engine="transformers"):
        if (kind, engine) not in done:
            done[kind, engine] = run("cpu", 1, f"rollouts={engine}", *KINDS[kind])
        return done[kind, engine]

    return get


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_do_what_one_does(run, alone, taught, launcher, kind):
    both = run(launcher, 2, "rollouts=transformers", *KINDS[kind])
    _same(both, alone(kind), load_file(taught / WEIGHTS))
    _every_sample_once(both)


def test_the_best_checkpoint_of_a_zero3_run_is_written_by_one_process(run, taught):
    """It loads a whole model, which under ZeRO-3 is otherwise for all processes to do together."""
    both = run("zero3", 2, "rollouts=transformers", LORA, *VALIDATED)
    best = load_file(both.folder / "best" / WEIGHTS)
    assert best.keys() == load_file(taught / WEIGHTS).keys()
    assert any("eval_gIoU" in line for line in history(both.folder))


@pytest.mark.vllm
def test_two_engines_under_zero3_do_what_one_does(run, alone, taught):
    _same(run("zero3", 2, "rollouts=vllm", LORA), alone("lora", "vllm"), load_file(taught / WEIGHTS))


def test_a_bfloat16_base_in_two_halves_does_not_drift_in_200_syncs():
    told = _told("tests/drift_run.py")
    assert sorted((one["kind"], one["rank"]) for one in told) == [
        ("fsdp2", 0),
        ("fsdp2", 1),
        ("zero3", 0),
        ("zero3", 1),
    ]
    for one in told:
        assert not one["drifted"] and not one["other"], one
        assert 0.4 < one["here"] < 0.7, one  # half of it, and of LoRA's matrices


def test_a_policy_in_two_halves_is_painted_for_before_its_first_forward():
    told = _told("tests/fsdp2_paint_run.py")
    assert sorted((one["kind"], one["rank"]) for one in told) == [(k, r) for k in ("box", "box_states") for r in (0, 1)]
    assert all(one["same"] == [True, True] for one in told), told


def _told(script):
    """What a script says on two processes, an object a line."""
    done = subprocess.run([*accelerate("cpu", 2), script], cwd=ROOT, env=environment(), text=True, capture_output=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _same(both, one, start):
    """The same rows with the same tokens and masks, the same rewards, and the same policy in the end."""
    assert len(both.batches) == len(one.batches) > 1
    for two, single in zip(both.batches, one.batches, strict=True):
        assert two == single
    assert any(area for batch in both.batches for _, _, area in batch)  # the decoder has drawn
    assert both.rewards == pytest.approx(one.rewards, abs=1e-6)
    assert both.policy.keys() == one.policy.keys() == start.keys()
    moved = sum((one.policy[name] - weight).square().sum().item() for name, weight in start.items())
    apart = sum((both.policy[name] - weight).square().sum().item() for name, weight in one.policy.items())
    assert apart < 1e-4 * moved  # one percent of the way, by rounding that Adam makes much of


def _every_sample_once(run):
    prompts = [sample for batch in run.batches for sample, _, _ in batch]
    group = int(next(one for one in TINY if "num_generations" in one).partition("=")[2])
    assert all(len(set(prompts[i : i + group])) == 1 for i in range(0, len(prompts), group))  # a group is one prompt's
    dealt = prompts[::group]
    numbers = [int(sample.split("-")[3]) for sample in dealt[:SAMPLES]]  # scenes-train-SEED-NUMBER-KIND
    assert sorted(numbers) == list(range(SAMPLES))
    assert max(Counter(dealt).values()) <= -(-len(dealt) // SAMPLES)  # none again before all the others
