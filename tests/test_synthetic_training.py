"Synthetic training: sources, quality, tests, tables, recipes, and two processes against one"
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from faceprivacy.challenge_scores import Options
from faceprivacy.challenge_tests import (Test, draw_comparisons, draw_tests, gender_test, held_out_threshold,
                                         make_test, split_lfw, table_rows)
from faceprivacy.comparison_lists import read_list, write_list
from faceprivacy.core import path
from faceprivacy.datasets import open_lfw
from faceprivacy.frcsyn import gap_to_real
from faceprivacy.official_weights import save_official
from faceprivacy.people import sample_people, sample_shots
from faceprivacy.pipeline import check_parameters
from faceprivacy.portrait_motion import UNTRAINED, untrained
from faceprivacy.real_scale import Recipe, Worn, beside, open_set, published, read_recipe, run, run_tests, write_tiny
from faceprivacy.submissions import Threshold, fit_threshold
from faceprivacy.synthetic_training import Budget, at_threshold, learn, make_set, model_sources, ranking, shares
from faceprivacy.training_set_quality import centres, diversity, evenness, leakage, recall, stranger_radius, uniqueness
from faceprivacy.training_sources import (TrainingSet, animated, blend, farthest, occlude, open_animation,
                                          open_diffusion, real_camera, together, uneven)

Test.__test__ = False  # a class of the library, not one of tests


@pytest.fixture
def generator(): return torch.Generator().manual_seed(0)


def toy(people=6, shots=4, seed=0, real=False):
    "Images of one colour for each person, with a little noise"
    g = torch.Generator().manual_seed(seed)
    person = torch.arange(people).repeat_interleave(shots)
    colour = torch.rand(people, 3, 7, 7, generator=g)[person]
    x = F.interpolate(colour + .05*torch.rand(colour.shape, generator=g), 112).clamp(0, 1)
    return TrainingSet('toy', (255*x).byte(), person, person % 8, torch.full((len(person),), real))


class Colours(torch.nn.Module):
    "An embedding that knows the toy's people: the colours in a coarse grid"
    def __init__(self): super().__init__(); self.scale = torch.nn.Parameter(torch.ones(1))
    def forward(self, x): return self.scale*F.adaptive_avg_pool2d(x, 7).flatten(1)


# training sets

def test_held_out_people_are_nobody_that_is_trained_on():
    s = toy()
    s.images[:, 0, 0, 0] = s.person.byte()
    kept, held = s.hold_out(2, seed=3)
    a, b = ({*x.images[:, 0, 0, 0].tolist()} for x in (kept, held))
    assert not a & b and a | b == set(range(6))
    assert kept.person.unique().tolist() == [0, 1, 2, 3] and held.person.unique().tolist() == [0, 1]


@pytest.mark.parametrize('change, message', [
    (dict(images=torch.zeros(24, 3, 64, 64, dtype=torch.uint8)), r'images \(n, 3, 112, 112\) uint8 are wanted, not \(24, 3, 64, 64\)'),
    (dict(images=torch.zeros(0, 3, 112, 112, dtype=torch.uint8)), 'are wanted, not'),
    (dict(person=torch.arange(24)*2), 'numbered 0 to 46, but 24 are there'),
    (dict(group=torch.zeros(3)), r'group has shape \(3,\), 24 images want')])
def test_a_set_that_does_not_fit_together_is_refused(change, message):
    with pytest.raises(ValueError, match=message): TrainingSet(**vars(toy()) | change)


def test_a_mixture_keeps_people_apart():
    both = together('m', toy(seed=0, real=True), toy(4, seed=1))
    assert both.people == 10 and both.real.sum() == 24
    assert not set(both.person[both.real].tolist()) & set(both.person[~both.real].tolist())


