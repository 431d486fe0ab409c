"""mkdocs: links that leave docs/ (README, benchmarks) become their text: the site does not hold those files."""

import re
from pathlib import Path

LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(#[^)]*)?\)")


def on_page_markdown(markdown, page, config, files):
    folder = Path(page.file.abs_src_path).parent
    home = Path(config["docs_dir"]).resolve()

    def keep_inside(match: re.Match) -> str:
        target = (folder / match[2]).resolve()
        inside = (
            target.is_relative_to(home) and target.is_file() and files.get_file_from_path(str(target.relative_to(home)))
        )
        return match[0] if inside else match[1]

    return LINK.sub(keep_inside, markdown)
