"""Paceline: find the published methods that improve your sequence model, with the proof."""

__version__ = "0.1.0"
