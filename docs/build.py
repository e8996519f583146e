"""Build the site in _docs/html.

python docs/build.py                    everything
python docs/build.py 10_slerp 42_animate  the front page, these notebooks and the pages written by hand
    --out DIR     somewhere else than _docs
    --no-run      notebooks that are no stage of the pipeline are shown without outputs
    --workers N   how many of them run at the same time

Text and code are those of nbs/; a cell's outputs are those of the same cell in results/default/NAME/NAME.ipynb, where
the pipeline has run it. Other notebooks are run here with their default parameters, once, until their code changes.
The last step checks the site: sizes, internal links, a text for every picture.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import files as files_of
from pathlib import Path

import nbformat
import yaml

os.environ['TQDM_DISABLE'] = '1'  # before faceprivacy is imported
sys.path.insert(0, str(Path(__file__).parent))
import check
import written
from home import front_page
from notebooks import Names, Notebook, open_notebook, page, run_missing, stages

from faceprivacy.core import path

MATHJAX = 'tex-mml-chtml.js'
PLAIN = re.compile(r'<span class="(?:n|p|w)">([^<]*)</span>')  # of code, in the colour of text anyway: half of a page's bytes
SPACE = re.compile(r'<(pre|script|textarea)\b.*?</\1>|\s*\n\s*', re.S)  # indentation and empty lines, where none shows


def groups_of(books) -> list[dict]:
    "docs/reading.yaml with every notebook in its place"
    groups = yaml.safe_load(path('docs/reading.yaml').read_text(encoding='utf-8'))
    named = {n: g for g in groups for n in g.get('order', [])}
    by_digit = {str(g['digit']): g for g in groups if 'digit' in g}
    for g in groups: g['books'] = []
    for book in sorted(books, key=lambda b: b.name):
        group = named.get(book.name) or by_digit.get(book.name[0]) or by_digit['9']
        book.group = group['page']
        group['books'].append(book)
    for g in groups:
        order = {n: i for i, n in enumerate(g.get('order', []))}
        g['books'].sort(key=lambda b: (order.get(b.name, len(order)), b.name))
    return groups


def mathjax(extra: Path):
    "MathJax out of its Python package, the script and its fonts, so that nothing is fetched while reading"
    wanted = f'es5/{MATHJAX}', 'es5/output/chtml/fonts/woff-v2'
    for file in files_of('django-static-mathjax') or []:
        _, found, rest = str(file).partition('static/mathjax/')
        if not found or not rest.startswith(wanted): continue
        to = extra/'_static'/'mathjax'/rest.removeprefix('es5/')
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file.locate(), to)
    if not (extra/'_static'/'mathjax'/MATHJAX).exists(): raise FileNotFoundError('MathJax is not in django-static-mathjax')


def lay(books, groups, names, pages: Path, extra: Path):
    "All pages, in Sphinx's source folder"
    for book in books: nbformat.write(page(book, names, extra/'made'), pages/f'{book.name}.ipynb')
    made = written.pages(groups, names, extra)
    made['index'] = front_page(groups, {b.name: b for b in books}, extra/'made')
    for name, markdown in made.items():
        file = pages/f'{name}.md'
        file.parent.mkdir(exist_ok=True)
        file.write_text(markdown, encoding='utf-8')
    for profile in ('default', 'lfw'):
        for file in sorted(path('results', profile).glob('*/metrics.json')):
            to = extra/'results'/profile/file.parent.name/file.name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, to)
    for picture in path('docs').glob('*.*'):
        if picture.suffix in ('.png', '.gif', '.webp'): shutil.copy(picture, extra/picture.name)
    (extra/'.nojekyll').touch()


def sphinx(out: Path):
    "Sphinx makes the pages"
    env = os.environ | dict(FACEPRIVACY_DOCS=str(out), PYTHONPATH=str(path()))
    command = [sys.executable, '-m', 'sphinx', '-q', '-j', '2', '-d', str(out/'doctrees'), '-c', str(path('docs')),
               str(out/'pages'), str(out/'html')]
    subprocess.run(command, check=True, env=env)
    for spare in [*(out/'html').rglob('*.map'), out/'html'/'_static'/'webpack-macros.html']: spare.unlink(missing_ok=True)
    for file in (out/'html').rglob('*.html'):
        text = PLAIN.sub(r'\1', file.read_text(encoding='utf-8'))
        file.write_text(SPACE.sub(lambda found: found[0] if found[1] else '\n', text), encoding='utf-8')


def build(only=(), out=None, run: bool = True, workers: int = 2) -> Path:
    "The folder of the finished site"
    out = Path(out or path('_docs')).resolve()
    pages, extra = out/'pages', out/'extra'
    for folder in (pages, extra, out/'html', out/'doctrees'): shutil.rmtree(folder, ignore_errors=True)
    pages.mkdir(parents=True), extra.mkdir()
    known = stages()
    files = [*path('nbs').glob('[0-9]*.ipynb'), *path('nbs').glob('tutorials/*.ipynb')]
    books = [open_notebook(f, known) for f in sorted(files) if not only or f.stem in only]
    if unknown := set(only) - {b.name for b in books}: raise SystemExit(f'no notebook {", ".join(sorted(unknown))} in nbs/')
    groups = groups_of(books)
    if run: run_missing(books, path('_docs/runs'), workers)
    names = Names(books)
    mathjax(extra)
    lay(books, groups, names, pages, extra)
    sphinx(out)
    report(books, out)
    return out/'html'


def report(books: list[Notebook], out: Path):
    "Say what the pages show, check the site"
    (out/'books.json').write_text(json.dumps({b.name: dict(how=b.how, stale=b.stale) for b in books}, indent=1))
    for book in books:
        if book.stale and book.run: print(f'{book.name}: {book.stale} cells have changed since they ran', file=sys.stderr)
    problems = check.problems(out/'html')
    for problem in problems: print(problem, file=sys.stderr)
    if problems: raise SystemExit(f'{len(problems)} problems')
    size = sum(f.stat().st_size for f in (out/'html').rglob('*') if f.is_file())
    print(f'{out/"html"/"index.html"}: {len(books)} notebooks, {size/1e6:.1f} MB')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('only', nargs='*', metavar='NAME', help='notebooks to show; without any, all')
    parser.add_argument('--out', help='folder of the site')
    parser.add_argument('--no-run', dest='run', action='store_false', help='run no notebook')
    parser.add_argument('--workers', type=int, default=2, help='notebooks that run at the same time')
    build(**vars(parser.parse_args()))
