"""The whole path on one machine, what `make quickstart` runs: warm start, GRPO, evaluation of both.

    python rl/quickstart.py --format box --seed 0 --output outputs/quickstart
    python rl/quickstart.py --format bricks --control     # the warm start goes on for GRPO's time
    python rl/quickstart.py --decoder box_guided_small    # masks by a decoder, trained in between
    python rl/quickstart.py --long --output outputs/long  # an hour; if killed, add --resume

Each step is an ordinary entry point with its ordinary config, printed before it runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evaluation.curves import training_curves
from evaluation.intervals import iou_gain
from evaluation.overlay import before_after
from evaluation.score import fill
from rl.steps import environment, executable, launched
from segmentation.data.scenes import Scenes
from segmentation.metrics import Evaluator

FORMATS = {
    "box": ["format=box"],
    "bricks": ["format=bricks_box", "format.columns=8", "format.grid=16", "format.label=none"],
}
GRPO = {  # what suits the length of the texts: configs/trainer/grpo.yaml and rewards/README.md say why
    "box": [],
    "bricks": ["trainer.top_p=0.9", "rewards=by_part", "rewards.no_target.weight=1.7"],
}
SECONDS = "seconds.json"  # in the output: what each step took; a folder without it is not a quickstart's
WARM_STEPS = {"box": 120, "bricks": 220}  # until at least 95% of the texts are valid
GRPO_STEPS = {"box": 120, "bricks": 160}
LONG_STEPS = {"box": 400, "bricks": 700}
COLUMNS = {
    "cIoU": "cIoU",
    "gIoU": "gIoU",
    "Pr@0.5": "Pr@0.5",
    "Acc@0.5": "box Acc@0.5",
    "box_iou": "box IoU",
    "N_acc": "N-acc",
    "T_acc": "T-acc",
    "invalid_rate": "invalid rate",
    "mean_tokens": "mean tokens",
}
HELD_OUT = 2000  # of testA: what was tuned was tuned on val
console = Console()


def main() -> None:
    """Run the four commands, then compare what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=FORMATS, default="box")
    parser.add_argument("--seed", type=int, default=0, help="of both trainings and of their scenes")
    parser.add_argument("--output", type=Path, default=Path("outputs/quickstart"))
    parser.add_argument("--decoder", metavar="NAME", help="of configs/decoder: train it, and GRPO under its masks")
    parser.add_argument("--control", action="store_true", help="also continue the warm start, for GRPO's time")
    parser.add_argument("--long", action="store_true", help="GRPO of 400 (box) or 700 updates: trainer=grpo_long")
    parser.add_argument("--grpo", nargs="*", default=[], metavar="KEY=VALUE", help="more overrides for rl/grpo.py")
    parser.add_argument("--resume", action="store_true", help="go on with what a killed run left in --output")
    args = parser.parse_args()
    if args.output.exists() and not args.resume:
        if any(args.output.iterdir()) and not (args.output / SECONDS).exists():
            parser.error(f"--output {args.output}: holds what no quickstart has left there; choose another folder.")
        shutil.rmtree(args.output)
    steps = Steps(args.output, ["resume=true"] if args.resume else [])
    said, warm, tuned = FORMATS[args.format], args.output / "warm_start", args.output / "grpo"
    policies = {"before": warm / "policy", "after": tuned / "policy"}
    stream = [f"seed={args.seed}", f"data.seed={args.seed}"]
    fresh = [f"seed={args.seed}", f"data.seed={args.seed + 1000}"]  # scenes the warm start has not read
    length = WARM_STEPS[args.format]
    steps.train("warm_start", "sft/warm_start.py", *said, *stream, f"trainer.max_steps={length}", f"output_dir={warm}")
    start = f"model.path={policies['before']}"
    if args.decoder:
        trained = args.output / "decoder"
        chosen = [f"decoder={args.decoder}", f"output_dir={trained}"]
        steps.train("decoder", "sft/train_decoder.py", start, *said, *stream, *chosen)
        painted = [*said, "decoder=trained", f"decoder.path={trained / 'best'}"]
    else:
        painted = said
    updates = ["trainer=grpo_long"] if args.long else []
    updates += [f"trainer.max_steps={(LONG_STEPS if args.long else GRPO_STEPS)[args.format]}"]
    told = ["benchmark=scenes_val", *updates, *GRPO[args.format], f"output_dir={tuned}", *args.grpo]
    steps.train("grpo", "rl/grpo.py", start, *painted, *fresh, *told)
    if args.control:
        policies["control"] = args.output / "control" / "policy"
        more = round(length * steps.seconds["grpo"] / steps.seconds["warm_start"])
        where = [start, f"output_dir={args.output / 'control'}", f"trainer.max_steps={more}"]
        steps.train("control", "sft/warm_start.py", *said, *fresh, *where)
    for name, policy in policies.items():
        where = [f"model.path={policy}", f"output_dir={args.output / 'evaluation' / name}", "overlays=0"]
        held_out = ["benchmark=scenes_testA", f"benchmark.length={HELD_OUT}"]
        steps.run(f"evaluate_{name}", "evaluation/evaluate.py", *painted, *where, *held_out)
    compare(args.output, policies, steps.seconds)


