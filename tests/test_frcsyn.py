"""FRCSyn: published tables, lists, submissions good and bad, scores against independent computations."""
import csv, hashlib, io, os, struct, zipfile
from collections import Counter
from dataclasses import replace
import numpy as np, pytest
from sklearn.metrics import roc_auc_score
from faceprivacy.challenge_scores import Options, oracle, report, score_submission, score_systems, sd_by_chance
from faceprivacy.comparison_lists import DATABASES, GROUPS, find_lists, read_genders, read_list, read_path, write_list
from faceprivacy.core import path, read_json
from faceprivacy.formats import pack, write_records
from faceprivacy.frcsyn import (
    SUB_TASKS, certainty, check_training_set, count_faces, gap_to_real, rankings, redraw, spread, sub_task, trade_off)
from faceprivacy.score_tables import rank, table, to_csv, to_latex, to_markdown, write_tables
from faceprivacy.scores import Comparisons
from faceprivacy.stand_ins import stand_in, stand_in_scores, write_stand_ins
from faceprivacy.submissions import (
    Answers, Submission, check_submission, fit_threshold, out_of_order, read_submission, remarks,
    stand_in_answers, sub_tasks_of, write_submission)

PUBLISHED = rankings()

@pytest.fixture(scope='module')
def full(tmp_path_factory):
    "A folder of stand-ins at full size"
    folder = tmp_path_factory.mktemp('full')
    write_stand_ins(folder, seed=3)
    return folder

@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "sub-task -> database -> list of small stand-ins"
    folder = tmp_path_factory.mktemp('small')
    write_stand_ins(folder, seed=4, scale=10)
    return {t: find_lists(folder, t, sub_task(t).databases, folder/'genders.csv') for t in ('1.1', '2.1')}

@pytest.fixture(scope='module')
def answers(small): return stand_in_answers(small, np.random.default_rng(5))

# Published tables

def test_trade_off_is_that_of_the_18_published_rows():
    rows = [r for (e, t), table in PUBLISHED.items() if (e, t[0]) == ('cvpr2024', '1') for r in table]
    assert len(rows) == 18
    for r in rows:
        two = r['avg'] + r['sd']*np.array([-1, 1]*4)          # eight groups with that mean and deviation
        avg, sd, to = trade_off(two)
        assert (avg, sd) == (pytest.approx(r['avg']), pytest.approx(r['sd']))
        assert to == pytest.approx(r['to'], abs=.0101)

def test_gap_is_that_of_dcface_table_4():
    with open(path('data/published/dcface_table4.csv')) as f: rows = list(csv.DictReader(f))
    assert len(rows) == 3
    for r in rows:
        ours = gap_to_real(94.62, float(r['mean_accuracy_percent']))
        assert ours == pytest.approx(float(r['gap_to_real_percent']), abs=.0051)
    assert gap_to_real(90, 95) < 0 < gap_to_real(95, 90)

def test_sub_tasks_are_the_published_ones():
    with open(path('data/published/frcsyn_sub_tasks.csv')) as f: rows = list(csv.DictReader(f))
    assert len(rows) == len(SUB_TASKS)
    for r in rows:
        t = sub_task(r['sub_task'], {'CVPR 2024': 'cvpr2024', 'WACV 2024': 'wacv2024'}[r['edition']])
        assert t.goal == r['goal']
        if t.edition == 'cvpr2024': assert {'no limit': None, 'at most 500000': 500_000}[r['synthetic_images']] == t.synthetic
        else: assert all(s in r['synthetic_images'] for s in t.sets) and t.sets
        assert all(s in r['real_data'] for s in t.real) and bool(t.real) == (r['real_data'] != 'none')

def test_another_list_moves_a_number_as_theory_says():
    rows, rng = PUBLISHED['cvpr2024', '2.2'], np.random.default_rng(0)
    draws = redraw(rows, rng, 20_000)
    n, a = np.array([8000, 22881, 7000, 3511]), np.array([r['avg'] for r in rows])
    np.testing.assert_allclose(draws.std(0), np.sqrt(a*(100 - a)*(1/n).sum())/4, rtol=.03)
    np.testing.assert_allclose(draws.mean(0), a, atol=.01)

def test_equal_groups_show_the_deviation_that_chance_makes():
    rng = np.random.default_rng(1)
    equal = rng.binomial(1000, .94, (4000, 8))/10
    avg, sd, _ = trade_off(equal)
    assert spread(94., (sd**2).mean()**.5) == pytest.approx(0, abs=.12)
    assert certainty(np.array([[2., 1.], [1., 2.]]))['reversed'] == [.5]

# Training sets

