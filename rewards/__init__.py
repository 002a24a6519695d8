"""Rewards: one pure batch function a file, of the file's name, which is also its config key and metric key."""
