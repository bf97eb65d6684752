"""Worlds with known truth: what a method should have found can be read off."""
