"""What the HTML pages have in common: everything inside one file, and a content security policy that names its script.

The policy (Content Security Policy Level 3) forbids a page any request and runs the one script whose hash it states: a
name out of a bundle, a file or a record cannot become code.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib import resources
from typing import Any

FRAME = "frame.html.j2"
"""What a page is around its content: policy, header with the statement of use, footer, script."""


def render_page(
    package: str,
    template: str,
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    data: object,
    shared: Sequence[str] = (),
    **values: Any,
) -> str:
    """A page as text.

    Parameters
    ----------
    package : str
        Its folder `templates` holds the files named below.
    template : str
        Jinja template, most often one that extends `FRAME`. It is given `values` and, as text for its elements,
        `style`, `script` and `data`, with `style_hash` and `script_hash` for its policy.
    styles : sequence of str
        Style sheets that follow page.css.
    scripts : sequence of str
        Scripts, joined in this order.
    shared : sequence of str
        Scripts of this folder, which come before them.
    data : JSON value
        What the script reads.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def file(name: str) -> str:
        if name == FRAME:
            return shared_file(name)
        return resources.files(package).joinpath("templates", name).read_text(encoding="utf-8")

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(file)
    )
    environment.filters["thousands"] = "{:,}".format
    style = "".join([shared_file("page.css"), *map(file, styles)])
    script = "".join([*map(shared_file, shared), *map(file, scripts)])
    return environment.get_template(template).render(
        style=style,
        script=script,
        style_hash=_policy_hash(style),
        script_hash=_policy_hash(script),
        # Inside <script>, "<" could end the element; \u003c is the same JSON.
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        **values,
    )


def shared_file(name: str) -> str:
    """A style sheet or script that pages have in common."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy_hash(text: str) -> str:
    """How a content security policy names the content of an element."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
