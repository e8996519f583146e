"""Verification: agreement with scikit-learn and with the reference protocol, intervals, LFW itself."""
import time
from dataclasses import replace
import numpy as np, pytest, torch
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from scipy.stats import binom, norm
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import KFold
from faceprivacy.verification import (
    REFERENCE, Comparisons, auc, bootstrap, clopper_pearson, contiguous_folds, d_prime, d_sys, differentials, eer,
    fmr, fnmr, garbe, gini, ir, measure, notes, paired_difference, people_weights, roc, ser, summary, ten_fold,
    threshold_at_fmr, tmr_at_fmr, unlinkability)

def scores(seed, n=400, levels=None):
    "Random scores in [-1, 1], of `levels` distinct values if given, of which about half are mated"
    rng = np.random.default_rng(seed)
    mated = rng.random(n) < .5
    score = np.tanh(rng.normal(size=n)*.4 + .4*mated)
    return (score if levels is None else np.round(score*levels)/levels), mated

def comparisons(people=40, shots=8, seed=0, own=.5):
    "Gaussian scores of people who differ"
    rng = np.random.default_rng(seed)
    i, j = np.triu_indices(people, 1)
    left, right = np.r_[np.repeat(np.arange(people), shots), i], np.r_[np.repeat(np.arange(people), shots), j]
    order = rng.permutation(len(left))
    left, right = left[order], right[order]
    mated, (goat, lamb) = left == right, own*rng.normal(size=(2, people))
    score = np.where(mated, 2 + goat[left], (lamb[left] + lamb[right])/2**.5)
    return Comparisons(score + (1 - own**2)**.5*rng.normal(size=len(left)), mated, left, right)

# Agreement with others

@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('levels', [None, 40, 3])
def test_curve_is_scikit_learns(seed, levels):
    s, m = scores(seed, 60 + 50*seed, levels)
    theirs, curve = roc_curve(m, s, drop_intermediate=False), roc(s, m)
    for ours, other in zip((curve.fmr, curve.tmr, curve.threshold), theirs):
        np.testing.assert_allclose(ours, other, atol=1e-12)
    assert auc(curve) == pytest.approx(roc_auc_score(m, s), abs=1e-12)
    crossing = brentq(lambda x: 1 - x - interp1d(*theirs[:2])(x), 0, 1, xtol=1e-14)
    assert eer(curve) == pytest.approx(crossing, abs=1e-9)

@pytest.mark.parametrize('seed', range(10))
@pytest.mark.parametrize('levels', [None, 20])
@pytest.mark.parametrize('target', [0, .001, .05, .5, 1])
def test_threshold_is_the_smallest_that_keeps_the_target(seed, levels, target):
    s, m = scores(seed, levels=levels)
    t = threshold_at_fmr(roc(s, m), target)
    allowed = [x for x in np.r_[s, np.inf] if (s[~m] >= x).mean() <= target]
    assert t == min(allowed) and fmr(s, m, t) <= target
    assert tmr_at_fmr(roc(s, m), target) == pytest.approx(1 - fnmr(s, m, t), abs=1e-12) == (s[m] >= t).mean()

def reference_accuracy(score, mated):
    "`calculate_roc` of arcface_torch/eval/verification.py, on squared distances of unit vectors"
    distance, thresholds, found = 2 - 2*score, np.arange(0, 4, .01), []
    for train, test in KFold(10, shuffle=False).split(score):
        right = [np.mean(np.less(distance[train], t) == mated[train]) for t in thresholds]
        found.append(np.mean(np.less(distance[test], thresholds[np.argmax(right)]) == mated[test]))
    return found

@pytest.mark.parametrize('seed', range(5))
def test_ten_fold_is_the_reference(seed):
    s, m = scores(seed, 403)
    np.testing.assert_allclose(ten_fold(s, m, thresholds=REFERENCE).accuracy, reference_accuracy(s, m), atol=1e-12)

def every_midpoint(score, mated, fold):
    "Accuracy by trying every midpoint of training scores, slowly; the highest of the best wins"
    found = []
    for f in np.unique(fold):
        s, m = score[fold != f], mated[fold != f]
        levels = np.unique(s)[::-1]
        ts = np.r_[np.inf, (levels[1:] + levels[:-1])/2, -np.inf]
        found.append(ts[np.argmax([np.mean((s > t) == m) for t in ts])])
    accuracy = [np.mean((score[fold == f] > t) == mated[fold == f]) for f, t in zip(np.unique(fold), found)]
    return accuracy, found

