"""What a run measures, sent to a dashboard: wandb, TensorBoard or none. Importing this loads neither."""

from sdx.tracking.tracker import Tracker, check

__all__ = ["Tracker", "check"]
