"""Metrics, effects and certificates, written against roll-outs and never against a model."""
