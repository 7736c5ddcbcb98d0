"""Hydra sweeper that searches with Optuna."""
