"SlerpFace: agreement with the official code, limit cases, and what wrong input says"
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, torch, torch.nn.functional as F
from faceprivacy.slerp import (GRADES, Keys, Protected, Slerp, chord_fit, derive_keys, drop_counts, dropout_mask,
                               official_keys, orthogonal, person_key, slerp, turn_back)

SECRET = b'a secret of tests'

@pytest.fixture(scope='module')
def golden():
    with np.load(Path(__file__).parent/'golden/slerpface.npz') as f: return {k: torch.from_numpy(f[k]) for k in f}

@pytest.fixture
def generator(): return torch.Generator().manual_seed(0)

def unit(*shape, generator, dtype=torch.double):
    return F.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)

def all_scores(scheme, record, keys, query, weight):
    n, q = len(record), len(query)
    i, j = torch.cartesian_prod(torch.arange(n), torch.arange(q)).T
    return scheme.compare(record[i], query[j], keys[i], weight[j]).view(n, q)

# the official code

@pytest.fixture
def official(golden):
    scheme, keys = Slerp.official(), official_keys(golden['gallery_map'])
    return scheme, keys, scheme.protect(golden['gallery'], keys, golden['gallery_map'])

def test_official_keys_enrolment_and_scores(golden, official):
    scheme, keys, record = official
    assert (keys.direction - golden['key']).abs().max() < 1e-6
    assert (record.rows - golden['protected']).abs().max() < 1e-6
    assert torch.equal(record.mask, golden['protected'] != 0)  # the mask is the zeros
    found = all_scores(scheme, record, keys, golden['query'], golden['query_map'])
    assert (found - golden['score']).abs().max() < 1e-6

def test_official_search(golden, official):
    scheme, keys, record = official
    found = scheme.search(golden['query'], scheme.gallery(record, keys), golden['query_map'])
    assert (found.T - golden['score']).abs().max() < 1e-5

def test_official_rows_disclose_the_weights(golden, official):
    assert (official[2].rows.norm(dim=-1) - golden['gallery_map']).abs().max() < 1e-12

@pytest.mark.parametrize('replacement, low, high', [(True, 8.62, 3.64), (False, 12, 4)])
def test_distinct_drops(replacement, low, high, generator):
    weight = torch.randn(400, 49, generator=generator).softmax(-1)
    order = derive_keys(SECRET, range(400), 49, 16, replacement=replacement).order
    gone = (~dropout_mask(weight, order, 16, *drop_counts(16, .5, 8, replacement))).sum(-1).float()
    light = weight < weight.quantile(.5, -1, keepdim=True)
    assert gone[light].mean().item() == pytest.approx(low, abs=.05)
    assert gone[~light].mean().item() == pytest.approx(high, abs=.05)

# slerp

@pytest.mark.parametrize('dtype, eps', [(torch.double, 1e-12), (torch.float, 1e-6)])
def test_slerp_ends_and_length(dtype, eps, generator):
    t, k = unit(500, 16, generator=generator, dtype=dtype), unit(500, 16, generator=generator, dtype=dtype)
    assert (slerp(t, k, 0.) - t).abs().max() < eps
    assert (slerp(t, k, 1.) - k).abs().max() < eps
    assert (slerp(t, k, .3).norm(dim=-1) - 1).abs().max() < eps

@pytest.mark.parametrize('dtype', [torch.float, torch.double])
@pytest.mark.parametrize('alpha', [0., .5, .9, 1.])
def test_slerp_has_a_value_everywhere(dtype, alpha, generator):
    t = unit(50, 16, generator=generator, dtype=dtype)
    for a, b in (t, t), (t, -t), (0*t, t), (t, 0*t), (0*t, 0*t):
        assert slerp(a, b, alpha).isfinite().all()
    angle = (slerp(t, -t, alpha)*t).sum(-1)
    assert (angle - np.cos(alpha*np.pi)).abs().max() < 1e-5

def test_turn_back_inverts_without_dropout(golden):
    scheme = Slerp(drop_rate=0.)
    keys = official_keys(golden['gallery_map'])
    record = scheme.protect(golden['gallery'], keys, golden['gallery_map'])
    found = turn_back(record.rows, keys.direction, scheme.alphas(record.weight))
    assert (found - F.normalize(golden['gallery'], dim=-1)).abs().max() < 1e-10

# the scheme

SCHEMES = [Slerp(), Slerp.official(), Slerp(dim=128), Slerp.official(dim=512), Slerp(dim=130, group_size=8),
           Slerp(dim=100, group_size=32, drop_rate=.3), Slerp(alpha_minus_weight=False), Slerp(drop_rate=.25)]