def test_farthest_is_the_farthest(generator):
    z = F.normalize(torch.randn(40, 5, generator=generator))
    chosen = farthest(z, 12).tolist()
    assert len(set(chosen)) == 12
    for k in range(1, 12):
        near = (z @ z[chosen[:k]].T).amax(1)
        near[chosen[:k]] = 2
        assert near[chosen[k]] == near.min()


def test_occlusions_are_never_both_and_leave_the_rest(generator):
    x = torch.full((600, 3, 112, 112), 200, dtype=torch.uint8)
    y = occlude(x, generator, .3)
    hidden = (y == 0).all(1)
    eyes, mouth, brow = hidden[:, 51, 38], hidden[:, 100, 56], hidden[:, 10, 56]
    assert not (eyes & mouth).any() and not brow.any()
    assert .24 < eyes.float().mean() < .36 and .24 < mouth.float().mean() < .36
    assert ((y == 200) | (y == 0)).all() and (y[~(eyes | mouth)] == 200).all()


def test_a_blend_lies_between_its_parents(generator):
    a, b = sample_people(20, generator), sample_people(20, generator)
    made = blend(a, b, torch.full((20,), .6))
    assert torch.allclose(made.shape, .6*a.shape + .4*b.shape, atol=1e-5)
    assert torch.equal(made.group, a.group) and torch.equal(made.beard, a.beard)


def test_uneven_people_are_as_uneven_as_asked(generator):
    count = uneven(50, generator, .8, (0, 2)).group.bincount(minlength=8)
    assert count[[0, 2]].tolist() == [20, 20] and count.sum() == 50


def test_the_real_camera_is_none_that_a_source_has(generator):
    shot = sample_shots(500, generator, 'strong')
    real = real_camera(shot, generator)
    assert torch.equal(real.pose, shot.pose)
    assert real.get('blur').min() >= .6 and real.get('noise').min() >= .01 and real.get('jpeg').max() <= 80


def test_portraits_are_animated_by_networks_from_a_folder(tmp_path, generator):
    save_official(untrained(), tmp_path/'w', '.safetensors')
    (tmp_path/'w'/'sizes.json').write_text(json.dumps(UNTRAINED))
    net = open_animation(tmp_path/'w')
    made = animated(net, sample_people(2, generator), 3, generator, frames=4)
    assert made.images.shape == (6, 3, 112, 112) and made.person.tolist() == [0, 0, 0, 1, 1, 1]
    assert made.images[0].float().std() > 1
    (tmp_path/'w'/'sizes.json').write_text('{"size": 60}')
    with pytest.raises(ValueError, match='sizes.json: are no sizes'): open_animation(tmp_path/'w')


def test_what_is_not_there_is_left_out_and_said(tmp_path):
    assert open_animation(tmp_path) is None and open_animation(tmp_path/'none') is None
    assert open_diffusion(tmp_path) is None and open_diffusion('') is None
    found, lines = model_sources(4, 2, None, None, None)
    assert found == {} and len(lines) == 2 and 'left out' in lines[0] and 'animated' in lines[1]


# quality

def test_recall_is_that_of_nearest_neighbours(generator):
    real, made = torch.randn(50, 4, generator=generator), 1.5*torch.randn(30, 4, generator=generator)
    radius = NearestNeighbors(n_neighbors=4).fit(made).kneighbors(made)[0][:, 3]
    inside = (np.linalg.norm(real[:, None] - made[None], axis=-1) <= radius + 1e-6).any(1)
    assert recall(real, made, 3) == pytest.approx(inside.mean(), abs=1e-6)


def test_a_planted_copy_is_a_leak(generator):
    real = F.normalize(torch.randn(30, 64, generator=generator))
    made = F.normalize(torch.randn(10, 64, generator=generator))
    made[3] = F.normalize(real[7] + .05*torch.randn(64, generator=generator)/8, dim=0)
    found = leakage(made, real, .3)
    assert found['leaked'] == pytest.approx(.1) and found['worst'] > .95 > found['real_worst']


