"Mappers and attackers of notebook 31, on small templates of nobody"
import pytest, torch, torch.nn.functional as F
from faceprivacy.adaptive_inversion import (ATTACKERS, KAN, b_splines, count_sketch, fed,
                                            first_of_each, numbers, rebuild, train_mapper, turn)
from faceprivacy.slerp import GRADES
from faceprivacy.template_attacks import population
from faceprivacy.template_audit import leaks
from faceprivacy.template_schemes import SCHEMES

DIM = 32
def some(n, seed=0):
    "Templates that lie mostly in a few directions, as those of faces do"
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, DIM, generator=g)*torch.linspace(2, .1, DIM), dim=1)

@pytest.fixture(scope='module')
def rebuilt():
    known = some(120, 1)
    def of(name, seed=0): return rebuild(SCHEMES[name](DIM), some(6, 2), known, population(known),
                                         torch.Generator().manual_seed(seed), steps=10, solved=40)
    return of

@pytest.mark.parametrize('name', SCHEMES)
def test_every_scheme_meets_every_attacker(rebuilt, name):
    found = rebuilt(name)
    keyless = name in ('plain', 'ironmask')
    assert list(found) == [a for a in ATTACKERS if not (keyless and 'given' in a)]
    for z in found.values():
        assert z.shape == (6, DIM) and torch.allclose(z.norm(dim=1), torch.ones(6), atol=1e-4)

def test_the_same_generator_gives_the_same_attack(rebuilt):
    a, b, c = rebuilt('slerp_hardened'), rebuilt('slerp_hardened'), rebuilt('slerp_hardened', 1)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a['fed directly'], c['fed directly'])

def test_knowledge_helps(rebuilt):
    found = {k: F.cosine_similarity(x, some(6, 2)).mean() for k, x in rebuilt('slerp_hardened').items()}
    assert found['4 records'] > found['closed form'] > found['fed directly']

@pytest.mark.parametrize('name', SCHEMES)
def test_only_the_keyed_attacker_sees_secrets(name):
    s, z = SCHEMES[name](DIM), some(5)
    full = leaks(s, z, GRADES[-1], 1, torch.Generator().manual_seed(0))[0]
    bare = leaks(s, z, GRADES[0], 1, torch.Generator().manual_seed(0))[0]
    assert torch.equal(numbers(full), numbers(bare))
    wider = numbers(full, keyed=True).shape[1] > numbers(full).shape[1]
    assert wider == (name not in ('plain', 'ironmask'))

def test_feeding_cuts_and_fills():
    bits, plain = dict(bits=torch.tensor([[True, False, True]])), SCHEMES['plain'](4)
    assert torch.allclose(fed(plain, bits), torch.tensor([[1., -1, 1, 0]])/3**.5)
    assert fed(plain, dict(template=torch.ones(2, 9))).shape == (2, 4)

def test_splines_are_local_and_sum_to_one():
    knots = KAN(2, 3).knots
    x = torch.linspace(-.999, .999, 101)
    b = b_splines(x, knots)
    assert torch.allclose(b.sum(-1), torch.ones(101), atol=1e-5) and (b >= 0).all()
    assert ((b > 0).sum(-1) <= 4).all()

def test_a_sketch_keeps_inner_products_on_average():
    x = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    found = torch.stack([(lambda s: s[0] @ s[1])(count_sketch(x, 256, i)) for i in range(300)])
    assert abs(found.mean() - x[0] @ x[1]) < 4*found.std()/300**.5

def test_mappers_learn_one_key():
    z, s = some(700, 3), SCHEMES['slerp_hardened'](DIM)
    keys = s.keys(1, torch.Generator().manual_seed(0))[[0]*len(z)]
    x = s.protect(z, keys).rows.flatten(1)
    for kind in 'mlp', 'kan':
        m = train_mapper(x[100:], z[100:], 120, kind, batch=64)
        assert F.cosine_similarity(m(x[:100]), z[:100]).mean() > .4

def test_turning_all_the_way_is_noise():
    z, g = some(400), torch.Generator().manual_seed(0)
    assert torch.allclose(turn(z, 0., g), z, atol=1e-5)
    assert F.cosine_similarity(turn(z, 1., g), z).mean().abs() < .05

def test_first_of_each_person():
    assert first_of_each(torch.tensor([7, 7, 2, 7, 2, 5]), 2).tolist() == [0, 2]

@pytest.mark.parametrize('x, said', [(torch.ones(5, 3), '20 finite rows'),
                                     (torch.full((30, 3), float('nan')), '20 finite rows')])
def test_bad_rows_are_refused(x, said):
    with pytest.raises(ValueError, match=said): train_mapper(x, some(len(x)))
    with pytest.raises(ValueError, match="'mlp' or 'kan'"):
        train_mapper(torch.ones(30, 3), some(30), kind='cnn')
