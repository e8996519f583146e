"""The five-minute walk of docs/walk.md: its commands, in its order, do what it says; here on a stage that takes no time"""
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from faceprivacy.core import path
from faceprivacy.pipeline import run_cells

SCRIPT = '''
import json, sys, yaml
from pathlib import Path
from PIL import Image
drop = yaml.safe_load(open('params/default/10_slerp.yaml'))['drop_rate']
out = Path('results/default/10_slerp')
(out/'figures').mkdir(parents=True, exist_ok=True)
one = {k: {'value': 1 - drop/10, 'low': .9 - drop/10, 'high': 1.} for k in ('accuracy', 'tmr_at_fmr_0.01')}
(out/'metrics.json').write_text(json.dumps({'methods': {'slerp': one, 'slerp_hardened': one}}, indent=1))
Image.new('RGB', (8, 8), (int(255*drop), 0, 0)).save(out/'figures'/'accuracy.png')
with open('runs', 'a') as f: f.write(f'{drop}\\n')
'''
STAGE = {'stages': {'slerp': {
    'cmd': 'python stage.py', 'deps': ['stage.py'], 'params': [{'params/default/10_slerp.yaml': None}],
    'outs': ['results/default/10_slerp/figures'],
    'metrics': [{'results/default/10_slerp/metrics.json': {'cache': False}}]}}}
PLOTS = {'plots': ['default/10_slerp/figures/accuracy.png',
                   {'curve': {'y': {'default/history.json': 'loss'}, 'template': 'linear'}}]}


def commands(page: str) -> list:
    "What a reader types: the lines of its console blocks that begin with a dollar"
    blocks = re.findall(r'```console\n(.*?)```', page, re.S)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith('$ ')]


