"""What tests of rl/ablation/work.py have done as a step: a program that leaves marks, waits, and fails as it is told.

It stands in place of no code of this project: any script is a step, if its name is that of a config.
"""

import sys
import time
from pathlib import Path

told = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder = Path(told["output_dir"])
with (folder / "starts").open("a") as file:
    file.write(f"{told}\n")
print("halfway\rthere")
deadline = time.monotonic() + float(told.get("wait", 0))
while time.monotonic() < deadline and not Path(told.get("until", folder)).exists():
    time.sleep(0.05)
if "fail" in told:
    raise SystemExit(f"{told['fail']}: as it was told")
(folder / "made").touch()
