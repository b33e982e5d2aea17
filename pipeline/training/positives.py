"""Which windows of one class may be a positive pair."""

from numpy.typing import NDArray

# 'any' two; two of different videos; two of different groups (a group is a person or a raw video).
POSITIVES = ("any", "other_video", "other_group")


def groups_apart(positives: str, default: str, videos: NDArray, groups: NDArray) -> NDArray | None:
    """Numbers (N,) of which a positive pair must have two different ones; None where any pair will do.

    ``default`` is the sampler's own rule, which holds where ``positives`` is 'any'.
    """
    rule = default if positives == "any" else positives
    return {"any": None, "other_video": videos, "other_group": groups}[rule]
