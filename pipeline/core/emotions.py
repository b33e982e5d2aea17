"""Which emotions are opposites of each other: named sets, and pairs of class names."""

from collections.abc import Sequence
from typing import Any

from pipeline.core.params import UserError, one_of

# Names that data sets give to one emotion, in small letters; Plutchik's own words of 1980 among them.
NAMES = {
    "happiness": {"happiness", "happy", "joy", "joyful", "joyous"},
    "sadness": {"sadness", "sad"},
    "anger": {"anger", "angry"},
    "fear": {"fear", "fearful", "afraid"},
    "disgust": {"disgust", "disgusted"},
    "surprise": {"surprise", "surprised"},
    "contempt": {"contempt", "contemptuous"},
    "calm": {"calm", "calmness"},
    "trust": {"trust", "trusting", "acceptance"},
    "anticipation": {"anticipation", "anticipating", "expectancy"},
}

# plutchik: the four axes of the wheel (Plutchik 1980, "A general psychoevolutionary theory of emotion"; 2001, "The
#   nature of emotions", https://www.jstor.org/stable/27857503).
# valence: pleasant against unpleasant (Russell 1980, "A circumplex model of affect",
#   https://doi.org/10.1037/h0077714). Surprise, neutral and other have no sign of their own.
SETS = {
    "plutchik": [("happiness", "sadness"), ("anger", "fear"), ("trust", "disgust"), ("surprise", "anticipation")],
    "valence": [
        (pleasant, unpleasant)
        for pleasant in ("happiness", "calm")
        for unpleasant in ("anger", "disgust", "fear", "sadness", "contempt")
    ],
}


def opposites(choice: Sequence[Any], classes: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (a, b) of numbers into ``classes``, a < b, sorted and each once; ``choice`` names sets and lists pairs.

    ``["plutchik", ["Happiness", "Neutral"]]`` is all of a set, and a pair more. Case does not matter. A set means all
    classes that ``NAMES`` knows for its emotions, and what ``classes`` lack of it is left out; a name in a pair means
    the class of that name, or else those of the same emotion. Raises ``UserError`` for an unknown set, for a pair with
    an unknown class or of a class with itself, and for what is neither a name nor a pair.
    """
    found = set()
    for item in [choice] if isinstance(choice, str) else choice:
        if isinstance(item, str):
            sides = [(_same(a, classes), _same(b, classes)) for a, b in SETS[one_of("opposites", item, SETS)]]
        elif isinstance(item, list | tuple) and len(item) == 2:
            sides = [(_named(str(item[0]), classes), _named(str(item[1]), classes))]
            if set(sides[0][0]) & set(sides[0][1]):
                raise UserError(f"opposites must be of two classes, and {list(item)} are one")
        else:
            raise UserError(f"opposites must be names of sets {sorted(SETS)} or pairs of classes, and {item!r} is none")
        found |= {(min(a, b), max(a, b)) for first, second in sides for a in first for b in second}
    return sorted(found)


def partners(names: Sequence[str], classes: Sequence[str]) -> list[int | None]:
    """For each of ``names`` the class of that name or emotion, None where there is none or more than one."""
    found = []
    for name in names:
        same = [k for k, c in enumerate(classes) if c.lower() == name.lower()] or _same(name, classes)
        found.append(same[0] if len(same) == 1 else None)
    return found


def _named(name: str, classes: Sequence[str]) -> list[int]:
    """The class of that name, or else those of the same emotion; at least one."""
    found = [number for number, c in enumerate(classes) if c.lower() == name.lower()] or _same(name, classes)
    if not found:
        one_of("opposites: class", name, classes)  # says the nearest
    return found


def _same(name: str, classes: Sequence[str]) -> list[int]:
    """The classes of the emotion that the name stands for."""
    names = next((names for names in NAMES.values() if name.lower() in names), set())
    return [number for number, c in enumerate(classes) if c.lower() in names]