ONE_LEFT = [Slerp(drop_rate=.75), Slerp(dim=64, group_size=4)]  # a group's part is then a mere sign

def templates(scheme, n, generator):
    return unit(n, scheme.dim, generator=generator, dtype=torch.float)

@pytest.mark.parametrize('scheme', SCHEMES, ids=str)
def test_same_image_scores_one_and_others_less(scheme, generator):
    z, keys = templates(scheme, 100, generator), scheme.keys(100, generator)
    record = scheme.protect(z, keys)
    same, other = scheme.compare(record, z, keys), scheme.compare(record, z.roll(1, 0), keys)
    assert (same - 1).abs().max() < 2e-3 if scheme.query_own_alpha else (same - 1).abs().max() < 1e-5
    assert other.mean() < same.mean()

@pytest.mark.parametrize('scheme', SCHEMES, ids=str)
def test_revoked_key_scores_like_a_stranger(scheme, generator):
    z, old, new = templates(scheme, 200, generator), scheme.keys(200, generator), scheme.keys(200, generator)
    stranger = scheme.compare(scheme.protect(z, new), z.roll(1, 0), new)
    assert scheme.compare(scheme.protect(z, old), z, new).mean() < stranger.mean()

@pytest.mark.parametrize('scheme', SCHEMES + [Slerp(alpha=0.), Slerp(alpha=1.)], ids=str)
def test_search_agrees_with_compare(scheme, generator):
    n, q = 60, 7
    z, keys, probe = templates(scheme, n, generator), scheme.keys(n, generator), templates(scheme, q, generator)
    record = scheme.protect(z, keys)
    want = torch.stack([scheme.compare(record, probe[[j]*n].double(), keys) for j in range(q)])
    for block in 2**17, 100:  # one block, and many
        assert (scheme.search(probe, scheme.gallery(record, keys), block=block) - want).abs().max() < 1e-5

@pytest.mark.parametrize('scheme', [Slerp(dim=128), *ONE_LEFT], ids=str)
def test_search_in_double_precision(scheme, generator):
    z, keys = templates(scheme, 50, generator), scheme.keys(50, generator)
    record = scheme.protect(z.double(), keys)
    want = torch.stack([scheme.compare(record, z[[j]*50].double(), keys) for j in range(9)])
    found = scheme.search(z[:9], scheme.gallery(record, keys, torch.double, degree=12))
    assert (found - want).abs().max() < 1e-7

def test_topk_finds_the_person(generator):
    scheme = Slerp(dim=512)
    z, keys = templates(scheme, 300, generator), scheme.keys(300, generator)
    near = F.normalize(z + .03*torch.randn(z.shape, generator=generator), dim=1)
    score, found = scheme.topk(near, scheme.gallery(scheme.protect(z, keys), keys), 3)
    assert torch.equal(found[:, 0], torch.arange(300)) and (score[:, 0] >= score[:, 1]).all()

def test_hardened_rows_are_unit_and_drop_the_nominal_rate(golden):
    scheme = Slerp.hardened()
    record = scheme.protect(golden['gallery'], scheme.keys(24), golden['gallery_map'])
    assert (record.rows.norm(dim=-1) - 1).abs().max() < 1e-6
    assert ((~record.mask).sum(-1) == 8).all(), 'as many in every group: zeros say nothing about the face'

@pytest.mark.parametrize('scheme', [Slerp(), Slerp.official()], ids=['hardened', 'official'])
def test_no_nan_at_zero_groups_and_at_the_poles(scheme, generator):
    keys = scheme.keys(3, generator)
    z = torch.randn(3, 49, 16, generator=generator)
    z[0, :5], z[1], z[2] = 0, keys.direction[1], -keys.direction[2]
    record = scheme.protect(z, keys)
    assert record.rows.isfinite().all() and scheme.compare(record, z, keys).isfinite().all()
    assert scheme.search(z, scheme.gallery(record, keys)).isfinite().all()
    assert scheme.compare(scheme.protect(0*z, keys), 0*z, keys).isfinite().all()

def test_leak_grades_grow(golden, official):
    scheme, keys, record = official
    found = [set(scheme.leak(g, record, keys)) for g in GRADES]
    assert found[0] < found[1] < found[2] and found[0] == {'rows'}

# keys

def test_keys_repeat_from_the_secret_and_differ_by_id_and_context():
    a, b = (derive_keys(SECRET, ['ann', 'bob'], 8, 16) for _ in range(2))
    assert torch.equal(a.direction, b.direction) and torch.equal(a.order, b.order)
    assert person_key(SECRET, 'ann') != person_key(SECRET, 'ann', context='other') != person_key(SECRET, 'bob')
    assert (a[0].direction*a[1].direction).sum(-1).abs().mean() < .5

