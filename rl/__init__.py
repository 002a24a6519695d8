"""GRPO: the entry point, the one TRL trainer subclass, and reward sweeps."""
