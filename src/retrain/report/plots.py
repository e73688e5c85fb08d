"""One way to draw with Matplotlib, as SVG: backtests and sweeps."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from retrain.lazy import matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def svg(paint: Callable[[Axes], None], legend: bool = True, width: float = 5.2) -> str:
    """What `paint` draws on one pair of axes, as an SVG document; `width` in inches."""
    # The figure's own class instead of pyplot, which would look for a screen and costs twice the
    # import.
    with (
        matplotlib.rc_context(
            {
                "text.parse_math": False,
                "svg.fonttype": "none",
                "svg.hashsalt": "retrain",
                "font.family": "sans-serif",
            }
        ),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph")  # the browser has fonts of more scripts
        figure = matplotlib.figure.Figure(figsize=(width, 3.4), layout="constrained")
        axes = figure.subplots()
        paint(axes)
        axes.spines[["top", "right"]].set_visible(False)
        if legend:
            axes.legend(frameon=False, fontsize=8)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