def test_training_set_of_a_rec_counts_images_and_not_identities(tmp_path):
    with write_records(tmp_path/'train.rec') as write:
        write(0, pack(b'', [6, 8]))
        for k, who in enumerate([0, 0, 0, 1, 1], 1): write(k, pack(b'not opened', who, k))
        write(6, pack(b'', [1, 4], 6)), write(7, pack(b'', [4, 6], 7))
    assert count_faces(tmp_path/'train.rec') == count_faces(tmp_path) == dict(images=5, identities=2, repeats=0)

def test_training_set_of_a_folder_and_a_zip(tmp_path):
    for name in ('Asian_Male/1/a.jpg', 'Asian_Female/1/a.png', 'Asian_Female/1/b.png', 'Asian_Female/1/notes.txt'):
        (tmp_path/'set'/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/'set'/name).write_bytes(b'x')
    with zipfile.ZipFile(tmp_path/'set.zip', 'w') as z:
        for f in (tmp_path/'set').rglob('*.*'): z.write(f, f.relative_to(tmp_path))
    for place in ('set', 'set.zip'): assert count_faces(tmp_path/place) == dict(images=3, identities=2, repeats=0)

@pytest.mark.parametrize('n, task, wrong', [(500_000, '1.1', 0), (500_001, '1.1', 1), (500_001, '1.2', 0),
                                            (500_001, '1.3', 1), (500_001, '2.3', 1)])
def test_training_set_limit_is_on_images(monkeypatch, n, task, wrong):
    monkeypatch.setattr('faceprivacy.frcsyn.count_faces', lambda place: dict(images=n, identities=n, repeats=0))
    found = check_training_set(task, synthetic='list.txt')
    assert len(found['problems']) == wrong and found['images']['synthetic'] == n
    if wrong: assert '500,001 synthetic images' in found['problems'][0] and 'leave 1 out' in found['problems'][0]

def test_training_set_of_a_list(tmp_path):
    (tmp_path/'a.lst').write_text('0\tb/x.y/1.jpg\t7\n1\tb/x.y/2.jpg\t7\n\n2\tb/z/1.jpg\t8\n2\tb/z/1.jpg\t8\n')
    assert count_faces(tmp_path/'a.lst') == dict(images=4, identities=2, repeats=1)
    (tmp_path/'b.tsv').write_text(''.join(f'{k}\t{k:05d}.jpg\t{k//50}\n' for k in range(10_000)))
    assert count_faces(tmp_path/'b.tsv') == dict(images=10_000, identities=200, repeats=0)

def test_training_set_refuses_what_is_not_there_or_not_a_list(tmp_path):
    with pytest.raises(FileNotFoundError, match='is not there'): count_faces(tmp_path/'none')
    (tmp_path/'a.txt').write_text('\n')
    with pytest.raises(ValueError, match='a.txt: names no image'): count_faces(tmp_path/'a.txt')
    (tmp_path/'b.txt').write_text('p/1.jpg\np/1.jpg p/2.jpg\n')
    with pytest.raises(ValueError, match='b.txt, line 2'): count_faces(tmp_path/'b.txt')
    real = check_training_set('1.1', real=path('data/people/faces.rec'))
    assert any('allows none' in s for s in real['problems'])
    assert check_training_set('1.2')['problems'] == ['no image is named: give synthetic or real places']

# Lists

def test_stand_ins_have_all_counts_of_the_organisers(full):
    lists = find_lists(full, '2.1', genders=full/'genders.csv')
    for d, x in lists.items():
        assert x.differences() == {} and x.origin == "the organisers' counts"
        assert x.counts() == DATABASES[d].counts and x.kinds() == DATABASES[d].kinds
    bupt = lists['bupt']
    assert Counter(Counter(bupt.left + bupt.right).values()) == {1: 15653, 2: 172, 3: 1}
    assert (np.bincount(bupt.group) == 1000).all() and bupt.groups == GROUPS
    of = Counter(p.split('/')[0] for p in bupt.people)
    assert of == dict(African=2278, Asian=2437, Caucasian=2490, Indian=2295)
    non = ~bupt.mated
    times = np.bincount(bupt.person[:, non].ravel(), minlength=9500)
    once = np.bincount(bupt.person[0, ~non], minlength=9500)
    assert (times.max() <= 5, (times > 0).sum(), ((times > 0) & (once > 0)).sum(), once.max()) == (True, 6891, 1391, 1)
    assert not (lists['agedb'].repeated & lists['agedb'].mated).any()
    assert not (lists['rof'].repeated & ~lists['rof'].mated).any()
    assert set(Counter(lists['cfp-fp'].person[0, lists['cfp-fp'].mated]).values()) == {7}

