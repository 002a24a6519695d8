"""The YAML of every entry point, and the code that holds runs to it: typed keys, clear errors, a record of each run."""

from configs.entry import main
from configs.record import record_run
from configs.strict import ConfigError, build, check, instantiate, plain, unknown
from configs.terminal import tidy

__all__ = ["ConfigError", "build", "check", "instantiate", "main", "plain", "record_run", "tidy", "unknown"]