def test_uniqueness_counts_copies_once(generator):
    z = F.normalize(torch.randn(20, 64, generator=generator))
    assert uniqueness(torch.cat([z, z]), .1) == .5 and uniqueness(z, .1) == 1


def test_a_set_without_movement_has_no_diversity():
    real, still = toy(shots=6, seed=1), toy(shots=6)
    still.images = still.images[(still.person*6)]  # everybody's first picture again and again
    assert diversity(real, still) == 0 < diversity(real, toy(shots=6, seed=2)) <= 1


def test_centres_and_evenness():
    z = F.normalize(torch.tensor([[1., 0], [0, 1], [-1, 0]]))
    assert torch.allclose(centres(z, torch.tensor([0, 0, 1]))[0], torch.full((2,), 2**-.5))
    assert evenness(torch.arange(8), 8) == pytest.approx(1) and np.isnan(evenness(torch.full((4,), -1), 8))
    with pytest.raises(ValueError, match='too few for 0.01'): stranger_radius(z, torch.tensor([0, 1, 1]))


# tests of the challenge's kinds

@pytest.fixture(scope='module')
def drawn(): return draw_tests(2, 2, 3, seed=0)


@pytest.mark.parametrize('database', ['agedb', 'cfp-fp', 'rof'])
def test_names_are_of_the_organisers_form(drawn, database, tmp_path):
    x = drawn[database].list
    write_list(tmp_path/'list.txt', list(zip(x.left, x.right)))
    again = read_list(tmp_path/'list.txt', database)
    assert np.array_equal(again.mated, x.mated) and again.kinds() == x.kinds() and again.counts() == x.counts()


