"""Reward ablations: GRPO for every cell of a sweep, each with several seeds, evaluated on the same held-out samples.

    python rl/ablate.py sweep=rewards seeds=3
    python rl/ablate.py sweep=rewards seeds=3 dry_run=true        # the cells, and how long they will take
    python rl/ablate.py sweep=scenes over='trainer.learning_rate=1e-4,3e-4' jobs=2
    python rl/ablate.py sweep=scenes over='rewards.no_target.weight=interval(0.5,2)' search=optuna trials=20

Killed, it goes on with the same command: what is done is not done again. A run that fails is reported and stops no
other; the same command tries it again. Writes table.csv, .md and .tex, pictures, report.html and
commands.sh into output_dir.
"""

from __future__ import annotations

import configs

# Imports take seconds, the command line is checked before them.
command = configs.main("ablate", texts=("over",), script=__name__, every_gpu=True)

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from configs.entry import config_dir
from rl.ablation.cells import SEARCHES, Cell, grid, random, suggested
from rl.ablation.devices import Device, devices
from rl.ablation.estimate import MEASURED, Clock, duration, show_plan
from rl.ablation.made import check_made
from rl.ablation.plan import Run, Step, Sweep, check_configs, check_metrics, read_sweep
from rl.ablation.results import Result, read_results, tabulated, value
from rl.ablation.work import Outcome, Workshop, ended_by_sigterm

console = Console(highlight=False, soft_wrap=True)


@command
def main(cfg: DictConfig) -> None:
    """Choose cells, do their steps, put together what came out; as often as the search has cells to try."""
    root = Path(cfg.output_dir)
    sweep = read_sweep(configs.plain(cfg.sweep), cfg.over, config_dir(sys.argv)[1])
    check_numbers(cfg)
    places = devices(cfg.jobs)
    if cfg.dry_run:
        dry_run(sweep, cfg, places, root)
        return
    tried: list[Cell] = []
    results: dict[tuple[Cell, int], Result] = {}
    try:
        with ended_by_sigterm(), Workshop(root, places, tell) as workshop:
            configs.record_run(root, cfg, 0)
            while chosen := next_cells(sweep, cfg, tried, list(results.values()), len(places)):
                tried += chosen
                runs = runs_of(sweep, chosen, cfg.seeds)
                check_made(check(sweep, runs), root)
                ended = workshop.do(step for run in runs for step in run.steps)
                results |= {(one.run.cell, one.run.seed): one for one in read_results(runs, ended, root)}
    except KeyboardInterrupt:
        console.print("Ended, with what was running. The same command goes on from here.")
        sys.exit(130)
    from rl.ablation.report import write_report  # matplotlib takes a second to load; a dry run does without
    from rl.ablation.tables import to_terminal

    found = tabulated(sweep, list(results.values()), cfg.seeds)
    wide = Console(width=max(console.width, Console().measure(to_terminal(found)).minimum))  # hides no number
    wide.print(to_terminal(found))
    for path in write_report(cfg.sweep.name, found, list(results.values()), root):
        console.print(path)
    failed = [one for one in results.values() if one.problem]
    for one in failed:
        console.print(f"failed: {one.run.cell}, seed {one.run.seed}: {one.problem}", markup=False, style="red")
    if failed:
        console.print(f"{len(failed)} of {len(results)} runs failed. The same command tries them again.")
        sys.exit(1)


def check_numbers(cfg: DictConfig) -> None:
    """Raises:
    ConfigError: a number is out of range, or a search is none.
    """
    if cfg.search not in SEARCHES:
        raise configs.unknown("value of search", cfg.search, SEARCHES)
    if cfg.seeds < 1:
        raise configs.ConfigError(f"seeds={cfg.seeds}: at least 1.")
    if (cfg.search == "grid") != (cfg.trials == 0) or cfg.trials < 0:
        raise configs.ConfigError(f"trials={cfg.trials}: how many cells random and optuna try; 0 for search=grid.")
    if cfg.measure < 0:
        raise configs.ConfigError(f"measure={cfg.measure}: at least 1, or 0 not to.")


def next_cells(
    sweep: Sweep, cfg: DictConfig, tried: Sequence[Cell], results: Sequence[Result], devices: int
) -> list[Cell]:
    """The cells to do next, none when all are done: all at once, or what there is room for where Optuna learns."""
    if cfg.search == "optuna":
        metric, better = next(iter(sweep.metrics.items()))
        history = [(cell, value(results, cell, metric)) for cell in tried]
        count = min(max(devices // cfg.seeds, 1), cfg.trials - len(tried))
        return suggested(sweep.axes, history, count, better == "max") if count else []
    if tried:
        return []
    return grid(sweep.axes) if cfg.search == "grid" else random(sweep.axes, cfg.trials)


def runs_of(sweep: Sweep, cells: Sequence[Cell], seeds: int) -> list[Run]:
    """The runs of cells, but for those that an exception leaves out."""
    return [run for cell in dict.fromkeys(cells) if not sweep.skips(cell) for run in sweep.runs(cell, seeds)]


def check(sweep: Sweep, runs: Sequence[Run]) -> dict[str, DictConfig]:
    """The configs of all steps, by id, looked over before anything is started."""
    composed = check_configs(runs)
    for run in runs[:1]:
        check_metrics(sweep, composed[run.steps[-1].id])
    return composed


def dry_run(sweep: Sweep, cfg: DictConfig, places: list[Device], root: Path) -> None:
    """Show what would be done. Of Optuna's cells the first are known; the others take as long."""
    chosen = next_cells(sweep, cfg, [], [], len(places))
    runs = runs_of(sweep, chosen, cfg.seeds)
    clock = Clock(runs, check(sweep, runs), root)
    if cfg.measure:
        with ended_by_sigterm(), Workshop(root / MEASURED, places, tell) as workshop:
            clock.measure(workshop, root / MEASURED, cfg.measure)
    show_plan(console, [axis.name for axis in sweep.axes], runs, clock, len(places), root)
    if cfg.search == "optuna":
        console.print(f"The first {len(chosen)} of {cfg.trials} trials; which the others are depends on their results.")


def tell(step: Step, ended: Outcome | None) -> None:
    """One line for each step that starts or ends."""
    now = time.strftime("%H:%M:%S")
    if ended is None:
        console.print(f"{now} start {step.id}", markup=False)
    elif ended.problem:
        console.print(f"{now} FAILED {ended.problem}", markup=False, style="red")
    else:
        console.print(f"{now} done  {step.id} in {duration(ended.seconds)}", markup=False)


if __name__ == "__main__":
    main()
