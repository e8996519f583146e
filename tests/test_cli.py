"""The command line: exit codes, what goes where, files whole or not at all."""
import csv, functools, hashlib, http.server, json, os, re, shlex, shutil, signal, stat, subprocess, sys, threading, time
from pathlib import Path
import numpy as np, pytest, torch
from faceprivacy import cli, console, jobs
from faceprivacy.comparison_lists import find_lists
from faceprivacy.core import load_tensors, path, save_tensors
from faceprivacy.datasets import open_faces
from faceprivacy.submissions import read_submission
from faceprivacy.video import is_marked

@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with lists, genders and a submission of the smallest size"
    folder = tmp_path_factory.mktemp('cli')/'try'
    assert cli.main(['frcsyn', 'stand-in', str(folder), '--scale', '20']) == 0
    return folder

def given(place): return [str(place/'submission.zip'), '--lists', str(place/'lists'), '--genders', str(place/'lists'/'genders.csv')]

def run(*argv):
    "The exit code of a command line, wherever it comes from"
    try: return cli.main([str(a) for a in argv])
    except SystemExit as e: return e.code

def started(*args, code=''):
    "The program as a process of its own, some code before it"
    code = f'import sys\n{code}\nfrom faceprivacy.cli import main\nsys.exit(main())'
    return subprocess.Popen([sys.executable, '-c', code, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, cwd=path())

def test_help_loads_nothing_heavy():
    code = ("import sys; from faceprivacy import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
            "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'matplotlib')))")
    assert subprocess.run([sys.executable, '-c', code], cwd=path(), capture_output=True).returncode == 0

def test_version_is_the_librarys(capsys):
    from faceprivacy import __version__
    with pytest.raises(SystemExit) as e: cli.main(['--version'])
    assert e.value.code == 0 and capsys.readouterr().out == f'faceprivacy {__version__}\n'

def test_stand_in_makes_a_submission_that_is_read(place):
    lists = {t: find_lists(place/'lists', t, d) for t, d in (('1.1', ['bupt']), ('2.1', ['bupt', 'agedb', 'cfp-fp', 'rof']))}
    assert len(read_submission(place/'submission.zip', lists).answers) == 10
    assert sorted(p.name for p in place.parent.iterdir()) == ['try']

@pytest.mark.parametrize('argv', [[], ['frcsyn'], ['frcsyn', 'score'], ['frcsyn', 'sing'], ['--nothing'],
                                  ['frcsyn', 'score', 'x', '--lists', 'y', '--ddof', '2'], ['frcsyn', 'score', 'x']])
def test_wrong_usage_is_2(argv, capsys):
    with pytest.raises(SystemExit) as e: cli.main(argv)
    assert e.value.code == 2 and capsys.readouterr().err

def test_score_prints_and_writes(place, tmp_path, capsys):
    assert cli.main(['frcsyn', 'score', *given(place), '--rounds', '20', '--out', str(tmp_path/'a'/'b'), '--figures']) == 0
    out, err = capsys.readouterr()
    assert out.startswith('| sub-task ') and 'wrote' in err and 'wrote' not in out
    names = sorted(p.name for p in (tmp_path/'a'/'b').iterdir())
    assert names == [f'det_{t}_{r}.png' for t in ('1.1', '2.1') for r in ('baseline', 'proposed')] + [
        'scores.csv', 'scores.json', 'scores.md', 'scores.tex']
    assert (tmp_path/'a'/'b'/'scores.md').read_text() == out

def test_json_is_all_of_standard_output(place, capsys):
    assert cli.main(['frcsyn', 'score', *given(place), '--rounds', '20', '--json', '--sub-task', '2.1', '--gap', 'units']) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda s: pytest.fail(f'{s} is not JSON'))
    assert list(found['sub_tasks']) == ['2.1'] and found['options']['gap'] == 'units'

def test_the_same_question_has_the_same_answer(place, tmp_path, capsys):
    for name in 'ab': assert cli.main(['frcsyn', 'score', *given(place), '--rounds', '20', '--out', str(tmp_path/name)]) == 0
    for file in (tmp_path/'a').iterdir(): assert file.read_bytes() == (tmp_path/'b'/file.name).read_bytes()

