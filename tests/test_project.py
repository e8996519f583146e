"""The project hangs together: exports, clean notebooks, the pipeline's dependencies, the README."""
import ast
import filecmp
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from faceprivacy.core import path
from faceprivacy.pipeline import check_parameters, code_of

NOTEBOOKS = sorted(f for f in path('nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in f.parts)
NUMBERED = [f for f in NOTEBOOKS if f.name[0].isdigit()]
PIPELINE = yaml.safe_load(path('dvc.yaml').read_text())['stages']
PROFILES = ['default', 'smoke', 'lfw']


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "The notebooks, the library and the settings in a folder of their own"
    folder = tmp_path_factory.mktemp('copy')
    for name in ('nbs', 'faceprivacy'):
        shutil.copytree(path(name), folder/name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for name in ('settings.ini', 'setup.py', 'pyproject.toml'): shutil.copy(path(name), folder/name)
    return folder


def run(command, folder):
    "Run one of nbdev's commands in `folder`"
    done = subprocess.run([Path(sys.executable).parent/command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_library_is_what_the_notebooks_export(copy):
    run('nbdev_export', copy)
    names = [f.name for f in path('faceprivacy').glob('*.py')]
    _, changed, missing = filecmp.cmpfiles(path('faceprivacy'), copy/'faceprivacy', names, shallow=False)
    assert not changed + missing, 'run nbdev_export'
    assert {f.name for f in (copy/'faceprivacy').glob('*.py')} == set(names)


def test_the_notebooks_are_clean(copy):
    run('nbdev_clean', copy)
    names = [f.relative_to(path('nbs')).as_posix() for f in NOTEBOOKS]
    _, changed, missing = filecmp.cmpfiles(path('nbs'), copy/'nbs', names, shallow=False)
    assert not changed + missing, 'run nbdev_clean'


@pytest.mark.parametrize('file', NOTEBOOKS, ids=lambda f: f.stem)
def test_a_notebook_keeps_the_style(file):
    cells = json.loads(file.read_text())['cells']
    code = [''.join(c['source']) for c in cells if c['cell_type'] == 'code']
    listed = sum('parameters' in c['metadata'].get('tags', []) and len(c['source']) for c in cells)
    lengths = sorted(n for s in code if (n := len(s.splitlines())) != listed)  # parameters stand one a line
    assert not any(c.get('outputs') for c in cells), 'outputs belong in results/, not in git'
    assert not lengths or lengths[-1] <= 25, f'a cell of {lengths[-1]} lines'
    assert len(cells) <= 82, f'{len(cells)} cells'
    front = [line[:1] for line in ''.join(cells[0]['source']).splitlines() if line]
    assert front == ['#', '>'], 'the first cell holds title and summary alone: nbdev drops the rest on the site'
    long = [line for s in code for line in s.splitlines() if len(line) > 100]
    assert not long, f'lines over 100 columns: {long}'
    if file in NUMBERED: assert any('parameters' in c['metadata'].get('tags', []) for c in cells)


@pytest.mark.parametrize('lock', ['dvc.lock', 'params/lfw/dvc.lock'])
def test_numbers_are_those_that_the_stages_wrote(lock):
    "A metrics.json that was edited, or lost while its stage ran, is found by the checksum in the lock"
    stages = yaml.safe_load(path(lock).read_text())['stages']
    written = {o['path']: o['md5'] for s in stages.values() for o in s.get('outs', []) if o['path'].endswith('/metrics.json')}
    assert len(written) > 15
    def found(file): return hashlib.md5(path(file).read_bytes()).hexdigest() if path(file).exists() else 'not there'
    assert {f: found(f) for f in written} == written


def imported(code):
    "The modules of this library that some code imports"
    lines = [line for line in code.splitlines() if not re.match(r'\s*[%!]', line)]
    for node in ast.walk(ast.parse('\n'.join(lines))):
        if isinstance(node, ast.ImportFrom):
            name = '.'*node.level + (node.module or '')
            if name == '.' or name == 'faceprivacy': yield from (a.name for a in node.names)
            elif name.startswith('.'): yield name[1:]
            elif name.startswith('faceprivacy.'): yield name.split('.')[1]
        if isinstance(node, ast.Import): yield from (a.name.split('.')[1] for a in node.names if a.name.startswith('faceprivacy.'))


def all_imported(code):
    "Those modules and what they import in turn"
    found, ahead = set(), set(imported(code))
    while ahead:
        name = ahead.pop()
        found.add(name)
        ahead |= set(imported(path('faceprivacy', f'{name}.py').read_text())) - found
    return found


EXPERIMENTS = {k: v for k, v in PIPELINE.items() if 'papermill' in v['cmd']}


@pytest.mark.parametrize('stage', EXPERIMENTS)
def test_a_stage_depends_on_all_code_it_runs(stage):
    spec = EXPERIMENTS[stage]
    notebook = re.search(r'nbs/(\S+)\.ipynb', spec['cmd'])[1]
    deps = set(spec['deps'])
    assert f'.code/${{profile}}/{notebook}.py' in deps
    own = yaml.safe_load(path('params.yaml').read_text())
    known = {d.replace('${source}', own['source']).replace('${network}', own['network']) for d in deps}
    needed = {f'faceprivacy/{m}.py' for m in all_imported(code_of(path('nbs', f'{notebook}.ipynb')))}
    assert needed <= known, f'dvc.yaml: {stage} lacks {sorted(needed - known)}'


@pytest.mark.parametrize('profile', PROFILES)
@pytest.mark.parametrize('stage', EXPERIMENTS)
def test_a_profile_sets_only_parameters_that_exist(stage, profile):
    notebook = re.search(r'nbs/(\S+\.ipynb)', EXPERIMENTS[stage]['cmd'])[1]
    given = yaml.safe_load(path('params', profile, notebook.replace('.ipynb', '.yaml')).read_text()) or {}
    check_parameters(path('nbs', notebook), given)


def test_nothing_speaks_of_the_machine_it_was_made_on():
    listed = subprocess.run(['git', 'ls-files'], cwd=path(), capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        if name.startswith('.dvc/store') or not path(name).is_file(): continue
        text = path(name).read_text(encoding='utf-8', errors='ignore')
        assert not re.search(r'/(home|root|Users)/\w|/opt/\w+/simple', text), name


def test_the_readme_is_written_from_its_notebook():
    done = subprocess.run([sys.executable, path('docs/readme.py'), '--check'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
