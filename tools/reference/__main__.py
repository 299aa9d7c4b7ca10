"""`make reference`: writes the blocks of docs/reference/ anew."""

import sys

from tools.reference.pages import made

for page, text in made().items():
    if page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{page} is written anew\n")