def test_stand_ins_look_like_the_organisers_files(full):
    for d, known in DATABASES.items():
        data = (full/'sub-tasks_2.1_2.2_2.3'/f'{d}_comparison.txt').read_bytes()
        assert data.endswith(b'\r\n') and data.count(b'\n') == data.count(b'\r\n') == known.counts['lines']
        assert (b'\\' in data) == (d == 'rof') and (b'/' in data) == (d in ('bupt', 'cfp-fp'))
    same = [full/s/'bupt_comparison.txt' for s in ('sub-tasks_1.1_1.2_1.3', 'sub-tasks_2.1_2.2_2.3')]
    assert same[0].read_bytes() == same[1].read_bytes()

@pytest.mark.parametrize('database', DATABASES)
@pytest.mark.parametrize('scale', [3, 7, 20])
def test_stand_ins_of_any_size(database, scale):
    pairs = stand_in(database, np.random.default_rng(scale), scale)
    counts, half = DATABASES[database].counts, sum(len({read_path(database, s)[0] for s in p}) == 1 for p in pairs)
    assert abs(len(pairs) - counts['lines']/scale) < 12 and abs(half*2 - len(pairs)) < 4
    assert pairs == stand_in(database, np.random.default_rng(scale), scale)

def test_stand_in_refuses():
    for bad in (('lfw', 1), ('bupt', 0), ('bupt', 21)):
        with pytest.raises(ValueError, match='scale 1 to 20'): stand_in(bad[0], None, bad[1])

@pytest.mark.parametrize('database', DATABASES)
def test_list_is_known_by_hash_whatever_its_line_ends(database, tmp_path, monkeypatch):
    known = DATABASES[database]
    file = tmp_path/f'{database}_comparison.txt'
    write_list(file, stand_in(database, np.random.default_rng(0), 10), known.mark)
    data = file.read_bytes()
    monkeypatch.setitem(DATABASES, database, replace(known, sha256=hashlib.sha256(data).hexdigest()))
    x = read_list(file)
    assert x.database == database and x.origin == "the organisers' file"
    other = data.replace(b'\r\n', b'\n').replace(b'\\', b'/').rstrip(b'\n')
    for changed in (other, other + b'\n'):
        file.write_bytes(changed)
        y = read_list(file)
        assert y.origin == "the organisers' lines"
        assert (y.left, y.right) == (x.left, x.right) and (y.mated == x.mated).all() and (y.kind == x.kind).all()
    file.write_bytes(b'\n'.join(sorted(other.split(b'\n'))))
    assert read_list(file).origin == "not the organisers' counts"

def test_list_keeps_order_and_repeats(tmp_path):
    rows = [('1_A_1_30.jpg', '1_A_2_25.jpg'), ('2_B_C_3_A_60.jpg', '1_A_1_30.jpg'), ('1_A_1_30.jpg', '1_A_2_25.jpg')]
    write_list(tmp_path/'agedb_comparison.txt', rows)
    x = read_list(tmp_path/'agedb_comparison.txt')
    assert [*zip(x.left, x.right)] == rows and x.kind.tolist() == ['5', '30', '5']
    assert x.mated.tolist() == [True, False, True] and x.repeated.tolist() == [False, False, True]

@pytest.mark.parametrize('data, why', [
    (b'', 'is empty'), (b'a/b/c.jpg\r\n', 'name the database'), (b'\xff\xfe', 'line 1: is not UTF-8'),
    (b'468/frontal/04.jpg;468/profile/04.jpg\n\n', 'line 2: two paths'),
    (b'468/frontal/04.jpg;468/profile/04.jpg\n468/frontal/04.jpg;;\n', 'line 2: two paths'),
    (b'468/frontal/04.jpg;468/profile/04.jpg\n468/sideways/04.jpg;1/profile/1.jpg\n', 'line 2: .*sideways.* is no path of cfp-fp'),
    (b'468/frontal/04.jpg;468/profile/\x0004.jpg\n', 'line 1: holds a NUL')])
def test_malformed_list_is_refused(tmp_path, data, why):
    (tmp_path/'list.txt').write_bytes(data)
    with pytest.raises(ValueError, match=f'list.txt.*{why}'): read_list(tmp_path/'list.txt')

def test_genders(tmp_path, small):
    x = small['1.1']['bupt']
    four = replace(x, group=None).grouped(x.trait, tuple(dict.fromkeys(g.split()[0] for g in GROUPS)))
    assert (four.group == x.group//2).all()
    (tmp_path/'g.csv').write_bytes(b'm.1,Male\r\nm.2 ; F\r\n')
    assert read_genders(tmp_path/'g.csv') == {'m.1': 'male', 'm.2': 'female'}
    for text, why in {'m.1,female\nm.1,m\n': 'line 2: m.1 is male here', 'm.1\n': 'line 1: identity,gender',
                      'm.1,2\n': 'line 1'}.items():
        (tmp_path/'g.csv').write_text(text)
        with pytest.raises(ValueError, match=why): read_genders(tmp_path/'g.csv')
    with pytest.raises(ValueError, match=r'948 of 948 identities'): x.with_genders({})

def test_missing_images_are_named(tmp_path, small):
    x = small['2.1']['cfp-fp']
    for name in {*x.left, *x.right}:
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/name).with_suffix('.png').touch()
    files, number = x.image_files(tmp_path)
    assert [files[k].with_suffix('.jpg').relative_to(tmp_path).as_posix() for k in number[1]] == x.right
    files[0].unlink()
    with pytest.raises(FileNotFoundError, match=f'1 of {len(files)} pictures of cfp-fp are missing'): x.image_files(tmp_path)

