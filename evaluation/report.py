"""One HTML file about one or more evaluations: numbers with intervals, training curves, and a gallery to filter.

    python evaluation/report.py folders=[outputs/eval]
    python evaluation/report.py folders=[outputs/eval_sft,outputs/eval] training=outputs/grpo output=outputs/report.html
    python evaluation/report.py folders=[outputs/eval] benchmark=refcoco_val benchmark.root=/elsewhere shown=24

The file holds everything it shows and opens offline. Evaluations of one benchmark share their cards.
"""

from __future__ import annotations

import configs

# Imports take seconds, the command line is checked before them.
command = configs.main("report", script=__name__)

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from evaluation.curves import training_svg
from evaluation.folder import read_folder
from evaluation.page import page


@command
def main(cfg: DictConfig) -> None:
    """Read, choose, draw, write."""
    for key, least in (("shown", 1), ("side", 16)):
        if cfg[key] < least:
            raise configs.ConfigError(f"{key}={cfg[key]}: at least {least}.")
    if not cfg.folders:
        raise configs.ConfigError("folders=[]: name at least one folder that evaluation/evaluate.py wrote.")
    folders = [Path(str(folder)) for folder in cfg.folders]
    samples = configs.instantiate(cfg.benchmark, where="benchmark") if cfg.benchmark else None
    evaluations = [read_folder(folder, samples, cfg.metrics) for folder in folders]
    curves = training_svg(trainer_state(Path(str(cfg.training)))) if cfg.training else ""
    output = Path(cfg.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    written = page(cfg.title, evaluations, named(folders), curves, cfg.shown, cfg.side, str(cfg.training or ""))
    output.write_text(written, encoding="utf-8")
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


def named(folders: Sequence[Path]) -> list[str]:
    """What to call each folder: its last parts, as few as tell it from the others.

    Raises:
        ConfigError: a folder is named twice.
    """
    whole = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-depth:]) for parts in whole]
        if len(set(names)) == len(names):
            return names
    raise configs.ConfigError(f"folders: {', '.join(map(str, folders))} name one folder twice.")


def trainer_state(run: Path) -> Path:
    """The trainer_state.json of a training run: itself, in the run's folder, or in its last checkpoint.

    Raises:
        ConfigError: there is none.
    """
    if run.is_file():
        return run
    checkpoints = sorted(run.glob("checkpoint-*/trainer_state.json"), key=lambda path: int(path.parent.name[11:]))
    for path in (run / "trainer_state.json", *reversed(checkpoints)):
        if path.is_file():
            return path
    raise configs.ConfigError(f"training={run}: no trainer_state.json there or in a checkpoint; name a training run.")


if __name__ == "__main__":
    main()