def test_new_keys_are_new(): assert not torch.equal(Slerp(dim=64).keys(2).direction, Slerp(dim=64).keys(2).direction)

def test_known_key():  # fixes the derivation: a stored key must still open its records tomorrow
    assert person_key(bytes(32), 'ann').hex() == KNOWN

KNOWN = '7182e22d2ff2804e51d3ee69a790c0543cbd85b39dc46ee601e67f04c9bed3ed'

def test_orthogonal_map_is_orthonormal_and_fixed():
    q = orthogonal(144, 130)
    assert (q.T @ q - torch.eye(130)).abs().max() < 1e-12
    assert torch.equal(q, orthogonal(144, 130)) and not torch.equal(q, orthogonal(144, 130, 1))

def test_vector_map_keeps_cosines(generator):
    z = unit(20, 130, generator=generator)
    t, w = Slerp(dim=130).split(z)
    g = (t*w.sqrt()[..., None]).flatten(1)
    assert (g @ g.T - z @ z.T).abs().max() < 1e-12

# bad input

@pytest.mark.parametrize('settings, message', [
    (dict(alpha=-.1), 'alpha: a number from 0 to 1 is wanted, not -0.1'),
    (dict(alpha=1.1), 'alpha: a number from 0 to 1'),
    (dict(alpha=float('nan')), 'alpha: a number from 0 to 1'),
    (dict(drop_rate=1.), 'drop_rate: 0 <= rate < 1'),
    (dict(group_size=1), 'group_size: 2 to dim=784 is wanted, not 1'),
    (dict(dim=8), 'group_size: 2 to dim=8 is wanted, not 16'),
    (dict(drop_rate=.3, replacement_dropout=True), 'no whole number of draws'),
    (dict(group_size=4, gap_base=8, replacement_dropout=True), 'gap_base: 8 leaves -2 draws')])
def test_settings_refused(settings, message):
    with pytest.raises(ValueError, match=message): Slerp(**settings)

def bad_calls(s, z, keys):
    r = s.protect(z, keys)
    nan, long = z.clone(), replace(keys, direction=2*keys.direction)
    nan[1, 3] = float('nan')
    return {'shape': (lambda: s.protect(z[:, :-1], keys), ValueError, r'z: shape \(any, 8, 16\) or \(any, 128\)'),
            'NaN': (lambda: s.protect(nan, keys), ValueError, 'z: holds NaN'),
            'integers': (lambda: s.protect(z.long(), keys), TypeError, 'z: a tensor of floats is wanted, not torch.int64'),
            'array': (lambda: s.protect(z.numpy(), keys), TypeError, 'z: a tensor of floats'),
            'keys of others': (lambda: s.protect(z, keys[:2]), ValueError, r'keys: shape \(4, 8, 16\)'),
            'long keys': (lambda: s.protect(z, long), ValueError, 'keys: unit rows are wanted, one is off by 1'),
            'short order': (lambda: s.protect(z, replace(keys, order=keys.order[..., :3])), ValueError, 'keys: an order'),
            'group size': (lambda: replace(s, group_size=8).protect(z, keys), ValueError, r'keys: shape \(4, 16, 8\)'),
            'weight shape': (lambda: s.protect(z, keys, torch.ones(4, 7)), ValueError, r'weight: shape \(4, 8\)'),
            'weight sign': (lambda: s.protect(z, keys, -torch.ones(4, 8)), ValueError, 'weight: holds numbers below 0'),
            'records': (lambda: s.compare(r[:3], z, keys), ValueError, r'protected: shape \(4, 8, 16\)'),
            'grade': (lambda: s.leak('everything', r, keys), ValueError, "grade: one of .* not 'everything'"),
            'k': (lambda: s.topk(z, s.gallery(r, keys), 9), ValueError, 'k: 1 to 4 is wanted, not 9')}

CALLS = ['shape', 'NaN', 'integers', 'array', 'keys of others', 'long keys', 'short order', 'group size',
         'weight shape', 'weight sign', 'records', 'grade', 'k']

@pytest.mark.parametrize('call', CALLS)
def test_bad_input_is_named(call, generator):
    scheme = Slerp(dim=128)
    f, kind, message = bad_calls(scheme, templates(scheme, 4, generator), scheme.keys(4, generator))[call]
    with pytest.raises(kind, match=message): f()

@pytest.mark.parametrize('secret', [b'too short', 'text of enough length', None])
def test_bad_secret(secret):
    with pytest.raises(ValueError, match='secret: 16 bytes or more'): person_key(secret, 'ann')