# Submissions

@pytest.mark.parametrize('name', ['team.zip', 'team'])
def test_submission_round_trip(tmp_path, small, answers, name):
    rng, odd = np.random.default_rng(0), dict(answers)
    odd['1.1', 'bupt', 'proposed'] = Answers(rng.normal(size=len(small['1.1']['bupt']))*10.**rng.integers(-9, 9),
                                             rng.random(len(small['1.1']['bupt'])) < .5)
    write_submission(tmp_path/name, odd)
    back = read_submission(tmp_path/name, small)
    assert back.name == 'team' and back.answers.keys() == odd.keys() and back.sub_tasks == ['1.1', '2.1']
    for k, a in odd.items():
        assert (back.answers[k].score == a.score).all() and (back.answers[k].decision == a.decision).all()
    assert check_submission(tmp_path/name, small) == [] and sub_tasks_of(tmp_path/name) == ['1.1', '2.1']
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]

def test_submission_files_are_as_the_organisers(tmp_path, answers):
    write_submission(tmp_path/'a.zip', answers), write_submission(tmp_path/'b.zip', answers)
    assert (tmp_path/'a.zip').read_bytes() == (tmp_path/'b.zip').read_bytes()
    with zipfile.ZipFile(tmp_path/'a.zip') as z:
        assert len(z.namelist()) == 10 and '2.1/cfp-fp/baseline.txt' in z.namelist()
        lines = z.read('2.1/cfp-fp/baseline.txt').split(b'\r\n')
    assert lines.pop() == b'' and len(lines) == len(answers['2.1', 'cfp-fp', 'baseline'])
    assert all(float(s) is not None and d in (b'0', b'1') for s, d in (x.split(b',') for x in lines))

def test_submission_with_a_folder_around_it_and_what_finder_adds(tmp_path, small, answers):
    write_submission(tmp_path/'mine'/'inner', answers)
    (tmp_path/'mine'/'.DS_Store').write_bytes(b'\0')
    (tmp_path/'mine'/'__MACOSX').mkdir()
    (tmp_path/'mine'/'__MACOSX'/'x').write_bytes(b'\0')
    assert len(read_submission(tmp_path/'mine', small).answers) == 10

@pytest.mark.parametrize('line, why', [
    (b'nan,1', "score 'nan': a finite number"), (b'inf,0', 'finite'), (b'-Infinity,0', 'finite'), (b'1e400,0', 'finite'),
    (b'0x1p3,0', 'finite'), (b'1_000,0', 'finite'), (b'\xd9\xa1,1', 'finite'), (b'0.5', 'score,decision is wanted'), (b'', 'score,decision'),
    (b'0.5,1,0', 'score,decision'), (b'0.5;1', 'score,decision'), (b'0.5,2', "decision '2': 0 or 1"), (b'0.5,-1', '0 or 1'),
    (b'0.5,1.0', '0 or 1'), (b'0.5,True', '0 or 1'), (b'0,5,1', 'score,decision'), (b'\xef\xbb\xbf0.5,1', 'finite'),
    (b'0.5,\x001', 'NUL'), (b'\xff,1', 'UTF-8')])
def test_malformed_line_is_refused_with_file_and_line(tmp_path, small, answers, line, why):
    write_submission(tmp_path/'s', answers)
    file = tmp_path/'s'/'2.1'/'rof'/'baseline.txt'
    lines = file.read_bytes().split(b'\r\n')
    file.write_bytes(b'\r\n'.join([*lines[:6], line, *lines[7:]]))
    problems = check_submission(tmp_path/'s', small)
    assert len(problems) == 1 and problems[0].startswith('2.1/rof/baseline.txt, line 7: ') and why in problems[0]
    with pytest.raises(ValueError, match='2.1/rof/baseline.txt, line 7'): read_submission(tmp_path/'s', small)

@pytest.mark.parametrize('change, said', [
    (lambda s: s + '0.1,0\r\n', '361 lines for the 360'), (lambda s: s.split('\n', 1)[1], '359 lines for the 360'),
    (lambda s: '', 'is empty'), (lambda s: s + '\r\n', 'line 361: score,decision')])