def test_half_of_each_test_is_mated_and_groups_are_even(drawn):
    for d, t in drawn.items(): assert t.list.mated.sum()*2 == len(t), d
    x = drawn['bupt'].list
    assert len(x.groups) == 8 and np.bincount(x.group).tolist() == [len(x)//8]*8


def test_age_gaps_are_the_lists(drawn):
    x = drawn['agedb'].list
    gap = np.abs(x.trait[0].astype(int) - x.trait[1].astype(int))
    assert set(gap[x.mated]) == {5, 10, 20, 30} and set(gap[~x.mated]) == {5}


def test_a_test_list_gives_no_threshold(drawn):
    x = drawn['agedb'].list
    with pytest.raises(ValueError, match='comparisons of a test list'):
        fit_threshold(x.comparisons(np.linspace(0, 1, len(x))))


def test_impossible_comparisons_are_refused():
    with pytest.raises(ValueError, match='no mated or no non-mated'):
        draw_comparisons(np.zeros(4), lambda i, j: i >= 0, 3, np.random.default_rng(0))


def test_the_threshold_parts_the_held_out_people():
    at, s = held_out_threshold(Colours(), toy()), toy()
    z = F.normalize(Colours()(s.images.float()/127.5 - 1)).detach()
    score, same = z @ z.T, s.person[:, None] == s.person
    off = ~torch.eye(len(z), dtype=torch.bool)
    assert score[~same].max() < at.value < score[same & off].min() and at.origin == 'training'


def test_the_table_is_what_the_decisions_say(generator):
    "Two groups with known errors: AVG, SD, TO, GAP by hand"
    n = 40
    person = np.repeat(np.arange(n), 2)
    group = (person % 2)
    mated = np.stack([np.arange(0, 2*n, 2), np.arange(1, 2*n, 2)], 1)
    apart = np.stack([np.arange(0, 2*n - 4, 2), np.arange(4, 2*n, 2)], 1)  # of one group
    pairs = np.concatenate([mated, apart])
    t = make_test('bupt', [f'x/m.{i}/0.jpg' for i in range(2*n)], [f'x/m.{p:03}' for p in person], ['x']*2*n,
                  torch.zeros(2*n, 3, 112, 112, dtype=torch.uint8), pairs, group, ('a', 'b'))
    score = np.where(t.list.mated, 1., 0.)
    worse = score.copy()
    worse[np.flatnonzero(t.list.mated & (t.list.group == 1))[:5]] = 0
    at = Threshold(.5, 'errors', 'training')
    systems = {'real': {'bupt': at.answers(score)}, 'made': {'bupt': at.answers(worse)}}
    rows, scored = table_rows(systems, {'bupt': t}, '1.1', Options(rounds=50))
    b = 100*(1 - 5/(t.list.group == 1).sum())
    avg, sd = (100 + b)/2, (100 - b)/2
    made = rows[1]
    assert made['AVG']['value'] == pytest.approx(avg) and made['SD']['value'] == pytest.approx(sd)
    assert made['TO']['value'] == pytest.approx(avg - sd)
    assert made['GAP']['value'] == pytest.approx(gap_to_real(100, avg)) and made['GAP']['low'] >= 0
    assert made['REAL'] == dict(value=100.) and rows[0]['GAP']['value'] == 0
    found = at_threshold(t.list, worse, .5)
    assert found['to'] == pytest.approx(avg - sd) and found['fnmr'].tolist() == pytest.approx([0, 100*5/20])
    places = ranking(scored, 'to')
    assert [r[0] for r in places] == ['real', 'made'] and ranking(scored, 'sd')[0][0] == 'real'


# LFW

@pytest.fixture
def lfw(tmp_path):
    "Twelve people with three images; two folds of two mated and two non-mated pairs"
    names = [f'P_{k:02}' for k in range(12)]
    rng = np.random.default_rng(0)
    for k, n in enumerate(names):
        for i in (1, 2, 3):
            (tmp_path/n).mkdir(exist_ok=True)
            Image.fromarray(rng.integers(256, size=(112, 112, 3), dtype=np.uint8)).save(tmp_path/n/f'{n}_{i:04}.jpg')
    lines = ['2\t2']
    for a in (0, 4): lines += [f'{names[a]}\t1\t2', f'{names[a + 1]}\t1\t2',
                               f'{names[a]}\t1\t{names[a + 2]}\t1', f'{names[a + 1]}\t3\t{names[a + 3]}\t1']
    (tmp_path/'pairs.txt').write_text('\n'.join(lines) + '\n')
    for sex, part in (('female', names[::2]), ('male', names[1::2])):
        (tmp_path/f'{sex}_names.txt').write_text(''.join(f'{n}_{i:04}.jpg\n' for n in part for i in (1, 2, 3)))
    return tmp_path


def test_lfw_trains_on_nobody_of_the_test_folds(lfw):
    train, test = split_lfw(open_lfw(lfw, dtype=torch.uint8), folds=1, least=2)
    assert train.people == 8 and len(test) == 12 and train.real.all()
    seen = {x.numpy().tobytes() for x in train.images}
    assert not seen & {x.numpy().tobytes() for x in test.images(range(len(test)))}
    t = gender_test(test, np.random.default_rng(0), 5)
    assert t.list.groups == ('female', 'male') and set(t.list.group) == {0, 1}


def test_lfw_says_what_it_lacks(lfw):
    faces = open_lfw(lfw, dtype=torch.uint8)
    with pytest.raises(ValueError, match='1 to 1 of 2 can be for testing, not 2'): split_lfw(faces, 2)
    with pytest.raises(ValueError, match='nobody has enough images'): split_lfw(faces, 1, least=9)
    (lfw/'male_names.txt').unlink()
    _, test = split_lfw(open_lfw(lfw, dtype=torch.uint8), 1, least=2)
    with pytest.raises(ValueError, match='female_names.txt and male_names.txt'): gender_test(test, np.random.default_rng(0))
    (lfw/'pairs.txt').unlink()
    with pytest.raises(ValueError, match='pairs.txt'): split_lfw(open_lfw(lfw, dtype=torch.uint8), 1)


# training

def test_a_training_learns_and_repeats():
    budget = Budget(passes=96, held=2, batch=8)
    once, again = learn(toy(8), budget), learn(toy(8), budget)
    assert once.history == again.history and len(once.history) == 4
    assert once.history[-1]['loss'] < once.history[0]['loss'] and once.threshold == again.threshold


def test_the_budget_does_not_grow_with_the_set():
    assert [Budget(6400, 16).epochs(n)*n for n in (320, 640, 1280)] == [6400]*3
    assert [p*n for p, n in shares(80, 10, 2)] == [800]*5 or max(abs(p*n - 800) for p, n in shares(80, 10, 2)) <= 40


def test_a_set_depends_on_its_name_and_seed_alone():
    def make(g): return toy(seed=int(torch.randint(1000, (), generator=g)))
    assert torch.equal(make_set('a', make, 1).images, make_set('a', make, 1).images)
    assert not torch.equal(make_set('a', make, 1).images, make_set('b', make, 1).images)
    assert not torch.equal(make_set('a', make, 1).images, make_set('a', make, 2).images)


# recipes for real scale

RECIPES = sorted(path('params/paper').glob('51d_*.yaml'))


@pytest.mark.parametrize('file', RECIPES, ids=lambda f: f.stem)
def test_a_recipe_is_whole_and_has_published_figures(file):
    recipe = read_recipe(file)
    assert (recipe.network, recipe.epochs) == ('ir50', 40)
    rows = published(recipe)
    assert len(rows) == 6 and all(50 < v < 100 and source for v, source in rows.values())
    check_parameters(path('nbs/51d_real_scale.ipynb'), yaml.safe_load(file.read_text()))


def test_the_recipes_of_the_issue_are_there():
    assert {f.stem for f in RECIPES} >= {f'51d_{n}' for n in ('dcface', 'idiff_face', 'arc2face', 'vec2face')}


@pytest.mark.parametrize('text, message', [
    ('training_set: a\nrecogniser: b\nimages_million: 1\nlearning_rate: 1', 'learning_rate: unknown; a recipe has'),
    ('training_set: a\nrecogniser: b', 'images_million'), ('- 1', 'a mapping is wanted'),
    ('training_set: a\nrecogniser: b\nimages_million: 1\nhead: Arc', "head: one of Softmax.* not 'Arc'"),
    ('training_set: a\nrecogniser: b\nimages_million: 1\nlr: .nan', 'lr: a number above 0'),
    ('training_set: a\nrecogniser: b\nimages_million: 1\nepochs: many', 'epochs: a number above 0')])
def test_a_wrong_recipe_is_refused(text, message, tmp_path):
    (tmp_path/'r.yaml').write_text(text)
    with pytest.raises(ValueError, match=message): read_recipe(tmp_path/'r.yaml')


@pytest.mark.parametrize('layout', ['dcface', 'insightface', 'folder'])
def test_every_format_gives_the_same_people_and_pictures(layout, tmp_path):
    s = toy(3, 4)
    kind, place = write_tiny(tmp_path/'set', layout, s.images.movedim(1, -1).numpy(), s.person)
    faces = open_set(Recipe('a', 'b', 1., kind=kind, place=place))
    assert torch.equal(faces.person, s.person)
    assert (faces.images(range(12)).float() - s.images.float()).abs().mean() < 4  # JPEG
    swapped = open_set(Recipe('a', 'b', 1., kind=kind, place=place, channels='BGR'))
    assert torch.equal(swapped.images([0]), faces.images([0]).flip(1))
    worn = Worn(faces, .4, seed=1)
    assert torch.equal(worn.images(range(12)), torch.stack([worn[i][0] for i in range(12)]))


def test_files_that_are_not_whole_are_refused(tmp_path):
    s = toy(3, 4)
    kind, place = write_tiny(tmp_path/'set', 'dcface', s.images.movedim(1, -1).numpy(), s.person)
    recipe = Recipe('a', 'b', 1., kind=kind, place=place)
    data = (tmp_path/'set/file.rec').read_bytes()
    (tmp_path/'set/file.rec').write_bytes(data[:len(data)//2])
    with pytest.raises(ValueError, match='it was cut'): open_set(recipe)
    (tmp_path/'set/file.rec').unlink()
    with pytest.raises(ValueError, match='0 .rec files'): open_set(recipe)
    with pytest.raises(FileNotFoundError, match='none of lfw.bin'): run_tests(None, tmp_path)
    kind, place = write_tiny(tmp_path/'one', 'folder', s.images[:4].movedim(1, -1).numpy(), s.person[:4])
    with pytest.raises(ValueError, match="all 4 images are of one person; is 'folder' right"):
        open_set(Recipe('a', 'b', 1., kind=kind, place=place))


def test_tolerances_decide():
    recipe = read_recipe(path('params/paper/51d_dcface.yaml'))
    rows = published(recipe)
    def within(shift): return [r['within'] for r in beside({k: dict(mean=rows[k][0] + shift) for k in rows if k != 'mean'}, recipe)]
    assert within(1.4) == [True]*6 and within(-2.) == [True]*5 + [False] and within(3.1) == [False]*6


def launched(recipe, out):
    "What a recipe leaves that `accelerate launch` ran on two processes of the CPU"
    env = os.environ | dict(ACCELERATE_USE_CPU='true', OMP_NUM_THREADS='1', TQDM_DISABLE='1', CUDA_VISIBLE_DEVICES='')
    command = [Path(sys.executable).parent/'accelerate', 'launch', '--multi_gpu', '--num_processes', 2, '--num_machines', 1,
               '--mixed_precision', 'no', '--dynamo_backend', 'no', '--main_process_port', 0,  # any port that is free
               '-m', 'faceprivacy.real_scale', recipe, '--workers', 0, '--out', out]
    done = subprocess.run([str(x) for x in command], cwd=path(), env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((out/'metrics.json').read_text())


@pytest.fixture
def no_checkpoints(tmp_path):
    "Nothing of a run in `tmp_path` stays in the folder of checkpoints"
    yield
    folder = path('.checkpoints', tmp_path.parts[-2])
    shutil.rmtree(folder/tmp_path.name, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()): folder.rmdir()


def test_two_processes_learn_as_one_with_the_whole_batch(tmp_path, no_checkpoints):
    s = toy(16, 8)
    kind, place = write_tiny(tmp_path/'set', 'folder', s.images.movedim(1, -1).numpy(), s.person)
    recipe = dict(training_set='DCFace', recogniser='IR-50 ArcFace', images_million=.5, kind=kind, place=place, network='small',
                  head='CosFace', scale=8., margin=.1, epochs=8, batch=64, optimizer='sgd', lr=.02)
    (tmp_path/'r.yaml').write_text(yaml.safe_dump(recipe))
    two, one = launched(tmp_path/'r.yaml', tmp_path/'two'), run(read_recipe(tmp_path/'r.yaml'), tmp_path/'one')
    assert (one['processes'], two['processes']) == (1, 2) and one['images'] == two['images'] == 128
    a, b = (np.array([h['loss'] for h in x['history']]) for x in (one, two))
    assert len(a) == len(b) == 8 and a[-1] < .5*a[0]
    assert np.abs(a - b).max() < .05*a[0], (a, b)  # batch norm and dropout see half a batch


def test_a_batch_that_does_not_divide_is_refused(tmp_path, monkeypatch):
    class Three: num_processes = 3
    monkeypatch.setattr('faceprivacy.real_scale.Accelerator', Three)
    with pytest.raises(ValueError, match='batch: 512 is no multiple of the 3 processes'): run(Recipe('a', 'b', 1.), tmp_path)
