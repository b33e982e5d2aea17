"""The demo: ``make demo``, or ``streamlit run pipeline/demo/app.py``. What it shows: docs/demo.md."""

import sys
from pathlib import Path

# Streamlit puts the folder of this file onto the path, not that of the project.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.demo.page import show

show()
