"""Faces in frames that come one by one, each frame's at once: nothing is known of the next detection.

Detection runs in every n-th frame. In between, the points move as the picture around the face moves (optical flow,
Lucas-Kanade, Bouguet's pyramids: ``cv2.calcOpticalFlowPyrLK``). Flow hardly trembles but drifts, detection trembles but
does not drift: where both are known, a face goes half the way from the one to the other.

On two clips of 72 frames, detected in every 5th one, with the distance of the eyes as 100 %: points tremble by 1.0 %,
where detection in every frame trembles by 3.3 % and what ``tracks.follow`` interpolates afterwards by 0.5 %; all three
are 1.4 to 1.8 % away from the points of all detections, smoothed. MTCNN's last network on the place of the frame before
was no better (2.1 % away, trembling by 2.5 %) and took twice as long.
"""

from dataclasses import replace

import cv2
import numpy as np

from pipeline.faces.detect import Detector, Faces
from pipeline.faces.tracks import FrameFaces, Sighting, Tracker, overlaps
from pipeline.faces.video import Frame

AROUND = 96  # pixels of a face's box in the picture that flow is taken from, which is twice as wide
FLOW_WINDOW, FLOW_LEVELS = (21, 21), 2
FAINTEST = 1e-6  # how little a patch may differ from itself beside; OpenCV's 1e-4 gives up on a smooth cheek
TOWARDS_DETECTION = 0.5
ANOTHER = 0.3  # intersection over union of a followed face with another one: below it they are two


class LiveFaces:
    """Gives the faces of each frame by ``see``. One frame is kept, whatever has come before.

    A new face is seen no later than in the next frame of detection. Where a followed face looks otherwise than before,
    as at a cut, the detector looks at that frame; and while one is missing that may come back, at each. With ``every``
    1 all places are those of the detector, and tracks are those of ``tracks.follow``.
    """

    def __init__(self, detect: Detector, every: int = 5, size: int = 112, enlarge: float = 0.0) -> None:
        self._detect, self._every, self._cut = detect, every, (size, enlarge)
        self._tracker, self._before = Tracker(), FrameFaces.nothing()
        self._detected = 0  # the number of the frame in which the detector looked last

    @property
    def tracks(self) -> set[int]:
        """Those that may go on. One that is no longer among them is over."""
        return set(self._tracker.alive)

    def see(self, frame: Frame) -> list[Sighting]:
        """The faces of a frame, whose number and time are above those of all before."""
        if self._before.frame is not None and frame.image.shape != self._before.frame.image.shape:
            self._tracker.end_all()
            self._before, self._detected = FrameFaces.nothing(), 0
        moved = self._moved(frame)
        due = not self._detected or frame.number - self._detected >= self._every or self.tracks - {*self._before.tracks}
        seen = (None if due else self._followed(frame, moved)) or self._look_at(frame, moved)
        self._tracker.take(seen)
        self._before = seen
        return list(seen.sightings())

    def _followed(self, frame: Frame, moved: Faces) -> FrameFaces | None:
        """The faces that have ``moved``; None where one of them is no longer what it was."""
        try:
            seen = FrameFaces.of(frame, moved, *self._cut)
        except ValueError:  # its points have become one
            return None
        seen.tracks = self._tracker.match(seen)
        return seen if seen.tracks == self._before.tracks else None

    def _look_at(self, frame: Frame, moved: Faces) -> FrameFaces:
        """The detector's faces, on the way to which those are that have been followed."""
        found, self._detected = self._detect(frame.image), frame.number
        seen = FrameFaces.of(frame, found, *self._cut)
        seen.tracks = self._tracker.match(seen)
        both = [(i, self._before.tracks.index(t)) for i, t in enumerate(seen.tracks) if t in self._before.tracks]
        if self._every == 1 or not both:
            return seen
        boxes, points = found.boxes.copy(), found.points.copy()
        for i, j in both:
            if overlaps(found.boxes[i : i + 1], moved.boxes[j : j + 1])[0, 0] >= ANOTHER:
                boxes[i] += (1 - TOWARDS_DETECTION) * (moved.boxes[j] - boxes[i])
                points[i] += (1 - TOWARDS_DETECTION) * (moved.points[j] - points[i])
        tracks, seen = seen.tracks, FrameFaces.of(frame, replace(found, boxes=boxes, points=points), *self._cut)
        seen.tracks = tracks
        return seen

    def _moved(self, frame: Frame) -> Faces:
        """The faces of the frame before, where they are by now."""
        before = self._before.faces
        if self._every == 1 or not len(before):
            return before
        boxes, points = before.boxes.copy(), before.points.copy()
        for i in range(len(before)):
            points[i] = flowed(self._before.frame.image, frame.image, before.boxes[i], before.points[i])
            boxes[i] += np.tile(np.median(points[i] - before.points[i], axis=0), 2)
        return Faces(boxes, points, np.full(len(before), np.nan))


def flowed(before: np.ndarray, now: np.ndarray, box: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Where ``points`` (5, 2) of a face, in the ``box`` (4,) of the image ``before``, are in the image ``now``.

    It takes as long for a large face as for a small one.
    """
    scale = AROUND / max(box[2] - box[0], box[3] - box[1])
    shift = AROUND - scale * (box[:2] + box[2:]) / 2
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    one, other = (
        cv2.cvtColor(
            cv2.warpAffine(image, matrix, (2 * AROUND, 2 * AROUND), borderMode=cv2.BORDER_REPLICATE),
            cv2.COLOR_RGB2GRAY,
        )
        for image in (before, now)
    )
    start = (scale * points + shift).astype(np.float32)
    end, found, _ = cv2.calcOpticalFlowPyrLK(
        one, other, start[:, None], None, winSize=FLOW_WINDOW, maxLevel=FLOW_LEVELS, minEigThreshold=FAINTEST
    )
    moves = (end[:, 0] - start).astype(np.float64) / scale
    lost = (found[:, 0] == 0) | (np.abs(moves).max(axis=1) > AROUND / scale)
    if lost.any():  # a point that flow cannot find moves as the others do
        moves[lost] = np.median(moves[~lost], axis=0) if not lost.all() else 0
    return points + moves
