"""What finds faces by the settings: a detector, and with ``points`` a trained aligner for their points."""

from pipeline.faces.aligner.use import Aligner, with_points_of
from pipeline.faces.config import CutSettings
from pipeline.faces.detect import DETECTORS, Detector


def make_detector(settings: CutSettings) -> Detector:
    """Raises ``UserError`` where the aligner's file is none."""
    detect = DETECTORS[settings.detector](settings.min_face, settings.confidence)
    return detect if settings.points is None else with_points_of(Aligner.load(settings.points), detect)
