"""Steps being done: each once, after those it needs, as many at a time as there are devices.

A step's folder holds what the step itself writes, `log.txt` (what it printed) and, once it ended, `outcome.json`. A
sweep that was killed leaves steps without an outcome: they are started again, and trainings go on from their last whole
checkpoint. What such a sweep left running is ended first: the log is locked for as long as anything writes to it.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from configs import ConfigError
from configs.entry import CONFIGS
from rl.ablation.devices import Device
from rl.ablation.plan import Step
from rl.steps import environment, executable

GRACE = 20  # seconds that a step has to end when told to
PROMPT = "$ "  # before the command in a log, once a start


@dataclass(frozen=True)
class Outcome:
    """How a step ended. `seconds` are those of its last start, of `starts`; `problem` is empty where all went well."""

    seconds: float
    starts: int
    problem: str = ""


def outcome(step: Step, root: Path) -> Outcome | None:
    """How a step ended, None if it has not."""
    path = step.folder(root) / "outcome.json"
    return Outcome(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


class Workshop:
    """Does steps in the sweep's folder `root`. Use it as a context manager: on the way out it ends what still runs.

    Args:
        told: is called with each step when it is started (None) and when it ends.
        started: what to run for a step's command.

    Raises:
        ConfigError: another process is at work on the folder.
    """

    def __init__(
        self,
        root: Path,
        devices: list[Device],
        told: Callable[[Step, Outcome | None], None],
        started: Callable[[list[str]], list[str]] = executable,
    ) -> None:
        self._root, self._devices, self._told, self._started = root, devices, told, started
        self._running: set[subprocess.Popen] = set()
        self._ending = False

    def __enter__(self) -> Workshop:
        self._root.mkdir(parents=True, exist_ok=True)
        self._lock = (self._root / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ConfigError(f"output_dir={self._root}: another rl/ablate.py is at work there.") from error
        for log in sorted(self._root.glob("steps/*/log.txt")):
            _end_orphan(log)
        return self

    def __exit__(self, *_: object) -> None:
        self._end_all()
        self._lock.close()

    def do(self, steps: Iterable[Step]) -> dict[str, Outcome]:
        """Do the steps and those they need; return how each ended, by id. Earlier ones are begun first.

        A step that is done is not done again, one that failed in an earlier sweep is; one whose need failed is not
        started.
        """
        known = _with_needs(steps)
        order = {key: number for number, key in enumerate(known)}
        sorter = TopologicalSorter({key: [need.id for need in step.needs] for key, step in known.items()})
        sorter.prepare()
        ended: dict[str, Outcome] = {}
        ready: list[tuple[int, str]] = []
        free, futures = list(self._devices), dict[Future[Outcome], tuple[str, Device]]()
        with ThreadPoolExecutor(len(self._devices)) as pool:
            try:
                while sorter.is_active():
                    for key in sorter.get_ready():
                        heapq.heappush(ready, (order[key], key))
                    if ready and free:
                        _, key = heapq.heappop(ready)
                        if settled := self._settled(known[key], ended):
                            ended[key] = settled
                            sorter.done(key)
                        else:
                            device = free.pop(0)
                            futures[pool.submit(self._start, known[key], device)] = key, device
                        continue
                    for future in wait(futures, return_when=FIRST_COMPLETED).done:
                        key, device = futures.pop(future)
                        free.append(device)
                        ended[key] = future.result()
                        sorter.done(key)
            except BaseException:  # Ctrl-C, too: leaving the pool waits for what runs
                self._end_all()
                raise
        return ended

    def _settled(self, step: Step, ended: dict[str, Outcome]) -> Outcome | None:
        """The outcome of a step that need not, or cannot, be started."""
        for need in step.needs:
            if ended[need.id].problem:
                return Outcome(0.0, 0, ended[need.id].problem)
        before = outcome(step, self._root)
        return before if before and not before.problem else None

    def _start(self, step: Step, device: Device) -> Outcome:
        """Start a step on a device and wait for it."""
        folder = step.folder(self._root)
        folder.mkdir(parents=True, exist_ok=True)
        for stale in ("outcome.json", "pid"):
            (folder / stale).unlink(missing_ok=True)
        command = [*step.command(self._root), *(["resume=true"] if resumes(step.script) else [])]
        device.pin()
        start = time.monotonic()
        with (folder / "log.txt").open("a+b") as log:
            fcntl.flock(log, fcntl.LOCK_EX)  # for as long as a process has it as its output
            log.write(f"{PROMPT}{shlex.join(command)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                self._started(command),
                env=environment(**device.variables(), MASTER_PORT=str(_free_port())),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the sweep, which tells its steps
            )
            (folder / "pid").write_text(str(process.pid))
            self._running.add(process)
            self._told(step, None)
            if self._ending:
                _end(process)
            code = process.wait()
            self._running.discard(process)
            log.seek(0)
            printed = log.read().decode(errors="replace")
        if self._ending:
            return Outcome(0.0, 0, "ended with the sweep")
        problem = f"{step.id}: {reason(printed)} (exit status {code})" if code else ""
        made = Outcome(round(time.monotonic() - start, 1), printed.count(f"\n{PROMPT}") + 1, problem)
        part = folder / "outcome.part"
        part.write_text(json.dumps(asdict(made)), encoding="utf-8")
        part.replace(folder / "outcome.json")
        self._told(step, made)
        return made

    def _end_all(self) -> None:
        self._ending = True
        for process in list(self._running):
            _end(process)


def resumes(script: str) -> bool:
    """Whether an entry point has the key `resume`."""
    config = OmegaConf.load(CONFIGS / f"{Path(script).stem}.yaml")
    return isinstance(config, DictConfig) and "resume" in config


def reason(printed: str) -> str:
    """The last line that a failed step printed itself; accelerate's own traceback comes after it."""
    text = printed.replace("\r", "\n")
    head, _, tail = text.rpartition("Traceback (most recent call last):\n")
    own = head if "bin/accelerate" in tail.partition("\n")[0] else text
    lines = [line.strip() for line in own.splitlines() if line.strip()]
    return lines[-1] if lines and not lines[-1].startswith(PROMPT) else "it printed nothing"


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the sweep as Ctrl-C does: with what it runs."""

    def leave(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def _with_needs(steps: Iterable[Step]) -> dict[str, Step]:
    """The steps by id, each behind those it needs."""
    found: dict[str, Step] = {}
    for step in steps:
        found |= _with_needs(step.needs) | {step.id: step}
    return found


def _end(process: subprocess.Popen) -> None:
    """End a step's processes, the hard way if they do not end when told to."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _end_orphan(log: Path) -> None:
    """End what a killed sweep left running in the folder of a log.

    Raises:
        ConfigError: something writes to the log that is not known, or does not end.
    """
    with log.open("ab") as file:
        for _ in range(GRACE * 10):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if (pid := log.with_name("pid")).exists():
                    with suppress(ProcessLookupError):  # the lock says that it is still that process
                        os.killpg(int(pid.read_text()), signal.SIGKILL)
                time.sleep(0.1)
    raise ConfigError(f"output_dir: something still writes to {log}; end it, or wait for it.")