def run(command, folder):
    "The output of a shell command that has to succeed"
    bin = str(Path(sys.executable).parent)
    env = {'PATH': f'{bin}:/usr/local/bin:/usr/bin:/bin', 'HOME': str(folder), 'DVC_NO_ANALYTICS': '1', 'COLUMNS': '200'}
    done = subprocess.run(['bash', '-o', 'pipefail', '-c', command], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f'{command}\n{done.stdout}{done.stderr}'
    return done.stdout


def metrics(folder): return json.loads((folder/'results/default/10_slerp/metrics.json').read_text())['methods']['slerp']


@pytest.fixture(scope='module')
def walked(tmp_path_factory):
    "A small repository with the walk's files, all commands of the page run in it; (folder, command -> output, states)"
    folder = tmp_path_factory.mktemp('walk')
    for name in ('params/default', 'results/default'): (folder/name).mkdir(parents=True)
    (folder/'stage.py').write_text(SCRIPT)
    (folder/'dvc.yaml').write_text(yaml.safe_dump(STAGE))
    (folder/'results/dvc.yaml').write_text(yaml.safe_dump(PLOTS))
    (folder/'results/default/history.json').write_text(json.dumps([{'loss': 2.}, {'loss': 1.}]))
    (folder/'params/default/10_slerp.yaml').write_text('alpha: 0.9\ndrop_rate: 0.5\n')
    (folder/'.gitignore').write_text('/runs\n/dvc_plots\n/.cache\n/.config\n/.local\n')
    run('git init -q && git config user.name walk && git config user.email walk@example.invalid && dvc init -q', folder)
    template = path('.dvc/plots/page.html')
    (folder/'.dvc/plots').mkdir()
    shutil.copy(template, folder/'.dvc/plots/page.html')
    run('dvc config plots.html_template plots/page.html && dvc repro -q && git add -A && git commit -qm begin', folder)
    outputs, states = {}, {}
    for command in commands(path('docs/walk.md').read_text(encoding='utf-8')):
        outputs[command] = run(command, folder)
        states[command] = metrics(folder)['accuracy']['value'], len((folder/'runs').read_text().split())
    return folder, outputs, states


def of(found, begin):
    "The one entry whose command begins so"
    hits = [v for k, v in found.items() if k.startswith(begin)]
    assert len(hits) == 1, f'{len(hits)} commands of the page begin with {begin!r}'
    return hits[0]


def test_an_experiment_runs_once_and_changes_the_workspace(walked):
    assert of(walked[2], 'dvc exp run') == (pytest.approx(.975), 2)


def test_what_changed_is_named_before_and_after(walked):
    assert re.search(r'drop_rate\s+0\.5\s+0\.25', of(walked[1], 'dvc params diff'))
    shown = of(walked[1], 'dvc metrics diff')
    assert re.search(r'slerp_hardened\.accuracy\.value\s+0\.95\s+0\.975\s+0\.025', shown)
    assert 'low' not in shown, 'the page shows values alone'


def test_the_picture_of_both_is_a_page_without_a_network(walked):
    folder, outputs, _ = walked
    page = folder/'dvc_plots/index.html'
    assert page.as_uri() in of(outputs, 'dvc plots diff')
    assert 'curve' not in page.read_text(), 'the targets alone'
    text = page.read_text()
    assert '{plot_divs}' not in text and len(re.findall('<img', text)) == 2, 'the same picture of two revisions'
    pictures = [page.parent/src for src in re.findall(r'<img[^>]*src="([^"]+)"', text)]
    assert pictures[0].read_bytes() != pictures[1].read_bytes()
    first = re.findall(r'<script src="([^"]+)"', text)[:3]
    assert [Path(s).name for s in first] == ['vega.min.js', 'vega-lite.min.js', 'vega-embed.min.js']
    assert all((page.parent/s).resolve().is_relative_to(folder/'.dvc/plots/vega') for s in first)


def test_the_experiment_has_its_name(walked): assert '[less-dropout]' in of(walked[1], 'dvc exp list')


def test_put_back_and_taken_again_without_a_run(walked):
    folder, outputs, states = walked
    assert of(states, 'git restore') == (pytest.approx(.95), 2)
    [first] = [c for c in outputs if c.startswith('dvc exp run')]
    assert 'is cached - skipping run' in run(first.replace('-n less-dropout ', ''), folder)
    assert metrics(folder)['accuracy']['value'] == pytest.approx(.975)
    assert len((folder/'runs').read_text().split()) == 2


# the real pipeline keeps what the walk needs

@pytest.mark.parametrize('profile', ['lfw', 'smoke'])
def test_git_holds_every_pipeline_as_a_file(profile):
    "DVC reads other revisions out of git, where a link is a path and no pipeline: all diffs would fail"
    listed = subprocess.run(['git', 'ls-files', '-s', f'params/{profile}/dvc.yaml'], cwd=path(), capture_output=True, text=True)
    assert listed.stdout.startswith('100644'), f'params/{profile}/dvc.yaml is a link: copy dvc.yaml in its place'
    assert path(f'params/{profile}/dvc.yaml').read_text() == path('dvc.yaml').read_text()


def test_plots_are_those_of_the_profile_that_everybody_has():
    "An experiment collects the files of all plots; those of another profile would stop it where that never ran"
    for file in ('dvc.yaml', 'params/lfw/dvc.yaml', 'params/smoke/dvc.yaml'):
        assert 'plots' not in yaml.safe_load(path(file).read_text()), file
    plots = yaml.safe_load(path('results/dvc.yaml').read_text())['plots']
    files = [f for p in plots for f in ([p] if isinstance(p, str) else next(iter(p.values()))['y'])]
    stages = yaml.safe_load(path('dvc.yaml').read_text())['stages'].values()
    outs = [str(o if isinstance(o, str) else next(iter(o))) for s in stages for k in ('outs', 'metrics') for o in s.get(k, [])]
    made = [o.replace('${profile}', 'default') for o in outs]
    for f in files:
        assert f.startswith('default/') and any(f'results/{f}'.startswith(o) for o in made), f'no stage makes {f}'


def test_the_page_names_what_is_there():
    page = path('docs/walk.md').read_text(encoding='utf-8')
    stages = yaml.safe_load(path('dvc.yaml').read_text())['stages']
    [experiment] = [c for c in commands(page) if c.startswith('dvc exp run')]
    file, key = re.search(r"-S '?([\w/.]+):(\w+)=", experiment).groups()
    assert key in yaml.safe_load(path(file).read_text()) and experiment.split()[-1] in stages
    for name in re.findall(r'(?<![\w/])((?:params|results|docs|nbs)/[\w/.]+\.(?:yaml|json|ipynb|md))', page):
        assert path(name).exists() or 'NOTEBOOK' in name or name.startswith('results/'), name


# the results page

def test_what_has_not_run_is_a_line_and_no_error(tmp_path):
    "90_results for a profile of which nothing is there: every table names the command, none has a number"
    nb = nbformat.read(path('nbs/90_results.ipynb'), as_version=4)
    [given] = [c for c in nb.cells if 'parameters' in c.metadata.get('tags', [])]
    given.source = f"profiles = ['nothing']\nout = {str(tmp_path)!r}"
    outputs = [o for c in run_cells(nb).cells if c.cell_type == 'code' for o in c.outputs]
    errors = [o for o in outputs if o.output_type == 'error']
    assert not errors, ''.join(errors[0].traceback)
    shown = [''.join(o.get('data', {}).get('text/markdown', '')) for o in outputs]
    for notebook in ('10_slerp', '13_template_audit', '22_image_audit', '30_inversion', '43d_portrait_metrics'):
        line = f'*`{notebook}` has not run in profile `nothing`: `make repro PROFILE=nothing`*'
        assert any(line in text for text in shown), notebook
    kept = json.loads((tmp_path/'metrics.json').read_text())
    assert set(kept['held']['nothing'].values()) == {'not run'} and kept['overview']['nothing'] == {}
