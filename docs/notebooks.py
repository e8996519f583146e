"""From notebooks to pages: which outputs belong to a cell, how it reads in MyST, what its names link to."""
import ast
import base64
import concurrent.futures
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import yaml
from nbdev.config import get_config

from faceprivacy.core import path
from faceprivacy.pipeline import code_of
from pictures import alt_text, figure, functions_of, outside, plain

BLOB = get_config().git_url + '/blob/' + get_config().branch + '/'
PROFILE = 'default'


@dataclass
class Notebook:
    "A notebook of the site and what is known of where its outputs come from"
    file: Path
    group: str = ''
    stage: str | None = None     # of the pipeline, where it is one
    module: str | None = None    # that it exports
    run: Path | None = None      # executed, with the outputs shown
    how: str = 'not run'         # 'pipeline', 'defaults', 'not run' or why it failed
    title: str = ''
    summary: str = ''
    stale: int = field(default=0)  # cells that have changed since they ran

    @property
    def name(self): return self.file.stem
    @property
    def source(self): return self.file.relative_to(path()).as_posix()


def stages() -> dict:
    "The stage of the pipeline that runs a notebook, by the notebook's name"
    spec = yaml.safe_load(path('dvc.yaml').read_text(encoding='utf-8'))['stages']
    runs = {k: re.search(r'nbs/(?:\S+/)?(\w+)\.ipynb', str(v.get('cmd', ''))) for k, v in spec.items()}
    return {m[1]: k for k, m in runs.items() if m}


def open_notebook(file: Path, known: dict) -> Notebook:
    "A notebook with title, summary, stage and module"
    nb = nbformat.read(file, as_version=4)
    title, _, summary = nb.cells[0].source.partition('\n')
    exports = re.search(r'^#\| default_exp (\w+)', code_of(file), re.M)
    book = Notebook(file, stage=known.get(file.stem), module=exports and exports[1],
                    title=title.lstrip('# '), summary=summary.strip().lstrip('> '))
    run = path('results', PROFILE, file.stem, file.name)
    if run.exists(): book.run, book.how = run, 'pipeline'
    return book


# Notebooks that are no stage are run once with their defaults; a run is kept until the code it depends on changes.

def _imports(code: str) -> set:
    lines = [line for line in code.splitlines() if not re.match(r'\s*[%!]', line)]
    found = set()
    for node in ast.walk(ast.parse('\n'.join(lines))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or '').startswith('faceprivacy')):
            module = (node.module or '').removeprefix('faceprivacy').lstrip('.')
            found |= {module.split('.')[0]} if module else {a.name for a in node.names}
    return found


def fingerprint(file: Path) -> str:
    "Of a notebook's code, of all modules it imports, directly or not, and of the results if it shows them"
    ahead, seen, digest = _imports(code_of(file)), set(), hashlib.sha256(code_of(file).encode())
    if 'results' in ahead or re.search(r'^#\| default_exp results', code_of(file), re.M):
        for numbers in sorted(path('results').glob('*/*/metrics.json')): digest.update(numbers.read_bytes())
    while ahead:
        name = sorted(ahead)[0]
        seen.add(name)
        module = path('faceprivacy', f'{name}.py')
        text = module.read_text(encoding='utf-8') if module.exists() else ''
        ahead = (ahead | _imports(text)) - seen
        digest.update(f'{name}\n{text}'.encode())
    return digest.hexdigest()[:16]


def run_with_defaults(book: Notebook, cache: Path, limit: int = 600):
    "Execute a notebook that is no stage of the pipeline, once; its failure is told on its page"
    made = cache/f'{book.name}-{fingerprint(book.file)}.ipynb'
    if not made.exists():
        for old in cache.glob(f'{book.name}-*'): old.unlink()
        work = cache/'work'/book.name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        command = [sys.executable, '-m', 'papermill', '--engine', 'tidy', '--no-progress-bar', str(book.file),
                   str(work/'run.ipynb')]
        if re.search(r'^out: ', code_of(book.file), re.M): command += ['-p', 'out', str(work)]
        env = os.environ | dict(TQDM_DISABLE='1', OMP_NUM_THREADS='1', MPLBACKEND='agg')
        try: done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=env, cwd=path())
        except subprocess.TimeoutExpired: book.how = f'stopped after {limit} s'; return
        if done.returncode or _failed(work/'run.ipynb'):
            book.how = 'stopped with an error: ' + (done.stderr.strip().splitlines() or ['unknown'])[-1][:200]
            return
        shutil.move(work/'run.ipynb', made)
        shutil.rmtree(work, ignore_errors=True)
    book.run, book.how = made, 'defaults'


def _failed(run: Path) -> bool:
    nb = nbformat.read(run, as_version=4)
    return any(o.output_type == 'error' for c in nb.cells if c.cell_type == 'code' for o in c.outputs)


