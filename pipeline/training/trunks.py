"""What trains a backbone together with the head, by name: of its own room, which no other run reaches."""

from pipeline.core.choices import Choices

TRUNKS = Choices({"unfreeze": "pipeline.unfreeze.trunk.open_trunk"})
