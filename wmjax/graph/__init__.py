"""Directed graphs between channels and a target: encoders, graph-safe decoding, interfaces and learning."""
