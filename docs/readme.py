"""Write README.md: nbs/index.ipynb executed in place of its reader, its code left out, its results kept.

python docs/readme.py           write it
python docs/readme.py --check   fail where it differs from the one on disk
"""
import difflib
import re
import sys

import nbformat
from nbconvert import MarkdownExporter

from faceprivacy.core import atomic, path
from faceprivacy.pipeline import run_cells


def readme() -> str:
    "The text of README.md"
    nb = run_cells(nbformat.read(path('nbs/index.ipynb'), as_version=4))
    for cell in (c for c in nb.cells if c.cell_type == 'code'):
        for output in cell.outputs:
            if output.output_type == 'error': raise RuntimeError(''.join(output.traceback))
        cell.outputs = [o for o in cell.outputs if o.get('name') != 'stderr']  # progress bars
    text, _ = MarkdownExporter(exclude_input=True).from_notebook_node(nb)
    text = re.sub(r'\]\(((?:tutorials/)?\w+\.ipynb)', r'](nbs/\1', text)  # links as seen from the root
    text = text.replace('](../', '](').replace('"../docs/', '"docs/')
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [line for line, before in zip(lines, [''] + lines) if line or before]  # one blank line, not more
    return '\n'.join(kept).strip() + '\n'


if __name__ == '__main__':
    new, file = readme(), path('README.md')
    if '--check' in sys.argv:
        old = file.read_text(encoding='utf-8') if file.exists() else ''
        diff = list(difflib.unified_diff(old.splitlines(), new.splitlines(), 'README.md', 'nbs/index.ipynb', lineterm=''))
        if diff: sys.exit('\n'.join(diff) + '\nREADME.md is behind its notebook or the results: make readme')
    else:
        with atomic(file) as temporary: temporary.write_text(new, encoding='utf-8')