@pytest.mark.parametrize('seed', range(10))
@pytest.mark.parametrize('levels', [None, 12, 1])
def test_ten_fold_tries_every_midpoint(seed, levels):
    s, m = scores(seed, 200, levels)
    fold = np.random.default_rng(seed).permutation(contiguous_folds(200, 2 + seed))
    for ours, slow in zip(ten_fold(s, m, fold), every_midpoint(s, m, fold)): np.testing.assert_allclose(ours, slow)

# Weights

@pytest.mark.parametrize('seed', range(10))
@pytest.mark.parametrize('levels', [None, 12])
def test_weights_are_copies_of_rows(seed, levels):
    s, m = scores(seed, 300, levels)
    rng, fold = np.random.default_rng(seed), contiguous_folds(300)
    w = rng.integers(0, 3, (4, 300))
    def statistics(s, m, fold, weight=None):
        curve, folds = roc(s, m, weight), ten_fold(s, m, fold, weight=weight)
        grid = ten_fold(s, m, fold, REFERENCE, weight)
        return [auc(curve), eer(curve), tmr_at_fmr(curve, .05), d_prime(s, m, weight), fmr(s, m, .1, weight),
                fnmr(s, m, .1, weight), *folds, *grid]
    together = statistics(s, m, fold, w)
    for i, times in enumerate(w):
        rows = np.repeat(np.arange(300), times)
        for ours, copied in zip(together, statistics(s[rows], m[rows], fold[rows])):
            np.testing.assert_allclose(ours[i], copied, atol=1e-9)

def test_people_carry_their_multiplicity():
    c = comparisons(12)
    w = np.concatenate(list(people_weights(c, np.random.default_rng(0), 2000, size=5000)))
    one = {p: w[:, c.mated & (c.left_person == p)] for p in range(12)}
    assert all((x == x[:, :1]).all() for x in one.values())
    times = np.stack([x[:, 0] for x in one.values()], 1)
    assert (times.sum(1) == 12).all() and times.mean(0) == pytest.approx(1, abs=.1)
    np.testing.assert_array_equal(w[:, ~c.mated], (times[:, c.left_person]*times[:, c.right_person])[:, ~c.mated])

def test_the_size_of_a_block_changes_nothing():
    c = comparisons(12)
    draws = [np.concatenate(list(people_weights(c, np.random.default_rng(0), 50, size=x))) for x in (1, 1000, 10**7)]
    assert (draws[0] == draws[1]).all() and (draws[0] == draws[2]).all()

def test_strata_keep_their_size():
    c = comparisons(12)
    c = replace(c, group=np.where(c.left_person % 3 == c.right_person % 3, c.left_person % 3, -1))
    w = np.concatenate(list(people_weights(c, np.random.default_rng(0), 50, stratify=True)))
    for g in range(3): assert (w[:, c.mated & (c.group == g)].sum(1) == 4*8).all()

# Intervals

def test_clopper_pearson_covers():
    k = np.arange(201)
    low, high = clopper_pearson(k, 200)
    for p in (.001, .01, .1, .5):
        assert binom.pmf(k, 200, p)[(low <= p) & (p <= high)].sum() >= .95
    assert (low[0], high[-1]) == (0, 1) and (low <= k/200).all() and (k/200 <= high).all()

def test_people_are_drawn_not_rows():
    truth, rng, held = norm.cdf(2/2**.5), np.random.default_rng(0), dict(people=0, rows=0)
    for seed in range(60):
        c = comparisons(30, 20, seed, own=.7)
        area = lambda w: dict(auc=auc(roc(c.score, c.mated, w)))
        x = bootstrap(area, c, rng, 150)['auc']
        held['people'] += x['low'] <= truth <= x['high']
        rows = area(rng.multinomial(len(c), np.full(len(c), 1/len(c)), 150))['auc']
        held['rows'] += np.quantile(rows, .025) <= truth <= np.quantile(rows, .975)
    assert held['people'] >= 50 and held['rows'] <= 42, held

def test_bootstrap_of_one_score_a_person_is_the_usual_one():
    "With one mated comparison a person, the interval of the mean is the textbook's"
    n, rng = 400, np.random.default_rng(0)
    c = Comparisons(np.r_[rng.normal(size=n), 0], np.arange(n + 1) < n, np.r_[np.arange(n), 0], np.r_[np.arange(n), 1])
    x = bootstrap(lambda w: dict(mean=w[..., :n] @ c.score[:n]/w[..., :n].sum(-1)), c, rng, 2000)['mean']
    assert (x['high'] - x['low'])/2 == pytest.approx(1.96*c.score[:n].std()/n**.5, rel=.08)

