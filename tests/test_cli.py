"""The command line: exit codes, what goes where, files whole or not at all."""
import json, shutil, signal, subprocess, sys, time
from pathlib import Path
import pytest
from faceprivacy import cli
from faceprivacy.comparison_lists import find_lists
from faceprivacy.core import path
from faceprivacy.submissions import read_submission

@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with lists, genders and a submission of the smallest size"
    folder = tmp_path_factory.mktemp('cli')/'try'
    assert cli.main(['frcsyn', 'stand-in', str(folder), '--scale', '20']) == 0
    return folder

def given(place): return [str(place/'submission.zip'), '--lists', str(place/'lists'), '--genders', str(place/'lists'/'genders.csv')]

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
    assert cli.main(['frcsyn', 'check-training', '9.9', '--real', faces]) == 2

@pytest.mark.parametrize('change, why', [
    (dict(submission='nowhere'), 'no such submission'), (dict(lists='nowhere'), 'no folder of lists'),
    (dict(genders='nowhere'), 'no such file of genders'), (dict(extra=['--sub-task', '1.2']), 'has no answers to 1.2'),
    (dict(extra=['--rounds', '0']), 'rounds: 2 or more'), (dict(extra=['--fmr', 'nan']), 'fmr: between 0 and 1'),
    (dict(extra=['--confidence', '1']), 'confidence: between'), (dict(submission='README.md'), 'not a whole zip')])
def test_a_question_that_cannot_be_answered_is_one_line_and_2(place, tmp_path, capsys, change, why):
    made = dict(submission=place/'submission.zip', lists=place/'lists', genders=place/'lists'/'genders.csv', extra=[])
    made |= {k: path(v) if v == 'README.md' else v for k, v in change.items()}
    assert cli.main(['frcsyn', 'score', str(made['submission']), '--lists', str(made['lists']), '--genders', str(made['genders']),
                     '--out', str(tmp_path/'out'), *made['extra']]) == 2
    out, err = capsys.readouterr()
    assert out == '' and err.startswith('faceprivacy: ') and why in err and 'Traceback' not in err
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