def test_too_few_and_too_many_lines_are_refused(tmp_path, small, answers, change, said):
    write_submission(tmp_path/'s', answers)
    file = tmp_path/'s'/'2.1'/'rof'/'proposed.txt'
    file.write_bytes(change(file.read_bytes().decode()).encode())
    assert any(p.startswith('2.1/rof/proposed.txt') and said in p for p in check_submission(tmp_path/'s', small))

def test_lengths_are_compared_without_lists_too(tmp_path, answers):
    short = dict(answers)
    short['2.1', 'rof', 'proposed'] = Answers([.1, .2], [0, 1])
    write_submission(tmp_path/'s.zip', short)
    assert any('another file of rof has' in p for p in check_submission(tmp_path/'s.zip'))

def test_missing_and_unknown_files_are_named(tmp_path, small, answers):
    write_submission(tmp_path/'s', answers)
    (tmp_path/'s'/'2.1'/'agedb'/'baseline.txt').unlink()
    (tmp_path/'s'/'2.1'/'rof'/'proposed.txt').rename(tmp_path/'s'/'2.1'/'rof'/'proposed.csv')
    (tmp_path/'s'/'1.1'/'agedb').mkdir()
    (tmp_path/'s'/'1.1'/'agedb'/'proposed.txt').write_text('0,1\n')
    assert [p.split(':')[0] for p in sorted(check_submission(tmp_path/'s', small))] == [
        '1.1/agedb/proposed.txt', '2.1/agedb/baseline.txt', '2.1/rof/proposed.csv', '2.1/rof/proposed.txt']
    (tmp_path/'empty').mkdir()
    assert 'no answers in it' in check_submission(tmp_path/'empty')[0]
    with pytest.raises(FileNotFoundError, match='no such submission'): read_submission(tmp_path/'none')

def zipped(file, entries, **kw):
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, data in entries: z.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)

@pytest.mark.parametrize('name', ['../x.txt', '/etc/x.txt', '1.1/../../x', 'C:/x.txt', '1.1\\..\\..\\x.txt'])
def test_zip_whose_paths_escape_is_refused(tmp_path, name):
    zipped(tmp_path/'z.zip', [('1.1/bupt/proposed.txt', b'1,1\n'), (name, b'1,1\n')])
    assert 'leads out of the archive' in check_submission(tmp_path/'z.zip')[0]
    with pytest.raises(ValueError, match='leads out of the archive'): read_submission(tmp_path/'z.zip')

def test_zip_bombs_are_refused(tmp_path):
    zipped(tmp_path/'big.zip', [('1.1/bupt/proposed.txt', bytes(2**24 + 1))])
    assert (tmp_path/'big.zip').stat().st_size < 100_000
    assert 'at most 16,777,216 are read' in check_submission(tmp_path/'big.zip')[0]
    zipped(tmp_path/'many.zip', [(f'1.1/bupt/{k}.txt', b'') for k in range(501)])
    assert '501 entries' in check_submission(tmp_path/'many.zip')[0]
    zipped(tmp_path/'all.zip', [(f'{k}.txt', bytes(2**24 - 1)) for k in range(9)])
    assert 'bytes in all' in check_submission(tmp_path/'all.zip')[0]

def test_zip_that_lies_about_a_size_is_refused(tmp_path):
    zipped(tmp_path/'lie.zip', [('1.1/bupt/proposed.txt', b'0.5,1\r\n'*2_000_000)])
    data = bytearray((tmp_path/'lie.zip').read_bytes())
    central = data.rindex(b'PK\1\2')
    struct.pack_into('<I', data, central + 24, 14), struct.pack_into('<I', data, 22, 14)
    (tmp_path/'lie.zip').write_bytes(data)
    assert 'cannot be read' in check_submission(tmp_path/'lie.zip')[0]

def test_damaged_and_double_zips_are_refused(tmp_path, answers):
    (tmp_path/'no.zip').write_bytes(b'PK but no zip')
    assert 'not a whole zip' in check_submission(tmp_path/'no.zip')[0]
    write_submission(tmp_path/'s.zip', answers)
    data = bytearray((tmp_path/'s.zip').read_bytes())
    data[2000:2010] = bytes(10)
    (tmp_path/'s.zip').write_bytes(data)
    assert 'cannot be read' in '\n'.join(check_submission(tmp_path/'s.zip'))
    with pytest.warns(UserWarning): zipped(tmp_path/'two.zip', [('1.1/bupt/proposed.txt', b'1,1\n')]*2)
    assert 'stands there twice' in check_submission(tmp_path/'two.zip')[0]