def test_summary_repeats_and_ignores_failures():
    c = comparisons()
    c = replace(c, score=c.score/5)
    lost = replace(c, score=np.where(np.arange(len(c)) % 50 == 0, np.nan, c.score), failures=True)
    a, b = (summary(x, np.random.default_rng(0), 50) for x in (lost, lost.acquired()))
    assert a == b and all(x['low'] <= x['value'] <= x['high'] for x in a.values())
    assert set(a) == {'accuracy', 'accuracy_reference', 'auc', 'eer', 'd_prime', 'tmr_at_fmr_0.01', 'tmr_at_fmr_0.001'}
    assert lost.counts()['mated_failures'] + lost.counts()['non_mated_failures'] == -(-len(c)//50)
    assert 'no score' in notes(lost)[0]

def test_a_difference_is_paired():
    c, rng = comparisons(), np.random.default_rng(0)
    worse = replace(c, score=c.score + .3*rng.normal(size=len(c)))
    x = paired_difference(worse, c, rng, 200)['d_prime']
    alone = summary(c, rng, 200)['d_prime']
    assert x['value'] == pytest.approx(measure(c)['d_prime'] - measure(worse)['d_prime'])
    assert 0 < x['low'] and x['high'] - x['low'] < (alone['high'] - alone['low'])/3

def test_permuted_labels_give_chance():
    s, m = scores(0, 6000)
    m = np.random.default_rng(0).permutation(m)
    for thresholds in (None, REFERENCE): assert abs(ten_fold(s, m, thresholds=thresholds).accuracy.mean() - .5) < .03
    assert abs(auc(roc(s, m)) - .5) < .03 and abs(eer(roc(s, m)) - .5) < .03 and abs(d_prime(s, m)) < .1

# Differentials and unlinkability

def test_differentials_at_their_limits():
    assert gini([0, 0, 0, 0]) == 0 and gini([.2]*4) == pytest.approx(0) and gini([0, 0, 0, .3]) == pytest.approx(1)
    x = np.random.default_rng(0).random((5, 4))
    assert garbe(x, x[::-1]).shape == (5,) and garbe(x, x)[2] == pytest.approx(gini(x[2]))
    assert ir([.1, .2], [.1, .2]) == pytest.approx(2) and np.isnan(ir([0, .1], [.1, .1]))
    assert ser([.9, .95]) == pytest.approx(2) and np.isnan(ser([1, .9]))

def official_d_sys(mated, non_mated, omega=1):
    "The authors' estimate, with trapezoids over the bins' centres"
    edges = np.linspace(min(mated.min(), non_mated.min()), max(mated.max(), non_mated.max()),
                        int(min(len(mated)/10, 100)) + 1)
    p, q = (np.histogram(x, edges, density=True)[0] for x in (mated, non_mated))
    ratio = np.divide(p, q, out=np.ones_like(p), where=q != 0)
    d = np.where(omega*ratio <= 1, 0, 2*omega*ratio/(1 + omega*ratio) - 1)
    d[q == 0] = 1
    return np.trapezoid(d*p, (edges[1:] + edges[:-1])/2)

@pytest.mark.parametrize('distance', [0, .5, 2, 4])
@pytest.mark.parametrize('omega', [1, .1])
def test_d_sys_is_the_authors(distance, omega):
    rng, m = np.random.default_rng(0), np.arange(8000) % 2 == 0
    s = rng.normal(size=8000) + distance*m
    assert d_sys(s, m, omega) == pytest.approx(official_d_sys(s[m], s[~m], omega), abs=2e-3)

def test_d_sys_knows_its_null():
    c = comparisons(40, 20, own=0)
    rng = np.random.default_rng(0)
    u = unlinkability(replace(c, score=rng.normal(size=len(c))), rng, 200)
    assert u['d_sys']['low'] == 0 and u['d_sys']['value'] < 1.5*u['null']['mean'] and .01 < u['null']['mean'] < .2
    u = unlinkability(replace(c, score=c.mated + .1*rng.random(len(c))), rng, 50)
    assert [u['d_sys'][k] for k in ('value', 'low', 'high')] == pytest.approx([1, 1, 1])

# Bad input

def given(**kw): return dict(score=[.1, .2], mated=[True, False], left_person=[0, 0], right_person=[0, 1]) | kw

@pytest.mark.parametrize('error, message, change', [
    (TypeError, 'mated: bools are wanted, not int64', dict(mated=[1, 0])),
    (TypeError, 'left_person: ints are wanted, not float64', dict(left_person=[0., 0.])),
    (TypeError, 'score: floats are wanted', dict(score=['a', 'b'])),
    (ValueError, 'score: one row of values is wanted, not shape', dict(score=[[.1, .2]])),
    (ValueError, 'one length is wanted', dict(fold=[1, 2, 3])),
    (ValueError, 'comparison 1 has nan', dict(score=[.1, np.nan])),
    (ValueError, 'comparison 0 has inf', dict(score=[np.inf, 0.], failures=True)),
    (ValueError, 'comparison 1 has False, but joins people 0 and 0', dict(right_person=[0, 0]))])
def test_comparisons_refuse(error, message, change):
    with pytest.raises(error, match=message): Comparisons(**given(**change))

@pytest.mark.parametrize('error, message, call', [
    (ValueError, 'both kinds', lambda: roc([.1, .2], [True, True])),
    (ValueError, 'score: holds NaN', lambda: roc([.1, np.nan], [True, False])),
    (ValueError, 'one length is wanted', lambda: roc([.1, .2], [True, False], np.ones((4, 3)))),
    (ValueError, 'fold: two or more', lambda: ten_fold([.1, .2], [True, False], [0, 0])),
    (ValueError, 'fold: 3 for 2', lambda: ten_fold([.1, .2], [True, False], [0, 1, 1])),
    (ValueError, 'thresholds: falling', lambda: ten_fold([.1, .2], [True, False], [0, 1], [.1, .2])),
    (ValueError, 'events: 0 to trials', lambda: clopper_pearson(-1, 5)),
    (ValueError, 'd_sys: 20 mated', lambda: d_sys([.1, .2], [True, False])),
    (ValueError, 'group: two or more', lambda: differentials(comparisons(), .5)),
    (TypeError, 'generator: numpy', lambda: summary(comparisons(), torch.Generator(), 5))])
def test_functions_refuse(error, message, call):
    with pytest.raises(error, match=message): call()

def test_a_group_without_mated_comparisons_is_refused():
    c = comparisons()
    c = replace(c, group=np.where(c.mated, 0, c.left_person % 2))
    with pytest.raises(ValueError, match='group 1: has no mated comparison'): differentials(c, 1.)

# Speed and LFW

def test_thousand_rounds_are_quick():
    c = comparisons(100, 10)
    begin = time.perf_counter()
    summary(replace(c, score=c.score/5), np.random.default_rng(0), 1000)
    assert time.perf_counter() - begin < 20

@pytest.fixture(scope='module')
def lfw(real_data):
    "Comparisons of LFW's view 2 with the mirrored face added, and without"
    from faceprivacy.datasets import open_faces
    from faceprivacy.recognition import Onnx, raw_embeddings
    faces = open_faces('lfw', real_data/'lfw', dtype=torch.uint8).test
    net = Onnx(real_data/'models'/'mobilefacenet_foamliu.onnx', threads=2)
    plain, mirrored = (raw_embeddings(net, faces, mirror) for mirror in (False, True))
    units = [torch.nn.functional.normalize(z) for z in (plain + mirrored, plain)]
    return [Comparisons.of(dict(vars(faces.pairs), z=z, person=faces.person)) for z in units]

def test_lfw(lfw):
    flipped, plain = lfw
    folds = ten_fold(flipped.score, flipped.mated, flipped.fold, REFERENCE).accuracy
    assert len(flipped) == 6000 and folds.mean() == pytest.approx(.9943, abs=5e-5)
    assert folds.std() == pytest.approx(.0033, abs=5e-5)
    assert measure(plain)['accuracy_reference'] == pytest.approx(.9935, abs=5e-5)
    curve = roc(flipped.score, flipped.mated)
    assert auc(curve) == pytest.approx(.99902, abs=5e-6) and eer(curve) == pytest.approx(.0067, abs=5e-5)
    assert tmr_at_fmr(curve, .001) == pytest.approx(.9867, abs=5e-5)

def test_lfw_with_labels_permuted(lfw):
    s, m = lfw[0].score, np.random.default_rng(0).permutation(lfw[0].mated)
    assert abs(ten_fold(s, m, lfw[0].fold, REFERENCE).accuracy.mean() - .5) < .03