class Steps:
    """Runs each step once: one that an earlier, killed run finished is not done again.

    `seconds` holds what each took; of a training that was killed and went on, what it took since.
    """

    def __init__(self, output: Path, resume: list[str]) -> None:
        self._file, self._resume = output / SECONDS, resume
        self.seconds: dict[str, float] = json.loads(self._file.read_text()) if self._file.exists() else {}
        output.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self.seconds), encoding="utf-8")

    def train(self, name: str, script: str, *overrides: str) -> None:
        """A step that leaves checkpoints, and goes on from them."""
        self.run(name, script, *overrides, *self._resume)

    def run(self, name: str, script: str, *overrides: str) -> None:
        """A step, unless it is done."""
        if name not in self.seconds:
            self.seconds[name] = launch(script, *overrides)
            self._file.write_text(json.dumps(self.seconds), encoding="utf-8")


def launch(script: str, *overrides: str) -> float:
    """Run an entry point under accelerate; returns the seconds it took. Its failure is this program's."""
    console.print(f"\n[bold]accelerate launch {script} {shlex.join(overrides)}[/bold]", highlight=False, soft_wrap=True)
    start = time.time()
    done = subprocess.run(executable(launched(script, *overrides)), env=environment())
    if done.returncode:
        raise SystemExit(done.returncode)
    return round(time.time() - start, 1)


def compare(output: Path, policies: dict[str, Path], seconds: dict[str, float]) -> None:
    """The table, the pictures, summary.json."""
    samples = Scenes("testA", HELD_OUT)
    evaluators = {name: Evaluator() for name in policies}
    files = {name: output / "evaluation" / name / "predictions.jsonl" for name in policies}
    said = {name: fill(path, samples, evaluators[name]) for name, path in files.items()}
    metrics = {name: evaluator.result() for name, evaluator in evaluators.items()}
    drawn = [samples[index] for index in range(12)]
    columns = {name: [said[name][s.id].prediction for s in drawn] for name in ("before", "after")}
    before_after(drawn, columns, output / "overlays.png", rows=12)
    training_curves(output / "grpo" / "trainer_state.json", output / "curves.png")
    gains = {name: iou_gain(evaluators["before"].rows, evaluators[name].rows) for name in policies if name != "before"}

    table = Table(title=f"{HELD_OUT} held-out scenes, greedy")
    table.add_column("")
    for name in policies:
        table.add_column(name, justify="right")
    for key, title in COLUMNS.items():
        table.add_row(title, *(f"{metrics[name][key]:.3f}" for name in policies))
    console.print(table)
    for name, gain in gains.items():
        interval = f"95% paired bootstrap interval {gain.low:+.3f} to {gain.high:+.3f}"
        console.print(f"gIoU gain of {name} over before {gain.mean:+.3f}, {interval}")
    checkpoints = {"before": "warm_start", "after": "grpo", "control": "control"}
    shown = {"overlays": output / "overlays.png", "curves": output / "curves.png"}
    shown |= {checkpoints[name]: policy for name, policy in policies.items()}
    summary = {
        **{name: {key: metrics[name][key] for key in COLUMNS} for name in policies},
        "gain": {name: {"gIoU": gain.mean, "interval": [gain.low, gain.high]} for name, gain in gains.items()},
        "seconds": seconds | {"total": round(sum(seconds.values()), 1)},
        "files": {name: str(path) for name, path in shown.items()},
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    for name, path in {**shown, "summary": output / "summary.json"}.items():
        console.print(f"{name}: {path}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
