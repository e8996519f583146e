"""What the attacks recover on random features, against known numbers; and bad input."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from faceprivacy.slerp import Slerp
from faceprivacy.template_schemes import SCHEMES, digests
from faceprivacy.template_attacks import (
    LINKERS, _equations, _times, attack_success, correlation, inversion_linker, invert, invert_bits,
    invert_groups, invert_network, invert_polynomials, invert_rotations, invert_slerp, learn_linker, link,
    linkers, local_map, nearest_codeword, nobody, polynomials, population, renewed, sign_channel, two_scalars)


@pytest.fixture
def generator(): return torch.Generator().manual_seed(0)

def unit(*shape, generator):
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.double), dim=-1)

def close(a, b): return F.cosine_similarity(a.double(), b.double(), dim=-1).mean().item()

def narrow(d, k, g):
    "A population that spreads in k of d directions"
    axes = torch.linalg.qr(torch.randn(d, k, generator=g, dtype=torch.double))[0]
    return lambda n: F.normalize(torch.randn(n, k, generator=g, dtype=torch.double) @ axes.T
                                 + .02*torch.randn(n, d, generator=g, dtype=torch.double), dim=1)

def leaks_of(scheme, z, r, generator, *weight, grade='full'):
    found = []
    for _ in range(r):
        keys = scheme.keys(len(z), generator)
        keys.direction = F.normalize(keys.direction.double(), dim=-1)
        found.append(scheme.leak(grade, scheme.protect(z, keys, *weight), keys))
    return found

# the prior

def test_population_learns_mean_and_covariance(generator):
    draw = narrow(20, 4, generator)
    prior = population(draw(4000))
    share = torch.linalg.eigvalsh(prior.covariance).flip(0)
    assert share[:4].sum()/share.sum() > .95 and prior.mean.norm() < .05
    few = population(draw(3))  # fewer people than dimensions: still a covariance
    assert torch.linalg.eigvalsh(few.covariance).min() > 0
    assert torch.allclose(prior.draw(5, 2, generator=generator).norm(dim=-1), torch.ones(5, 2).double())

# SlerpFace

@pytest.fixture(scope='module')
def grid():
    g = torch.Generator().manual_seed(1)
    return unit(30, 49, 16, generator=g), (.3*torch.randn(30, 49, generator=g, dtype=torch.double)).softmax(-1)

def test_one_official_record(grid, generator):
    t, w = grid
    [leak] = leaks_of(Slerp.official(), t, 1, generator, w)
    u = F.normalize(leak['rows'], dim=-1)
    quick = close(two_scalars(u, leak['key'], leak['alpha']).flatten(1), t.flatten(1))
    full = close(invert_groups(u[:, :, None], leak['key'][:, :, None], leak['alpha']).flatten(1), t.flatten(1))
    oracle = close((t*leak['mask']).flatten(1), t.flatten(1))
    assert abs(quick - .744) < .015 and abs(oracle - .788) < .01 and quick + .01 < full < oracle

def test_records_add_up(grid, generator):
    t, w = grid
    held = leaks_of(Slerp.official(), t, 4, generator, w)
    u = F.normalize(torch.stack([l['rows'] for l in held], 2), dim=-1)
    key = torch.stack([l['key'] for l in held], 2)
    found = [close(invert_groups(u[:, :, :r], key[:, :, :r], held[0]['alpha']), t) for r in (1, 2, 3, 4)]
    assert all(x > known - .005 for x, known in zip(found, (.706, .892, .978, .996))), found

@pytest.mark.parametrize('official', [True, False])
def test_exact_without_dropout(official, generator):
    scheme, z = (Slerp.official if official else Slerp)(dim=128, drop_rate=0.), unit(20, 128, generator=generator)
    assert (invert(scheme, leaks_of(scheme, z, 1, generator)) - z).abs().max() < 1e-10
    assert (invert(scheme, leaks_of(scheme, z, 1, generator), population(unit(99, 128, generator=generator)))
            - z).abs().max() < 1e-10

def test_weights_kept_apart_are_found_from_two_records_without_dropout(generator):
    scheme, z = Slerp(dim=128, drop_rate=0.), unit(20, 128, generator=generator)
    assert close(invert(scheme, leaks_of(scheme, z, 2, generator, grade='template+key')), z) > .9999

def test_hardened_gives_less_than_faithful(generator):
    z = unit(40, 128, generator=generator)
    hard, official = (close(invert(s, leaks_of(s, z, 2, generator)), z) for s in (Slerp(dim=128), Slerp.official(dim=128)))
    assert hard < official - .04

def test_learned_division_and_weights(generator):
    group_dropout = pytest.importorskip('faceprivacy.group_dropout')
    rows = torch.linalg.qr(torch.randn(128, 128, generator=generator, dtype=torch.double))[0]
    kw = dict(dim=128, division=rows, bias=tuple(torch.linspace(-.3, .3, 8).tolist()), energy=.7, survival=.5)
    scheme, z = group_dropout.LearnedSlerp(**kw), unit(30, 128, generator=generator)
    plain = close(invert(Slerp(dim=128), leaks_of(Slerp(dim=128), z, 3, generator)), z)
    assert close(invert(scheme, leaks_of(scheme, z, 3, generator)), z) > plain - .03
    bare = group_dropout.LearnedSlerp(**kw, drop_rate=0.)
    assert (invert(bare, leaks_of(bare, z, 1, generator)) - z).abs().max() < 1e-6

@pytest.mark.parametrize('dim', [128, 130])
def test_grades_grow(dim, generator):
    scheme, z = Slerp(dim=dim), unit(60, dim, generator=generator)
    a, b, c = (close(invert(scheme, leaks_of(scheme, z, 2, generator, grade=g)), z)
               for g in ('template', 'template+key', 'full'))
    assert .1 < a < .4 < b <= c + .01

def test_who_knows_people_finds_more(generator):
    draw, scheme = narrow(128, 12, generator), Slerp(dim=128)
    prior, z = population(draw(500)), draw(40)
    held = leaks_of(scheme, z, 1, generator)
    assert close(invert(scheme, held, prior), z) > close(invert(scheme, held), z) + .15

def test_derivatives(grid, generator):
    t, w = grid
    held = leaks_of(Slerp.official(), t, 3, generator, w)
    u, key = (torch.stack([l[n][:2, :3] for l in held], 2) for n in ('rows', 'key'))
    x, u = F.normalize(t[:2, :3] + .1, dim=-1), F.normalize(u, dim=-1)
    a = held[0]['alpha'][:2, :3, None].expand(2, 3, 3)
    e, J = _equations(x, a, u, key)
    step = 1e-7*torch.randn(2, 3, 17, generator=generator, dtype=torch.double)
    moved = _equations(x + step[..., :-1], a + step[..., -1:], u, key)[0] - e
    assert (moved - (J @ step[..., None, :, None])[..., 0]).abs().max() < 1e-11
    assert _equations(t[:2, :3], a, u, key)[0].abs().max() < 1e-12

# bits

def biohash(z, bits, g):
    q = torch.linalg.qr(torch.rand(len(z), z.shape[1], bits, generator=g).double())[0]
    y = (z[:, None] @ q)[:, 0]
    return dict(bits=y > y.mean(1, keepdim=True), matrix=q)

def test_biohash_line(generator):
    z = unit(20, 512, generator=generator)
    for bits, cosine in (512, .795), (128, .384):
        leak = biohash(z, bits, generator)
        line = close(_times(leak['matrix'], 2*leak['bits'].double() - 1), z)
        assert abs(line - cosine) < .03

def test_biohash_records_beat_the_line(generator):
    z = unit(30, 128, generator=generator)
    held = [biohash(z, 128, generator) for _ in range(4)]
    line = close(sum(_times(l['matrix'], 2*l['bits'].double() - 1) for l in held), z)
    found = [close(invert(Slerp(dim=128), held[:r]), z) for r in (1, 2, 4)]
    assert abs(found[0] - (2/math.pi)**.5) < .015 and found[1] > .87 and found[2] > line + .01

def test_sign_channel_moments():
    mean, variance = sign_channel(torch.ones(3))(torch.tensor([0., 5., -5.]), torch.ones(3))
    assert torch.allclose(mean, torch.tensor([(2/math.pi)**.5, 5, .187]), atol=2e-3)
    assert torch.allclose(variance, torch.tensor([1 - 2/math.pi, 1, .0316]), atol=2e-3)

def test_network_is_linear_where_it_does_not_bend(generator):
    z = unit(24, 64, generator=generator)
    layers = [torch.randn(24, 64, 96, generator=generator).double(), torch.randn(24, 96, 256, generator=generator).double()]
    x = z[:, None]
    for W in layers: x = (x @ W).relu()
    bits = x[:, 0] > x[:, 0].mean(1, keepdim=True)
    assert torch.equal(_times(local_map(layers, z), z) > 0, bits)
    assert close(invert_network([layers], bits, nobody(64)), z) > .65

# polynomials

def poly_records(z, r, m, o, g):
    size = torch.rand(len(z), r, 50, generator=g).argsort(-1)[..., :m] + 1
    c = (size*(2*torch.randint(2, size.shape, generator=g) - 1)).double()
    e, p = torch.rand(len(z), r, m, generator=g).argsort(-1).double() + 1, -(-(z.shape[1] - m)//(m - o)) + 1
    return polynomials(z, c, e, o, p)[0].view(len(z), r, p), c, e

def test_polynomials_and_derivative(generator):
    z = unit(4, 40, generator=generator)
    y, c, e = poly_records(z, 2, 5, 3, generator)
    assert torch.allclose(y[:, 1, 2], (c[:, 1]*z[:, 4:9]**e[:, 1]).sum(1))
    step = 1e-8*torch.randn(z.shape, generator=generator, dtype=torch.double)
    J = polynomials(z, c, e, 3, y.shape[2])[1]
    moved = polynomials(z + step, c, e, 3, y.shape[2])[0] - y.flatten(1)
    assert (moved - _times(J, step)).abs().max() < 1e-12

def test_polyprotect_trend(generator):
    z, found = unit(12, 128, generator=generator), {}
    for o in 0, 3, 6:
        found[o] = [close(invert_polynomials(*poly_records(z, r, 7, o, generator), o, nobody(128), generator, 4), z)
                    for r in (1, 3)]
    assert found[0][0] < found[3][0] < found[6][0] > .85 and found[0][0] < .6  # published: safe to o = 3
    assert found[0][1] > found[0][0] and found[3][1] > found[3][0] + .1

# IronMask

def ironmask(z, g, weight=16):
    b, d = z.shape
    draw = lambda *s: torch.randn(*s, generator=g, dtype=torch.double)
    code = nearest_codeword(draw(b, d), weight)
    a, c = (torch.linalg.qr(torch.cat([x[..., None], draw(b, d, d - 1)], 2))[0] for x in (z, code))
    sign = ((c[..., 0]*code).sum(1)*(a[..., 0]*z).sum(1)).sign()
    return sign[:, None, None]*(c @ a.mT), code

def masks(z, r, g): return [torch.stack(x, 1) for x in zip(*(ironmask(z, g) for _ in range(r)))]

def test_ironmask_published_size_falls_to_four_enrolments(generator):
    z = unit(2, 512, generator=generator)
    P, code = masks(z, 4, generator)
    accept = lambda tried, i: (tried == code[:, i, None]).all(-1)
    found = invert_rotations(P, 16, nobody(512), accept, generator, (.02,))
    assert ((found*z).sum(1)/found.norm(dim=1)).median() > 1 - 1e-9
    one = invert_rotations(P[:, :1], 16, nobody(512), None, generator, (.02,))
    assert (F.normalize(one, dim=1)*z).sum(1).abs().max() < .4

def test_ironmask_one_record_of_narrow_population(generator):
    draw = narrow(128, 10, generator)
    prior, z = population(draw(400)), draw(12)
    P, code = masks(z, 1, generator)
    best = invert_rotations(P, 16, prior, lambda tried, i: (tried == code[:, i, None]).all(-1), generator)
    assert (F.cosine_similarity(best, z) > .95).double().mean() > .6

class Mask:
    dim, alpha = 64, 4

def test_digest_settles_sign_and_template(generator):
    draw = narrow(64, 5, generator)
    prior, z = population(draw(300)), draw(12)
    P, code = zip(*(ironmask(z, generator, 4) for _ in range(2)))
    leaks = [dict(rotation=p, digest=digests(c)) for p, c in zip(P, code)]
    found = invert(Mask, leaks, prior, generator)
    assert ((found*z).sum(1) > 1 - 1e-9).double().mean() > .7

# everything

@pytest.mark.parametrize('leak', [dict(bits=torch.ones(3, 9).bool()), dict(vector=torch.ones(3, 9))])
def test_nothing_leaked_gives_the_mean(leak, generator):
    prior = population(F.normalize(torch.randn(50, 9, generator=generator) + 1, dim=1))
    found = invert(Slerp(dim=9, group_size=3), [leak], prior, generator)
    assert torch.allclose(found, F.normalize(prior.mean, dim=0).expand(3, -1))
    assert invert(Slerp(dim=9, group_size=3), [leak], None, generator).isfinite().all()

def test_plain_is_itself(generator):
    z = unit(5, 9, generator=generator)
    assert torch.allclose(invert(Slerp(dim=9, group_size=3), [dict(template=z)]), z)

@pytest.mark.parametrize('name', SCHEMES)
def test_every_scheme_falls_a_little_to_its_key(name, generator):
    draw = narrow(128, 8, generator)
    prior, z, scheme = population(draw(400)), draw(12).float(), SCHEMES[name](128)
    found = invert(scheme, [renewed(scheme, z, 'full', generator) for _ in range(2)], prior, generator)
    assert found.shape == z.shape and close(found, z) > .6

BAD = {'none': ([], None, 'leaks: one record or more is wanted'),
       'grades': ([dict(rows=1), dict(rows=1, key=2)], None, 'leaks: all of one grade are wanted'),
       'prior': ([dict(template=torch.ones(2, 9))], nobody(7), 'prior: 9 dimensions are wanted, not 7'),
       'unknown': ([dict(key=1)], None, r"leaks: one of \('template', .*'rotation'\) is wanted, not \('key',\)")}

@pytest.mark.parametrize('case', BAD)
def test_bad_input(case):
    leaks, prior, message = BAD[case]
    with pytest.raises(ValueError, match=message): invert(Slerp(dim=9, group_size=3), leaks, prior)

def test_one_template_is_no_population():
    with pytest.raises(ValueError, match='two templates or more are wanted, not 1'): population(torch.ones(1, 4))

# measures and links

def test_attack_success_counts_people(generator):
    z = unit(40, 16, generator=generator)
    person = torch.arange(40)//2
    all_in = attack_success(z, z, None, dict(a=.9), person, rounds=50)
    assert all_in['type1_a']['value'] == 1 and all_in['type1_a']['low'] == pytest.approx(.025**(1/20))
    half = torch.where(person[:, None] % 2 == 0, z, -z)
    found = attack_success(half, z, -z, dict(a=.9), person, np.random.default_rng(0), 400)
    assert found['type1_a']['value'] == .5 == found['type2_a']['value']
    assert found['type1_a']['high'] - found['type1_a']['low'] > .35  # 20 people, not 40 rows

def test_correlation():
    x = torch.randn(6, 9, dtype=torch.double)
    assert torch.allclose(correlation(x, 3*x + 1), torch.ones(6).double())
    assert torch.equal(correlation(torch.ones(2, 5), torch.rand(2, 5)), torch.zeros(2))

def test_linkers_for_what_leaks(generator):
    z, scheme = unit(8, 128, generator=generator), Slerp.official(dim=128)
    assert set(linkers(dict(vector=z))) == {'payload'}
    assert set(linkers(renewed(scheme, z, 'full', generator))) == set(LINKERS)
    a, b = (renewed(scheme, z, 'template', generator) for _ in range(2))
    assert LINKERS['row_norms'](a, b).min() > .999  # no key hides them

def test_links_by_learning_and_inversion(generator):
    scheme, z = Slerp.official(dim=128), unit(300, 128, generator=generator)
    noisy = F.normalize(z + .05*torch.randn(z.shape, generator=generator), dim=1)
    mated = torch.arange(300) % 2 == 0
    other = torch.where(mated[:, None], noisy, noisy.roll(2, 0))
    a, b = (renewed(scheme, x, 'full', generator) for x in (z, other))
    half = lambda leak, s: {k: v[s] for k, v in leak.items()}
    learned = learn_linker(half(a, slice(200)), half(b, slice(200)), mated[:200])
    for linker in learned, inversion_linker(scheme, nobody(128)):
        s = linker(half(a, slice(200, None)), half(b, slice(200, None)))
        m = mated[200:]
        assert (s[m][:, None] > s[~m]).double().mean() > .8
    c = link(learned, a, b, np.arange(300), np.where(mated, np.arange(300), 999))
    assert c.mated.sum() == 150 and len(c) == 300