def test_folder_with_links_that_lead_out_is_refused(tmp_path):
    (tmp_path/'secret.txt').write_text('1,1\n')
    (tmp_path/'s'/'1.1'/'bupt').mkdir(parents=True)
    os.symlink(tmp_path/'secret.txt', tmp_path/'s'/'1.1'/'bupt'/'proposed.txt')
    assert 'leads out of the folder' in check_submission(tmp_path/'s')[0]
    (tmp_path/'s'/'1.1'/'bupt'/'proposed.txt').unlink()
    os.mkfifo(tmp_path/'s'/'1.1'/'bupt'/'proposed.txt')
    assert 'is no file' in check_submission(tmp_path/'s')[0]

def test_nothing_is_left_of_a_submission_that_was_not_written(tmp_path, answers, monkeypatch):
    monkeypatch.setattr('pathlib.Path.rename', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt): write_submission(tmp_path/'s', answers)
    assert list(tmp_path.iterdir()) == []
    for bad, why in {('1.1', 'rof', 'proposed'): 'is no part', ('1.1', 'bupt', 'best'): 'is no part'}.items():
        with pytest.raises(ValueError, match=why): write_submission(tmp_path/'s', {bad: answers['2.1', 'rof', 'proposed']})

def test_what_only_looks_right_is_remarked(small, answers):
    x, a = small['2.1']['agedb'], answers['2.1', 'agedb', 'proposed']
    assert remarks(a, x) == []
    assert any('distances' in s for s in remarks(Answers(-a.score, a.decision), x))
    assert remarks(Answers(a.score, np.ones(len(a))), x) == ['every decision is 1']
    k = x.repeated.argmax()
    torn = a.score.copy(); torn[k] += 1e-6
    assert remarks(Answers(torn, a.decision), x)[-1] == '1 repeated lines have another score than before'

@pytest.mark.parametrize('seed', range(20))
def test_decisions_out_of_order_by_trying_every_threshold(seed):
    rng = np.random.default_rng(seed)
    a = Answers(rng.integers(6, size=12)/3, rng.random(12) < .5)
    tried = [((a.score >= t) != a.decision).sum() for t in np.r_[a.score, np.inf]]
    assert out_of_order(a) == min(tried)

def test_thresholds_come_from_training_only(small):
    rng = np.random.default_rng(0)
    mated = rng.random(400) < .5
    left = np.arange(400)
    c = Comparisons(rng.normal(size=400) + 3*mated, mated, left, np.where(mated, left, left + 1000))
    for policy in ('accuracy', 'errors', 'fmr'):
        t = fit_threshold(c, policy)
        assert t.origin == 'training' and (t.answers(c.score).decision == (c.score >= t.value)).all()
    best = max(((c.score >= t) == mated).mean() for t in c.score)
    assert ((c.score >= fit_threshold(c, 'accuracy').value) == mated).mean() == best
    assert (c.score[~mated] >= fit_threshold(c, 'fmr', .02).value).mean() <= .02
    tested = small['1.1']['bupt'].comparisons(stand_in_scores(small['1.1']['bupt'], rng))
    for part in (tested, tested[:50], replace(tested, fold=None)):
        with pytest.raises(ValueError, match='training data is wanted'): fit_threshold(part)
    with pytest.raises(ValueError, match='is from oracle'): fit_threshold(tested, oracle=True).answers([1.])
    with pytest.raises(ValueError, match='policy'): fit_threshold(c, 'best')

# Scores

def slow_fnmr(s, m, fmr=.01):
    "By trying every observed score and infinity as threshold"
    allowed = [t for t in np.r_[s, np.inf] if (s[~m] >= t).mean() <= fmr]
    return 100*(s[m] < min(allowed)).mean()

@pytest.mark.parametrize('ddof', [0, 1])
@pytest.mark.parametrize('way', ['pooled', 'groups'])
def test_task_1_by_hand(small, answers, ddof, way):
    x, a = small['1.1']['bupt'], answers['1.1', 'bupt', 'proposed']
    found = score_systems({'p': {'bupt': a}}, small['1.1'], '1.1', Options(ddof, way, rounds=2)).value['p']
    by = [100*(a.decision == x.mated)[x.group == g].mean() for g in range(8)]
    assert found['units'] == pytest.approx(by) and found['avg'] == pytest.approx(np.mean(by))
    assert found['sd'] == pytest.approx(np.std(by, ddof=ddof)) and found['to'] == pytest.approx(np.mean(by) - np.std(by, ddof=ddof))
    assert found['auc'] == pytest.approx(100*roc_auc_score(x.mated, a.score))
    each = [slow_fnmr(a.score[x.group == g], x.mated[x.group == g]) for g in range(8)]
    assert found['fnmr'] == pytest.approx(slow_fnmr(a.score, x.mated) if way == 'pooled' else np.mean(each))

