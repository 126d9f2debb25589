"""Draws the pictures of the tutorials, by running these: python docs/draw_tutorials.py."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

PLACE = Path(__file__).resolve().parent / "tutorials"


def main() -> None:
    """Run each tutorial in a folder of its own, and keep its pictures."""
    for page in sorted(PLACE.glob("*.md")):
        blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            exec(compile("\n".join(blocks), page.name, "exec"), {"__name__": "__main__"})
            for picture in Path(folder).glob("*.png"):
                shutil.copy(picture, PLACE)
            os.chdir(PLACE)


if __name__ == "__main__":
    main()
