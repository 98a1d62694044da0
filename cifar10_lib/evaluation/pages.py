"""HTML pages that need no other file: their templates, and figures within them."""

from __future__ import annotations

import base64
import io
import os
from typing import Any

import jinja2

from cifar10_lib.evaluation import figures

# CSS has 96 pixels per inch; figures are shown a little larger than on paper.
_PIXELS_PER_INCH = 115


def render(template: str, **values: Any) -> str:
    """A page from the template of a name in this folder; texts are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.path.dirname(os.path.abspath(__file__))),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['cell'] = _cell
    return environment.get_template(template).render(values)


def _cell(value: str | int | float) -> str:
    """Text, a number of images, weights or steps, or a share, for readers."""
    if isinstance(value, float):
        return figures.percent(value)
    return f'{value:,}' if isinstance(value, int) else value


def drawing(figure: figures.Figure, alt: str, name: str) -> dict[str, Any]:
    """A figure as an SVG image.

    Args:
      figure: the figure.
      alt: its alternative text.
      name: its subject, for the label of a part of the page that scrolls.
    """
    buffer = io.BytesIO()
    # The same figure gives the same bytes.
    with figures.matplotlib.rc_context({'svg.hashsalt': name}):
        figures.save(figure, buffer, format='svg', metadata={'Date': None})
    width, height = (round(_PIXELS_PER_INCH * inches) for inches in figure.get_size_inches())
    uri = data_uri('image/svg+xml', buffer)
    return {'uri': uri, 'alt': alt, 'name': name, 'width': width, 'height': height}


def data_uri(media_type: str, content: io.BytesIO) -> str:
    """The URI of a file within a page."""
    return f'data:{media_type};base64,{base64.b64encode(content.getvalue()).decode("ascii")}'
