"""Sweeps over configs of GRPO: cells, the steps that each takes, who runs them, and what came out (rl/ablate.py)."""