def test_paths_are_seen_from_where_one_stands(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert cli.main(['frcsyn', 'score', 'submission.zip', '--lists', 'lists', '--rounds', '5', '--out', str(tmp_path)]) == 0
    (tmp_path/'faces.txt').write_text('a/1.jpg\na/2.jpg\n')
    monkeypatch.chdir(tmp_path)
    assert cli.main(['frcsyn', 'check-training', '1.1', '--synthetic', 'faces.txt', '--json']) == 0
    found = capsys.readouterr().out
    assert json.loads(found[found.rindex('\n{'):])['images'] == dict(synthetic=2, real=0)

def test_check_says_what_is_wrong_and_exits_with_1(place, tmp_path, capsys):
    assert cli.main(['frcsyn', 'check', *given(place)]) == 0
    assert capsys.readouterr().out == 'nothing is wrong\n'
    shutil.unpack_archive(place/'submission.zip', tmp_path/'s')
    file = tmp_path/'s'/'1.1'/'bupt'/'proposed.txt'
    file.write_text('0.5,maybe\r\n' + file.read_text())
    assert cli.main(['frcsyn', 'check', str(tmp_path/'s'), '--lists', str(place/'lists'), '--json']) == 1
    problems = json.loads(capsys.readouterr().out)['problems']
    assert len(problems) == 2 and "1.1/bupt/proposed.txt, line 1: decision 'maybe'" in problems[0] and '401 lines for the 400' in problems[1]
    assert cli.main(['frcsyn', 'check', str(tmp_path/'s')]) == 1
    assert 'lengths are not checked' in capsys.readouterr().out

def test_training_set_that_is_not_allowed_exits_with_1(capsys):
    faces = str(path('data/people/faces.rec'))
    assert cli.main(['frcsyn', 'check-training', '1.1', '--real', faces]) == 1
    assert 'wrong: ' in capsys.readouterr().out
    with pytest.raises(SystemExit) as e: cli.main(['frcsyn', 'check-training', '9.9', '--real', faces])
    assert e.value.code == 2

@pytest.mark.parametrize('change, code, why', [
    (dict(submission='nowhere'), 2, 'no such submission'), (dict(lists='nowhere'), 2, 'no folder of lists'),
    (dict(genders='nowhere'), 2, 'no such file of genders'), (dict(extra=['--sub-task', '1.2']), 2, 'has no answers to 1.2'),
    (dict(extra=['--rounds', '0']), 2, 'rounds: a whole number of 2 or more'), (dict(extra=['--fmr', 'nan']), 2, 'fmr: between 0 and 1'),
    (dict(extra=['--confidence', '1']), 2, 'confidence: between'), (dict(submission='README.md'), 1, 'not a whole zip')])
def test_a_question_that_cannot_be_answered_is_one_line_and_its_code(place, tmp_path, capsys, change, code, why):
    made = dict(submission=place/'submission.zip', lists=place/'lists', genders=place/'lists'/'genders.csv', extra=[])
    made |= {k: path(v) if v == 'README.md' else v for k, v in change.items()}
    assert run('frcsyn', 'score', made['submission'], '--lists', made['lists'], '--genders', made['genders'],
               '--out', tmp_path/'out', *made['extra']) == code
    out, err = capsys.readouterr()
    assert out == '' and err.startswith('faceprivacy') and why in err and 'Traceback' not in err
    assert not (tmp_path/'out').exists()

def test_debug_shows_where(place):
    with pytest.raises(FileNotFoundError): cli.main(['--debug', 'frcsyn', 'score', 'nowhere', '--lists', str(place/'lists')])

@pytest.mark.parametrize('after', range(5))
def test_files_are_whole_whenever_it_is_stopped(place, tmp_path, monkeypatch, capsys, after):
    "Stopped before the file number `after` takes its place"
    done, replace = [], Path.replace
    def stop(self, dest):
        if len(done) == after: raise KeyboardInterrupt
        done.append(Path(dest).name)
        return replace(self, dest)
    monkeypatch.setattr(Path, 'replace', stop)
    code = cli.main(['frcsyn', 'score', *given(place), '--rounds', '5', '--out', str(tmp_path/'o')])
    assert code == (130 if after < 4 else 0)
    assert sorted(p.name for p in (tmp_path/'o').iterdir()) == sorted(done)
    for file in (tmp_path/'o').glob('*.json'): json.loads(file.read_text())

def test_stand_in_leaves_no_folder_when_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('faceprivacy.submissions.write_submission', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main(['frcsyn', 'stand-in', str(tmp_path/'x'), '--scale', '20']) == 130
    assert list(tmp_path.iterdir()) == []

def started_and_stopped(code, args, ready):
    "Exit code and outputs of a program that gets Ctrl-C once `ready(pid)`"
    run = started(*args, code=code)
    try:
        deadline = time.time() + 100
        while time.time() < deadline and run.poll() is None and not ready(run.pid): time.sleep(.05)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=100)
    finally: run.kill()
    return run.returncode, out, err

SLOW = """
import pathlib, faceprivacy.challenge_scores as c
draw = c.people_weights
def people_weights(*args, **kw):
    pathlib.Path(sys.argv[-1]).with_name('drawing').touch()
    yield from draw(*args, **kw)
c.people_weights = people_weights
"""

def test_ctrl_c_ends_a_running_program(place, tmp_path):
    args = ['frcsyn', 'score', *given(place), '--rounds', 10**6, '--out', tmp_path/'o']
    code, out, err = started_and_stopped(SLOW, args, lambda pid: (tmp_path/'drawing').exists())
    assert (code, out) == (130, '') and 'stopped' in err and 'Traceback' not in err
    assert not (tmp_path/'o').exists()

@pytest.mark.skipif(not Path('/proc/self/maps').exists(), reason='sees by /proc what a process has loaded')
def test_ctrl_c_is_not_lost_while_modules_load(place, tmp_path):
    args = ['frcsyn', 'score', *given(place), '--rounds', 10**6, '--out', tmp_path/'o']
    code, out, err = started_and_stopped('', args, lambda pid: 'numpy' in Path(f'/proc/{pid}/maps').read_text())
    assert (code, out) == (130, '') and 'Traceback' not in err and not (tmp_path/'o').exists()

def test_a_reader_that_leaves_early_is_no_error(place):
    run = started('frcsyn', 'score', *given(place), '--rounds', 2, '--json')
    run.stdout.close()
    assert run.wait(120) == 0 and run.stderr.read() == ''

def test_another_subcommand_joins(monkeypatch, capsys):
    def add(commands): cli.add_command(commands, 'count', lambda args: cli.show(args, [1, float('nan')], 'one') or 0, 'count')
    monkeypatch.setattr(cli, 'COMMANDS', [*cli.COMMANDS, add])
    assert cli.main(['count']) == 0 and cli.main(['count', '--json']) == 0
    assert capsys.readouterr().out.split() == ['one', '[', '1,', 'null', ']']

# Every screen of help

def screens():
    "name -> parser, of the program and of every subcommand"
    found, ahead = {}, [cli.parser()]
    while ahead:
        p = ahead.pop()
        found[p.prog] = p
        for action in p._actions:
            if isinstance(action.choices, dict): ahead += action.choices.values()
    return found

SCREENS = screens()

@pytest.mark.parametrize('name', SCREENS)
def test_help_is_one_screen_with_an_example(name):
    text = SCREENS[name].format_help()
    lines = text.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80, text
    assert 'examples:' in text and text.startswith(f'usage: {name}')
    assert max(map(len, SCREENS[name].format_help(all=True).splitlines())) <= 80

@pytest.mark.parametrize('example', sorted({x for p in SCREENS.values() for x in p.examples if 'COMMAND' not in x}))
def test_the_examples_of_the_help_are_right(example, monkeypatch, tmp_path):
    "They are read without complaint where the files that they name are there"
    words = shlex.split(example.split(' > ')[0])
    monkeypatch.chdir(tmp_path)
    for word in words[1:]:
        file = Path(word)
        if re.search(r'\.(npz|npy|csv|safetensors|keys|mp4|png)$|/$|pretrained_weights', word) and not word.startswith('~'):
            if example.split(word)[0].rstrip().endswith(('-o', '--out')) or ('protect' in words and word.endswith('.keys')): continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.mkdir(exist_ok=True) if word.endswith('/') else file.touch()
    args = cli.parser().parse_args(words[1:])
    assert callable(args.run)

def test_wrong_usage_names_the_help(capsys):
    assert run('audit') == 2
    err = capsys.readouterr().err
    assert err.splitlines() == ['faceprivacy audit: the following arguments are required: templates', 'See faceprivacy audit --help']

def test_progress_is_for_people_and_output_for_show(monkeypatch, capsys):
    monkeypatch.delenv('TQDM_DISABLE', raising=False)
    def job(args):
        print('a library talks')
        assert os.environ['TQDM_DISABLE'] == '1'
        cli.show(args, 1, 'one')
        return 0
    monkeypatch.setattr(cli, 'COMMANDS', [lambda c: cli.add_command(c, 'count', job, 'count')])
    assert run('count') == 0 and 'TQDM_DISABLE' not in os.environ
    assert tuple(capsys.readouterr()) == ('one\n', 'a library talks\n')

# Templates

@pytest.fixture(scope='module')
def mine(tmp_path_factory):
    "A folder with templates as their owner may have them"
    folder, t = tmp_path_factory.mktemp('mine'), load_tensors(path('data/people/templates.safetensors'))
    z, who = t['z'].numpy(), np.array([f'p{i:02d}' for i in t['person'].tolist()])
    np.savez(folder/'all.npz', z=z, person=who)
    np.savez(folder/'first.npz', z=5*z[::6], person=who[::6])
    np.savez(folder/'second.npz', z=z[1::6], person=who[1::6])
    np.save(folder/'bare.npy', z[2::6])
    (folder/'bare.csv').write_text('image,person\n' + '\n'.join(f'{i}.png,{w}' for i, w in enumerate(who[2::6])))
    np.savez(folder/'nan.npz', z=np.full((4, 128), np.nan, np.float32), person=np.arange(4))
    np.savez(folder/'few.npz', z=z[:6], person=who[:6])
    np.savez(folder/'short.npz', z=np.eye(8), person=np.arange(8))
    (folder/'cut.npz').write_bytes((folder/'all.npz').read_bytes()[:999])
    return folder

def asked(capsys, *argv, code=0):
    "What a command prints as JSON"
    capsys.readouterr()
    assert run(*argv, '--json') == code
    return json.loads(capsys.readouterr().out, parse_constant=lambda s: pytest.fail(f'{s} is not JSON'))

@pytest.mark.parametrize('scheme', jobs.TEMPLATE_SCHEMES)
def test_protect_and_compare(mine, tmp_path, capsys, scheme):
    records, keys = tmp_path/'r.safetensors', tmp_path/'k.safetensors'
    assert run('protect', mine/'first.npz', '-o', records, '--keys', keys, '--scheme', scheme, '--extractor', 'small') == 0
    out, err = capsys.readouterr()
    assert 'brought to length 1' in err and str(records) in out
    keyed = scheme not in ('plain', 'ironmask')
    assert keys.exists() == keyed and stat.S_IMODE(records.stat().st_mode) == 0o644
    if keyed: assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    more = ['--keys', keys] if keyed else []
    own = asked(capsys, 'compare', records, mine/'second.npz', *more)
    assert len(own) == 32 and all(x['claim'] == x['record'] for x in own)
    assert all(x['score'] > .999 for x in asked(capsys, 'compare', records, mine/'first.npz', *more))
    best = asked(capsys, 'compare', records, mine/'first.npz', *more, '--search', 1)
    assert all(x['score'] > .999 for x in best)
    if scheme != 'ironmask': assert [x['record'] for x in best] == [x['claim'] for x in best]  # it says only yes and no
    assert run('compare', records, mine/'second.npz', *more, '--threshold', 2) == 1
    assert run('compare', records, mine/'second.npz', *more, '--threshold', -2) == 0
    if keyed: assert run('compare', records, mine/'second.npz') == 2

def test_labels_from_a_file_and_none(mine, tmp_path, capsys):
    records, keys = tmp_path/'r', tmp_path/'k'
    assert run('protect', mine/'bare.npy', '-o', tmp_path/'x.safetensors', '--keys', keys) == 0
    assert len(asked(capsys, 'compare', tmp_path/'x.safetensors', mine/'bare.npy', '--keys', keys)) == 32
    assert run('protect', mine/'first.npz', '-o', records, '--scheme', 'plain') == 0
    capsys.readouterr()
    found = asked(capsys, 'compare', records, mine/'bare.npy', '--labels', mine/'bare.csv')
    assert len(found) == 32 and all(x['claim'] == x['record'] for x in found)
    capsys.readouterr()
    assert run('compare', records, mine/'bare.npy', '--labels', mine/'bare.csv') == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ['probe', 'claim', 'record', 'score']

@pytest.mark.parametrize('argv, code, why', [
    (['protect', 'nan.npz'], 1, 'row 0, and 3 more, hold NaN'), (['protect', 'cut.npz'], 1, 'no whole .npz'),
    (['protect', 'nowhere.npz'], 2, 'nowhere.npz: is not there'), (['protect', 'first.npz', '--scheme', 'rot13'], 2, 'rot13 is none of'),
    (['protect', 'bare.npy', '--labels', 'bare.npy'], 1, 'whole numbers or text')])
def test_protect_says_what_is_wrong(mine, tmp_path, capsys, monkeypatch, argv, code, why):
    monkeypatch.chdir(mine)
    assert run(*argv, '-o', tmp_path/'r', '--keys', tmp_path/'k') == code
    out, err = capsys.readouterr()
    assert out == '' and why in err and 'Traceback' not in err and not list(tmp_path.iterdir())

def test_protect_wants_a_place_for_keys_and_overwrites_nothing(mine, tmp_path, capsys):
    assert run('protect', mine/'first.npz', '-o', tmp_path/'r') == 2 and 'name a file for them' in capsys.readouterr().err
    (tmp_path/'k').write_text('precious')
    assert run('protect', mine/'first.npz', '-o', tmp_path/'r', '--keys', tmp_path/'k') == 2
    assert (tmp_path/'k').read_text() == 'precious' and 'is there already' in capsys.readouterr().err
    assert run('protect', mine/'first.npz', '-o', tmp_path/'r', '--keys', tmp_path/'r') == 2 and not (tmp_path/'r').exists()

def test_compare_says_what_is_wrong(mine, tmp_path, capsys):
    records, keys, other = (tmp_path/n for n in 'rko')
    assert run('protect', mine/'first.npz', '-o', records, '--keys', keys) == 0
    assert run('protect', mine/'second.npz', '-o', tmp_path/'r2', '--keys', other, '--scheme', 'biohash') == 0
    for argv, code, why in (
            ([records, mine/'short.npz', '--keys', keys, '--search', 1], 1, 'another network'),
            ([records, mine/'short.npz', '--keys', keys], 1, 'another network'),
            ([records, mine/'second.npz', '--keys', other], 1, 'keys of another scheme'),
            ([keys, mine/'second.npz', '--keys', keys], 1, 'holds Keys'),
            ([mine/'all.npz', mine/'second.npz', '--keys', keys], 1, 'no whole file of records'),
            ([records, mine/'bare.npy', '--keys', keys, '--search', 0], 2, 'whole number of 1 or more'),
            ([records, mine/'few.npz', '--keys', tmp_path/'none'], 2, 'is not there')):
        capsys.readouterr()
        assert run('compare', *argv) == code
        out, err = capsys.readouterr()
        assert out == '' and why in err, err

@pytest.mark.parametrize('after', range(3))
def test_records_and_keys_come_together_or_not_at_all(mine, tmp_path, monkeypatch, capsys, after):
    "Ctrl-C before the file number `after` takes its place"
    done, replace = [], Path.replace
    def stop(self, dest):
        if len(done) == after: raise KeyboardInterrupt
        done.append(dest)
        return replace(self, dest)
    monkeypatch.setattr(Path, 'replace', stop)
    assert run('protect', mine/'first.npz', '-o', tmp_path/'r', '--keys', tmp_path/'k') == (130 if after < 2 else 0)
    assert sorted(f.name for f in tmp_path.iterdir()) == ([] if after < 2 else ['k', 'r'])

def test_audit(mine, tmp_path, capsys):
    report = tmp_path/'a'/'report.html'
    found = asked(capsys, 'audit', mine/'all.npz', '--quick', '--scheme', 'plain', 'slerp_hardened', '--rounds', 20,
                  '--attacked', 6, '-o', report)
    assert list(found['schemes']) == ['plain', 'slerp_hardened'] and found['about']['file'] == 'all.npz'
    m = found['schemes']['plain']['irreversibility']['template']['1']['type2_fmr_0.001']
    assert m['value'] > .6 and m['low'] <= m['value'] <= m['high']
    page = report.read_text()
    assert page.count('data:image/png;base64,') == 3 and not re.search(r'(src|href)="(?!data:)', page) and 'http:' not in page
    assert json.loads(report.with_suffix('.json').read_text())['schemes'].keys() == found['schemes'].keys()
    assert run('audit', mine/'all.npz', '--quick', '--scheme', 'plain', '-o', report) == 2  # is there

def test_audit_with_a_limit_and_an_own_scheme(mine, tmp_path, capsys):
    (tmp_path/'mine.py').write_text("""
from faceprivacy.template_schemes import SCHEMES, Plain
class Turned(Plain):
    "The template, upside down: no protection"
SCHEMES['turned'] = Turned
""")
    try:
        more = ['--own', str(tmp_path/'mine.py'), '--scheme', 'turned', '--quick', '--rounds', 5, '--attacked', 6]
        assert run('audit', mine/'all.npz', *more, '--limit', .5) == 1
        out, err = capsys.readouterr()
        assert 'turned' in out and 'more than 0.5 are rebuilt' in err
    finally:
        from faceprivacy.template_schemes import SCHEMES
        SCHEMES.pop('turned', None)

@pytest.mark.parametrize('argv, code, why', [
    (['few.npz'], 1, '1 people have two templates'), (['bare.npy'], 1, 'whose the templates are must be known'),
    (['nan.npz'], 1, 'hold NaN'), (['all.npz', '--scheme', 'rot13'], 2, 'rot13 is none of'),
    (['all.npz', '-o', 'report.pdf'], 2, 'does not end in .html'), (['all.npz', '--people', '3'], 2, 'whole number of 8'),
    (['all.npz', '--own', 'no.py'], 2, 'no.py is not there'), (['all.npz', '--own', 'no_module_here'], 2, 'no module no_module_here')])
def test_audit_says_what_is_wrong(mine, capsys, monkeypatch, argv, code, why):
    monkeypatch.chdir(mine)
    assert run('audit', *argv) == code
    out, err = capsys.readouterr()
    assert out == '' and why in err and 'Traceback' not in err

def test_audit_leaves_nothing_when_stopped(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('faceprivacy.audit_report.linkage', lambda *_, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run('audit', mine/'all.npz', '--quick', '--scheme', 'plain', '-o', tmp_path/'report.html') == 130
    assert list(tmp_path.iterdir()) == []

# Pictures

@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    "Synthetic people, small"
    folder = tmp_path_factory.mktemp('drawn')/'people'
    assert run('people', folder, '-n', 2, '--shots', 2, '--size', 56, '--seed', 3) == 0
    return folder

def test_people_have_labels_and_truth(drawn, capsys):
    faces = open_faces('folder', drawn, size=56)
    assert (len(faces), len(faces.person.unique())) == (4, 2)
    lines = list(csv.DictReader(open(drawn/'labels.csv')))
    truth = load_tensors(drawn/'truth.safetensors')
    assert [x['image'] for x in lines] == sorted(x.relative_to(drawn).as_posix() for x in drawn.rglob('*.png'))
    assert all(is_marked(drawn/x['image']) for x in lines) and len({len(v) for k, v in truth.items() if k.startswith('image.')}) == 1
    assert [float(x['yaw']) for x in lines] == pytest.approx(truth['image.pose'][:, 0].tolist(), abs=.01)
    assert json.loads((drawn/'about.json').read_text())['synthetic'] is True

def test_the_same_seed_draws_the_same_people(drawn, tmp_path, capsys):
    assert run('people', tmp_path/'again', '-n', 2, '--shots', 2, '--size', 56, '--seed', 3) == 0
    for file in drawn.rglob('*.*'): assert file.read_bytes() == (tmp_path/'again'/file.relative_to(drawn)).read_bytes()

def test_people_leave_no_folder_when_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('faceprivacy.picture_folders.save_tensors', lambda *_, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run('people', tmp_path/'x', '-n', 1, '--shots', 1, '--size', 32) == 130 and list(tmp_path.iterdir()) == []
    assert 'no file was left' in capsys.readouterr().err

@pytest.mark.parametrize('argv, why', [(['--group', 'Zz'], 'Zz is none of Ax'), (['-n', '0'], 'whole number of 1'),
                                       (['--size', 'big'], "not 'big'"), (['--framing', 'full'], "invalid choice: 'full'")])
def test_people_wrong_usage(tmp_path, capsys, argv, why):
    assert run('people', tmp_path/'x', *argv) == 2 and why in capsys.readouterr().err and not (tmp_path/'x').exists()

@pytest.mark.parametrize('scheme', ['null_residue', 'partialface', 'dctdp'])
def test_protect_pictures(drawn, tmp_path, capsys, scheme, monkeypatch):
    monkeypatch.setattr(jobs, 'usual', lambda *_: (_ for _ in ()).throw(console.Usage('none')))
    about = asked(capsys, 'protect', drawn, '-o', tmp_path/'sent', '--scheme', scheme, '--size', 56)
    assert (about['pictures'], about['scheme']) == (4, scheme)
    sent = load_tensors(tmp_path/'sent'/'00001'/'00001_001.safetensors')['sent']
    assert sent.shape == (about['channels'], 56, 56) and (tmp_path/'sent'/'00001'/'00001_001.png').exists()

def test_protected_pictures_are_compared_by_a_network(drawn, tmp_path, capsys):
    from faceprivacy.minusface import recogniser
    from faceprivacy.recognition import save_weights
    torch.manual_seed(0)
    net, file = recogniser('small', 3, 56, 128), tmp_path/'net.safetensors'
    save_weights(file, net.eval())
    for name in 'ab': assert run('protect', drawn, '-o', tmp_path/name, '--scheme', 'null_residue', '--size', 56) == 0
    capsys.readouterr()
    found = asked(capsys, 'compare', tmp_path/'a', tmp_path/'b', '--network', file)
    assert len(found) == 8 and all(x['record'].startswith(x['claim']) for x in found)
    assert len(asked(capsys, 'compare', tmp_path/'a', tmp_path/'b', '--network', file, '--search', 1)) == 4
    assert run('compare', tmp_path/'a', tmp_path/'b') == 2 and '--network' in capsys.readouterr().err
    assert run('compare', drawn, tmp_path/'b', '--network', file) == 1 and 'is no protected picture' in capsys.readouterr().err

@pytest.mark.parametrize('argv, code, why', [
    (['--scheme', 'null_residue'], 1, '112 x 112 are wanted'), (['--scheme', 'rot13'], 2, 'rot13 is none of'),
    (['--scheme', 'plain', '--keys', 'k'], 2, 'pictures have none'), (['--scheme', 'minusface', '--weights', 'nowhere'], 2, 'is not there')])
def test_protect_pictures_says_what_is_wrong(drawn, tmp_path, capsys, argv, code, why):
    assert run('protect', drawn, '-o', tmp_path/'sent', *argv) == code
    assert why in capsys.readouterr().err and not (tmp_path/'sent').exists()

def test_pictures_of_one_name_would_overwrite_each_other(drawn, tmp_path, capsys):
    for end in ('png', 'PNG'): shutil.copy(drawn/'00000'/'00000_000.png', tmp_path/f'a.{end}')
    assert run('protect', tmp_path, '-o', tmp_path/'sent', '--scheme', 'plain', '--size', 56) == 1
    assert 'would get the same name' in capsys.readouterr().err

def test_invert_marks_its_faces(mine, tmp_path, capsys):
    weights = path('data/networks/inversion')
    found = asked(capsys, 'invert', mine/'few.npz', '-o', tmp_path/'faces', '--weights', weights)
    made = sorted((tmp_path/'faces').glob('*.png'))
    assert found['faces'] == len(made) == 6 and all(map(is_marked, made))
    assert [x['person'] for x in csv.DictReader(open(tmp_path/'faces'/'faces.csv'))] == ['p32']*6

@pytest.mark.parametrize('argv, code, why', [
    (['short.npz'], 1, 'this decoder wants 128'), (['few.npz', '--how', 'diffusion'], 2, 'diffusion wants it'),
    (['few.npz', '--how', 'magic'], 2, "invalid choice: 'magic'"), (['cut.npz'], 1, 'no whole .npz')])
def test_invert_says_what_is_wrong(mine, tmp_path, capsys, monkeypatch, argv, code, why):
    monkeypatch.chdir(mine)
    assert run('invert', *argv, '-o', tmp_path/'faces', '--weights', path('data/networks/inversion')) == code
    assert why in capsys.readouterr().err and list(tmp_path.iterdir()) == []

def test_invert_leaves_no_folder_when_stopped(mine, tmp_path, monkeypatch, capsys):
    seen = []
    def stop(file, *_, **k):
        seen.append(file)
        if len(seen) == 3: raise KeyboardInterrupt
    monkeypatch.setattr('faceprivacy.picture_folders.write_picture', stop)
    assert run('invert', mine/'few.npz', '-o', tmp_path/'faces', '--weights', path('data/networks/inversion')) == 130
    assert list(tmp_path.iterdir()) == []

def test_animate_is_reached_and_says_what_is_wrong(drawn, tmp_path, capsys):
    "The pipeline itself is tested in test_animate"
    from faceprivacy.official_weights import save_official
    from faceprivacy.portrait_motion import UNTRAINED, untrained
    still = drawn/'00000'/'00000_000.png'
    assert run('animate', still, still, '-o', tmp_path/'x.png', '--weights', tmp_path) == 2
    assert 'lacks' in capsys.readouterr().err
    save_official(untrained(), tmp_path/'w', '.safetensors')
    (tmp_path/'w'/'sizes.json').write_text(json.dumps(UNTRAINED))
    assert run('animate', still, still, '-o', tmp_path/'x.txt', '--weights', tmp_path/'w') == 1
    found = asked(capsys, 'animate', still, still, '-o', tmp_path/'x.png', '--weights', tmp_path/'w')
    assert found['frames'] == 1 and is_marked(tmp_path/'x.png')

# Networks

@pytest.fixture
def hub(tmp_path):
    "A server that looks like the hub, with five small files, and where it keeps them"
    from faceprivacy.official_weights import BASES, NETWORKS, SMALL_BASES, SMALL_FILE
    names = [f'{BASES["human"][0]}/{n}.pth' for n in NETWORKS.values()] + [f'{SMALL_BASES[0]}/{SMALL_FILE}.pth']
    root, listing = tmp_path/'hub', []
    for i, name in enumerate(names):
        file = root/'KwaiVGI'/'LivePortrait'/'resolve'/'main'/name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([i])*100)
        listing.append(dict(path=name, lfs=dict(size=100, oid=hashlib.sha256(file.read_bytes()).hexdigest())))
    index = root/'api'/'models'/'KwaiVGI'/'LivePortrait'/'tree'/'main'
    index.parent.mkdir(parents=True)
    index.write_text(json.dumps(listing))
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}', names
    server.shutdown()

def test_weights_are_listed(tmp_path, capsys):
    found = {m['name']: m for m in asked(capsys, 'weights', 'list', '--folder', tmp_path)}
    assert found['embedded/small']['there'] and not found['liveportrait']['there'] and not found['mobilefacenet_mxnet']['there']
    assert run('weights', 'list', '--folder', tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ['name', 'there', 'size', 'terms', 'what']

def test_weights_are_fetched_and_verified(hub, tmp_path, capsys):
    endpoint, names = hub
    got = asked(capsys, 'weights', 'fetch', 'liveportrait', '--folder', tmp_path/'m', '--endpoint', endpoint)
    assert len(got['liveportrait']) == 5 and (tmp_path/'m'/'pretrained_weights'/'SHA256SUMS').exists()
    found = asked(capsys, 'weights', 'verify', 'liveportrait', '--folder', tmp_path/'m', code=1)  # digests agree, but no networks
    assert found['liveportrait']['state'] == 'damaged' and 'tensors and nothing else' in found['liveportrait']['say']
    (tmp_path/'m'/'pretrained_weights'/names[0]).write_bytes(b'x')
    found = asked(capsys, 'weights', 'verify', 'liveportrait', '--folder', tmp_path/'m', code=1)
    assert 'has SHA256' in found['liveportrait']['say']

def test_a_network_that_does_not_answer_is_1(tmp_path, capsys):
    assert run('weights', 'fetch', 'liveportrait', '--folder', tmp_path, '--endpoint', 'http://127.0.0.1:9') == 1
    assert 'cannot be reached' in capsys.readouterr().err

def test_verify_finds_what_is_missing_or_changed(tmp_path, capsys):
    assert asked(capsys, 'weights', 'verify', 'embedded/small')['embedded/small']['state'] == 'whole'
    assert run('weights', 'verify', 'retinaface_mnet025', '--folder', tmp_path) == 1 and 'missing' in capsys.readouterr().out
    (tmp_path/'retinaface_mnet025.onnx').write_bytes(b'other')
    assert asked(capsys, 'weights', 'verify', 'retinaface_mnet025', '--folder', tmp_path, code=1)['retinaface_mnet025']['state'] == 'damaged'
    assert run('weights', 'verify', 'arcface', '--folder', tmp_path) == 2 and 'no such model' in capsys.readouterr().err
    assert run('weights', 'fetch', 'mobilefacenet_mxnet', '--folder', tmp_path) == 1 and 'not ours to hand round' in capsys.readouterr().err

def test_official_files_without_sums_are_loaded(tmp_path, capsys):
    from faceprivacy.official_weights import save_official
    from faceprivacy.portrait_motion import UNTRAINED, untrained
    save_official(untrained(), tmp_path, '.safetensors')
    (tmp_path/'sizes.json').write_text(json.dumps(UNTRAINED))
    assert asked(capsys, 'weights', 'verify', 'liveportrait', '--folder', tmp_path)['liveportrait']['state'] == 'unknown'

def test_real_recognisers_have_the_digests_that_are_listed(real_data, capsys):
    found = asked(capsys, 'weights', 'verify', 'mobilefacenet_foamliu', 'mobilefacenet_mxnet', 'retinaface_mnet025', '--folder', real_data)
    assert {m['state'] for m in found.values()} == {'whole'}

def test_doctor_says_what_is_there_and_what_is_missing(tmp_path, capsys, monkeypatch):
    found = asked(capsys, 'doctor', '--folder', tmp_path)
    assert found['problems'] == [] and found['models']['liveportrait']['there'] is False and found['devices']['cores'] >= 1
    assert run('doctor', '--folder', tmp_path) == 0
    out = capsys.readouterr().out
    assert 'missing  liveportrait: faceprivacy weights fetch' in out and 'All that is needed is there' in out
    monkeypatch.setattr('faceprivacy.model_files.requirements', lambda: {'torch>=99': dict(version='2.0', met=False)})
    assert run('doctor', '--folder', tmp_path) == 1 and 'torch>=99: 2.0' in capsys.readouterr().out

def test_no_checkout_is_no_crash(tmp_path, capsys, monkeypatch):
    "As for a user who has the package alone"
    def nowhere(): raise FileNotFoundError('no settings.ini')
    for module in ('core', 'model_files'): monkeypatch.setattr(f'faceprivacy.{module}.root', nowhere)
    names = [m['name'] for m in asked(capsys, 'weights', 'list', '--folder', tmp_path)]
    assert names == ['liveportrait', 'mobilefacenet_foamliu', 'mobilefacenet_mxnet', 'retinaface_mnet025']
    assert asked(capsys, 'doctor')['checkout'] is None

# Ctrl-C in a process of its own

SLOW_PEOPLE = """
import pathlib, time, faceprivacy.picture_folders as p
draw = p._draw
def slow(*args):
    pathlib.Path(sys.argv[2]).with_name('drawing').touch()
    time.sleep(60)
p._draw = slow
"""

def test_ctrl_c_leaves_no_folder(tmp_path):
    code, out, err = started_and_stopped(SLOW_PEOPLE, ['people', tmp_path/'x'], lambda pid: (tmp_path/'drawing').exists())
    assert (code, out) == (130, '') and 'stopped' in err and 'Traceback' not in err
    assert [f.name for f in tmp_path.iterdir()] == ['drawing']