def run_missing(books, cache: Path, workers: int):
    "Run what has no outputs yet, a few at a time"
    cache.mkdir(parents=True, exist_ok=True)
    waiting = [b for b in books if b.run is None]
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        jobs = {pool.submit(run_with_defaults, b, cache): b for b in waiting}
        for job in concurrent.futures.as_completed(jobs):
            job.result()
            if jobs[job].run is None: print(f'{jobs[job].name}: {jobs[job].how}', file=sys.stderr)


# Outputs

PROGRESS = re.compile(r'\d+%\||\d(it/s|s/it)|Warning: |^\s*warnings\.warn')


def said(text: str) -> str:
    "What a cell printed, less bars and warnings, which are of the machine"
    text = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', text)
    lines, kept = [line.split('\r')[-1] for line in text.split('\n')], []
    for i, line in enumerate(lines):
        follows = i and 'Warning: ' in lines[i - 1] and line.startswith('  ')
        if not follows and not PROGRESS.search(line): kept.append(line)
    return '\n'.join(kept).strip('\n')


def fill(book: Notebook):
    "The notebook with the outputs of its run: a cell's are those of the cell with its id, if its code is the same"
    nb = nbformat.read(book.file, as_version=4)
    if book.run is None: return nb
    ran = nbformat.read(book.run, as_version=4).cells
    outputs = {c.id: c for c in ran if c.cell_type == 'code'}
    cells = []
    for cell in nb.cells:
        cells.append(cell)
        if cell.cell_type != 'code': continue
        twin = outputs.get(cell.id)
        same = twin is not None and twin.source == cell.source
        book.stale += not same
        cell.outputs = list(twin.outputs) if same else []
        if 'parameters' in cell.metadata.get('tags', []) and book.how == 'pipeline' and 'parameters' in outputs:
            given = nbformat.v4.new_code_cell(outputs['parameters'].source.replace('# Parameters\n', ''))
            link = f'[`params/{PROFILE}/{book.name}.yaml`]({BLOB}params/{PROFILE}/{book.name}.yaml)'
            cells += [nbformat.v4.new_markdown_cell(f'The run shown on this page sets, from {link}:'), given]
    nb.cells = cells
    return nb


# Names that link

class Names:
    "Where exported names are documented, and which notebook is a page"
    def __init__(self, books):
        self.pages = {b.name: b for b in books}
        self.modules = {b.module: b for b in books if b.module}
        self.home = {}
        for module in self.modules:
            for name in _exported(module): self.home.setdefault(name, []).append(module)

    def of(self, text: str, module: str | None, near=()):
        "The documented object that a name in prose means, if it is one"
        first = text.split('.')[0]
        if text in self.modules: return f'mod:{text}'
        homes = self.home.get(first, [])
        if module in homes: return f'faceprivacy.{module}.{text}'
        homes = [h for h in homes if h in near] or homes
        return f'faceprivacy.{homes[0]}.{text}' if len(homes) == 1 else None

    def link(self, markdown: str, module: str | None, near=()) -> str:
        "Markdown whose names in backticks lead to the API, and whose links lead to pages"
        def name(m):
            target = self.of(m[1], module, near)
            if m[1] in self.pages: return f'[`{m[1]}`]({m[1]}.ipynb)'
            if target and target.startswith('mod:'): return f'[`{m[1]}`](api/{m[1]}.md)'
            return f'{{py:obj}}`{m[1]} <{target}>`' if target else m[0]
        def page(m):
            stem, tail = m[1].split('/')[-1], m[2] or ''
            if stem == 'index': return '](overview.md)'
            return f']({stem}.ipynb{tail})' if stem in self.pages else f']({BLOB}nbs/{m[1]}.ipynb)'
        parts = re.split(r'(```.*?```|<pre.*?</pre>)', markdown, flags=re.S)
        for i in range(0, len(parts), 2):
            lines = [line if line.startswith('#') else
                     re.sub(r'(?<![\[`\w{}/])`(\w+(?:\.\w+)?)`(?![\]`\w])', name, line)
                     for line in parts[i].split('\n')]
            text = re.sub(r'\]\((?:\.\./|nbs/)*((?:tutorials/)?\w+)\.ipynb(#[\w-]+)?\)', page, '\n'.join(lines))
            text = re.sub(r'\]\((?:\.\./)+docs/(\w+\.md)\)', r'](\1)', text)
            parts[i] = re.sub(r'\]\((?:\.\./)+(?!api/)([^)]+)\)', rf']({BLOB}\1)', text)
        return ''.join(parts)


def _exported(module: str):
    try: found = importlib.import_module(f'faceprivacy.{module}')
    except Exception as e:
        print(f'faceprivacy.{module} cannot be imported: {e}', file=sys.stderr)
        return []
    return [n for n in getattr(found, '__all__', []) if hasattr(getattr(found, n, None), '__doc__')
            and (isinstance(getattr(found, n), type) or callable(getattr(found, n)))]


# Pages

def made_by(book: Notebook, short: bool = False) -> str:
    "A line that leads from a figure or number to what made it"
    notebook = f'<a href="{BLOB}{book.source}">{book.name}</a>'
    if book.how == 'pipeline' and book.stage:
        stage = f'<a href="{BLOB}dvc.yaml">stage {book.stage}</a>, profile {PROFILE}'
    else: stage = 'its default parameters'
    return f'{notebook}, {stage}'