def test_task_2_by_hand(small, answers):
    lists, roles = small['2.1'], {r: {d: answers['2.1', d, r] for d in small['2.1']} for r in ('baseline', 'proposed')}
    for way in ('avg', 'units'):
        scored = score_systems(roles, lists, '2.1', Options(gap=way, rounds=5))
        by = {r: np.array([100*(a[d].decision == lists[d].mated).mean() for d in lists]) for r, a in roles.items()}
        p = scored.value['proposed']
        assert p['units'] == pytest.approx(by['proposed']) and p['avg'] == pytest.approx(by['proposed'].mean())
        assert p['auc'] == pytest.approx(np.mean([100*roc_auc_score(lists[d].mated, roles['proposed'][d].score) for d in lists]))
        assert p['fnmr'] == pytest.approx(np.mean([slow_fnmr(roles['proposed'][d].score, lists[d].mated) for d in lists]))
        real, syn = by['baseline'], by['proposed']
        expected = {'avg': (real.mean() - syn.mean())/syn.mean(), 'units': ((real - syn)/syn).mean()}[way]
        assert scored.gap()['value'] == pytest.approx(100*expected)

def test_accuracies_are_of_decisions_and_fnmr_of_scores(small, answers):
    x, a = small['1.1']['bupt'], answers['1.1', 'bupt', 'proposed']
    def value(a): return score_systems({'p': {'bupt': a}}, small['1.1'], '1.1', Options(rounds=2)).value['p']
    whole, flipped, warped = value(a), value(Answers(a.score, ~a.decision)), value(Answers(np.exp(9*a.score), a.decision))
    assert flipped['avg'] == pytest.approx(100 - whole['avg']) and flipped['fnmr'] == whole['fnmr']
    for k in ('to', 'avg', 'sd', 'fnmr', 'auc'): assert warped[k] == pytest.approx(whole[k])

def test_intervals_are_those_of_people_drawn_by_hand(small, answers):
    "The same people drawn in a loop, their comparisons copied as often as drawn, and counted"
    d, x, a = 'rof', small['2.1']['rof'], answers['2.1', 'rof', 'proposed']
    task = sub_task('2.1')
    draws = score_systems({'p': {k: answers['2.1', k, 'proposed'] for k in task.databases}}, small['2.1'], task,
                          Options(rounds=400)).draws['p']['units'][:, task.databases.index(d)]
    rng, slow, people = np.random.default_rng(9), [], len(x.people)
    for _ in range(400):
        times = np.bincount(rng.integers(people, size=people), minlength=people)
        w = np.where(x.mated, times[x.person[0]], times[x.person[0]]*times[x.person[1]])
        slow.append(100*np.repeat(a.decision == x.mated, w).mean())
    assert draws.mean() == pytest.approx(np.mean(slow), abs=.5)
    assert draws.std() == pytest.approx(np.std(slow), rel=.2)
    rows = [100*(a.decision == x.mated)[rng.integers(len(x), size=len(x))].mean() for _ in range(400)]
    assert draws.std() > 1.1*np.std(rows)                      # rows drawn again are too sure

def test_differences_are_paired(small, answers):
    roles = {r: {'bupt': answers['1.1', 'bupt', r]} for r in ('baseline', 'proposed')}
    close = Answers(roles['proposed']['bupt'].score, roles['proposed']['bupt'].decision.copy())
    close.decision[:3] ^= True
    scored = score_systems({'a': roles['proposed'], 'b': dict(bupt=close)}, small['1.1'], '1.1', Options(rounds=200))
    width = lambda v: v['high'] - v['low']
    single = report(scored, {'a': roles['proposed'], 'b': dict(bupt=close)}, small['1.1'])['systems']['a']['avg']
    assert width(scored.difference('a', 'b')['avg']) < .5*width(single)
    assert scored.difference('a', 'a')['to'] == dict(value=0, low=0, high=0)

def test_draws_of_a_list_do_not_depend_on_what_else_is_scored(small, answers):
    one = {'p': {'bupt': answers['1.1', 'bupt', 'proposed']}}
    two = one | {'b': {'bupt': answers['1.1', 'bupt', 'baseline']}}
    a, b = (score_systems(s, small['1.1'], '1.1', Options(rounds=20)).draws['p']['to'] for s in (one, two))
    assert (a == b).all()
    assert (a != score_systems(one, small['1.1'], '1.1', Options(rounds=20, seed=1)).draws['p']['to']).any()

