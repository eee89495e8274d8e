"""What pages share: the Jinja environment of templates/, and millimetres in words.

What goes into a template named *.html.j2 is escaped.
"""

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

ENVIRONMENT = Environment(
    loader=PackageLoader("sahlib.report"),
    autoescape=select_autoescape(["html.j2"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def millimetres(values: np.ndarray, digits: int) -> str:
    """The range of values, any shape, NaN where unknown: "0.43 to 0.49 mm, in part unknown"."""
    values = np.asarray(values, float)
    known = values[~np.isnan(values)]
    if not known.size:
        return "unknown"
    ends = dict.fromkeys(f"{end:.{digits}f}" for end in (known.min(), known.max()))
    return f"{' to '.join(ends)} mm{', in part unknown' * (known.size < values.size)}"