def front(book: Notebook) -> str:
    "Below the title: what made the outputs, and where the rest of it is"
    links = [f'<a href="{BLOB}{book.source}">notebook</a>']
    if book.how == 'pipeline':
        if book.stage: links.append(f'<a href="{BLOB}dvc.yaml">stage {book.stage}</a>')
        links.append(f'<a href="{BLOB}params/{PROFILE}/{book.name}.yaml">parameters</a>')
        if path('results', PROFILE, book.name, 'metrics.json').exists():
            links.append(f'<a href="results/{PROFILE}/{book.name}/metrics.json">numbers</a>')
        told = 'Computed by the pipeline:'
    elif book.how == 'defaults': told = 'Computed with default parameters:'
    else: told = 'Outputs are missing here, as the notebook has not been run for this site:'
    if book.module: links.append(f'<a href="api/{book.module}.html">module {book.module}</a>')
    return f'<p class="made-line">{told} {" · ".join(links)}</p>'


def fold(text: str) -> str | None:
    "What to write on a cell that is shown folded: imports and plumbing; None for what is to be read"
    code = re.sub(r'^#\|.*\n?', '', text, flags=re.M).strip()
    lines = [line for line in code.splitlines() if line and not line[0].isspace() and line[0] not in ')#']
    if lines and all(re.match(r'(import|from) ', line) for line in lines): return 'imports'
    if not re.search(r'^#\| export\s*$', text, re.M): return None
    names = re.findall(r'^(?:def|class) (\w+)|^(\w+)(?:, \w+)* = ', code, re.M)
    names = [a or b for a, b in names]
    return 'code: ' + ', '.join(names[:6]) if names else 'code'


def page(book: Notebook, names: Names, pictures: Path):
    "The notebook as MyST-NB reads it"
    nb = fill(book)
    functions = functions_of(c.source for c in nb.cells if c.cell_type == 'code')
    near = _imports(code_of(book.file))
    cells, prose, heading = [nbformat.v4.new_markdown_cell(
        f'# {book.title}\n\n{{.lead}}\n{names.link(book.summary, None)}\n\n{front(book)}')], book.summary, book.title
    for cell in nb.cells[1:]:
        text = cell.source
        if cell.cell_type == 'raw': continue
        if cell.cell_type == 'markdown':
            if headings := re.findall(r'^##+ (.+)$', text, re.M): heading = plain(headings[-1])
            prose = plain(text) or prose
            cells.append(nbformat.v4.new_markdown_cell(names.link(text, book.module, near)))
            continue
        if re.match(r'#\| default_exp', text): continue
        shown, said_in_markdown = [], []
        for output in cell.get('outputs', []):
            kind = show(output, text, prose, heading, functions, book, pictures)
            if isinstance(kind, str): said_in_markdown.append(kind)
            elif kind is not None: shown.append(kind)
        new = nbformat.v4.new_code_cell(re.sub(r'^#\|.*\n?', '', text, flags=re.M).strip('\n'), outputs=shown)
        if re.search(r'^#\| exports', text, re.M): new.metadata['tags'] = ['paper']
        if folded := fold(text):
            new.metadata['tags'] = ['hide-input']
            new.metadata['mystnb'] = dict(code_prompt_show=folded, code_prompt_hide=folded)
        if re.search(r'^#\| echo: false', text, re.M): new.metadata['tags'] = ['remove-input']
        if new.source: cells.append(new)
        cells += [nbformat.v4.new_markdown_cell(names.link(t, book.module, near)) for t in said_in_markdown]
    nb.cells = cells
    nb.metadata = nbformat.from_dict(dict(language_info=dict(name='python', pygments_lexer='ipython3')))
    return nb


def show(output, source, prose, heading, functions, book, pictures):
    "An output for the page: a new one, Markdown to stand below, or nothing"
    data = output.get('data', {})
    if output.output_type == 'stream':
        text = said(output.text)
        return nbformat.v4.new_output('stream', name='stdout', text=text) if text else None
    if 'image/png' in data:
        alt = alt_text(source, prose, heading, functions)
        markup = figure(base64.b64decode(data['image/png']), alt, made_by(book), pictures)
        return nbformat.v4.new_output('display_data', data={'text/html': markup})
    if 'text/markdown' in data: return data['text/markdown']
    if 'text/html' in data:
        markup = outside(data['text/html'], heading, pictures)
        if '<table' in markup: markup = f'<div class="scrolls" tabindex="0">{markup}</div>'
        if 'class="scrub"' in markup: markup += f'<p class="made-line">{made_by(book)}</p>'
        return nbformat.v4.new_output('display_data', data={'text/html': markup})
    if 'text/plain' in data and not re.match(r'<(Figure|Axes|IPython|module)', data['text/plain']):
        return nbformat.v4.new_output('display_data', data={'text/plain': said(data['text/plain'])})
    return None
