"""Which windows of one class may be a positive pair."""

# 'any' two; two of different videos; two of different groups (a group is a person or a raw video).
POSITIVES = ("any", "other_video", "other_group")