@pytest.mark.parametrize('seed', range(10))
def test_oracle_by_trying_every_threshold(seed):
    rng = np.random.default_rng(seed)
    parts = [(np.round(rng.normal(size=n) + m, 1), m) for n in (20, 50) for m in [rng.random(n) < .5]]
    at, best = oracle(parts)
    score = np.concatenate([s for s, _ in parts])
    tried = [100*np.mean([((s >= t) == m).mean() for s, m in parts]) for t in np.r_[score, np.inf]]
    assert best == pytest.approx(max(tried)) and at.origin == 'oracle'
    assert 100*np.mean([((s >= at.value) == m).mean() for s, m in parts]) == pytest.approx(best)

def test_chance_makes_the_deviation_of_equal_groups():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(5000, 8))*np.linspace(.5, 1.5, 8)
    for ddof in (0, 1): assert sd_by_chance(draws, ddof)**2 == pytest.approx((draws.std(1, ddof=ddof)**2).mean(), rel=.05)

def test_result_says_what_it_was_made_with(small, answers, tmp_path):
    result = score_submission(Submission('t', answers), small, Options(1, 'groups', 'units', rounds=20, seed=7))
    write_tables(tmp_path, result)
    kept = read_json(tmp_path/'scores.json')
    assert kept['options'] == dict(ddof=1, fnmr='groups', gap='units', fmr=.01, rounds=20, confidence=.95, seed=7)
    one = kept['sub_tasks']['1.1']
    assert one['ranked_by'] == 'to' and one['real'] == one['systems']['baseline']['avg']['value']
    assert set(one['systems']['proposed']['differentials']) == {'fdr', 'ir', 'garbe'}
    assert one['systems']['proposed']['oracle']['avg'] >= one['systems']['proposed']['avg']['value'] - 1e-9
    assert len(one['systems']['proposed']['groups']) == 8 and len(one['lists']['bupt']['sha256']) == 64
    said = '\n'.join(one['notes'])
    assert 'no figure here is comparable' in said and '30 are wanted' in said

def test_rule_of_three_and_four_groups_are_said(small, answers):
    x = small['1.1']['bupt']
    four = x.grouped(x.trait, ('African', 'Asian', 'Caucasian', 'Indian'))
    right = Answers(x.mated.astype(float), x.mated)
    result = score_submission(Submission('t', {('1.1', 'bupt', 'proposed'): right}), {'1.1': {'bupt': four}}, Options(rounds=20))
    said = '\n'.join(result['sub_tasks']['1.1']['notes'])
    assert '4 groups, for genders are not given' in said and 'Asian: no error in 100 comparisons, so FMR is below 3 %' in said
    assert {'TO(4)', 'AVG(4)', 'SD(4)'} <= set(table(result)[0]) and 'TO' not in table(result)[0]
    assert 'GAP' not in to_markdown(result)

def test_tables_hold_the_same_numbers(small, answers):
    result = score_submission(Submission('t', answers), small, Options(rounds=20))
    rows = list(csv.DictReader(io.StringIO(to_csv(result))))
    assert [(r['sub_task'], r['system']) for r in rows] == [(t, s) for t in ('1.1', '2.1') for s in ('baseline', 'proposed')]
    value = result['sub_tasks']['1.1']['systems']['proposed']['to']
    assert float(rows[1]['TO']) == pytest.approx(value['value'], abs=1e-4) and float(rows[1]['TO low']) <= float(rows[1]['TO high'])
    cell = f"{value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"
    assert cell in to_markdown(result) and cell in to_latex(result)
    assert rows[3]['REAL'] == rows[2]['AVG'] and rows[0]['GAP'] == ''

def test_ranking_is_by_the_tasks_number(small):
    skills = dict(x=3., y=4., z=3.5)
    found = stand_in_answers({'1.1': small['1.1']}, np.random.default_rng(0), skills)
    teams = {s: {'bupt': found['1.1', 'bupt', s]} for s in skills}
    ranking = rank(teams, small['1.1'], '1.1', Options(rounds=100))
    assert [r['team'] for r in ranking] == ['y', 'z', 'x'] == sorted(skills, key=skills.get, reverse=True)
    assert all(1 <= r['first'] <= k + 1 <= r['last'] <= 3 for k, r in enumerate(ranking)) and np.isnan(ranking[-1]['behind_the_next'])

def test_scores_refuse_what_does_not_fit(small, answers):
    a = answers['1.1', 'bupt', 'proposed']
    for systems, lists, why in (({}, small['1.1'], 'systems: one or more'), ({'p': {}}, small['1.1'], 'p: has no answers to bupt'),
                                ({'p': {'bupt': a}}, {}, 'no list of bupt'),
                                ({'p': {'bupt': Answers(a.score[1:], a.decision[1:])}}, small['1.1'], 'answers for the')):
        with pytest.raises(ValueError, match=why): score_systems(systems, lists, '1.1')
    with pytest.raises(ValueError, match='no lists are given'): score_submission(Submission('t', answers), {'1.1': small['1.1']}, Options(rounds=2))
