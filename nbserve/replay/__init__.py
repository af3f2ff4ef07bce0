"""Golden pairs against a URL: the proof that what runs there answers as the notebook did."""

from nbserve.replay.difference import FLOAT32, Difference, Received, Tolerance, difference
from nbserve.replay.session import Mismatch, Replay, replay

__all__ = ["FLOAT32", "Difference", "Mismatch", "Received", "Replay", "Tolerance", "difference", "replay"]
