"""How fast, beside the tutorial, Keras and PyTorch? How good, beside what was published?"""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
