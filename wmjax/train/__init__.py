"""The training loop, checkpoints, averaged parameters and many models at once; knows no model."""
