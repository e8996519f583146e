"""Independent computation, secrets, bad input, and what survives a kill, for faceprivacy.image_schemes"""
import math
import numpy as np, pytest, torch, torch.nn.functional as F
from scipy.fft import dctn
from faceprivacy import image_schemes as sch
from faceprivacy.block_dct import decode, encode, null_part
from faceprivacy.subtraction import shuffle

SIZE = 12
RANDOM = ['null_residue', 'minusface', 'partialface', 'dctdp']

@pytest.fixture(scope='module')
def x(): return torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))*2 - 1

def make(name, size=SIZE): return sch.DCTDP(size) if name == 'dctdp' else sch.IMAGE_SCHEMES[name]()

def official(x):
    "e the long way: enlarge eight times, JPEG's colours, cut into blocks, scipy's DCT; (b, 3, 64, h, w)"
    b, _, h, w = x.shape
    large = F.interpolate(x.double()*.5 + .5, (8*h, 8*w), mode='bilinear', align_corners=True).numpy()*255
    to_ycc = np.array([[.299, .587, .114], [-.168735892, -.331264108, .5], [.5, -.418687589, -.081312411]])
    planes = np.einsum('pc,bchw->bphw', to_ycc, large) + np.array([0, 128, 128])[:, None, None] - 128
    blocks = planes.reshape(b, 3, h, 8, w, 8).transpose(0, 1, 2, 4, 3, 5)
    return torch.from_numpy(dctn(blocks, axes=(4, 5), norm='ortho').reshape(b, 3, h, w, 64)).movedim(-1, 2)

def test_channels_are_the_official_ones(x):
    want = official(x)
    split = [0, 1, 2, 3, 4, 5, 8, 9, 16, 24]
    server = [k for k in range(64) if k not in split]
    assert torch.allclose(sch.DuetFace().protect(x).double(), want[:, :, server].flatten(1, 2), atol=1e-3)
    assert torch.allclose(sch.DuetFace('client').protect(x).double(), want[:, :, split].flatten(1, 2), atol=1e-3)

@pytest.mark.parametrize('rank', range(18))
def test_partialface_is_prune_pick_permute(x, rank):
    left = [k for k in range(64) if k not in (0, 1, 2, 3, 8, 9, 10, 16, 17, 24)]
    nine = [left[i] for i in sch.SETS[rank//3]]
    want = official(x)[:, :, [nine[i] for i in sch.ORDERS[rank % 3]]].flatten(1, 2)
    found = sch.PartialFace().protect(x, secrets=torch.full((3, 1), rank))
    assert torch.allclose(found.double(), want, atol=1e-3)

def test_partialface_deals_every_frequency_once_and_orders_are_permutations():
    assert sorted(sum(sch.SETS, ())) == list(range(54))
    assert all(sorted(order) == list(range(9)) for order in sch.ORDERS)

def test_a_person_trains_with_three_sets_as_their_number_says():
    person = torch.arange(40).repeat_interleave(60)
    sets = sch.PartialFace().secrets(len(person), person=person)//3
    used = [tuple(sets[person == i].unique().tolist()) for i in range(40)]
    assert used[:20] == used[20:] and len(set(used)) == 20 and used[0] == (0, 1, 2) and used[19] == (3, 4, 5)

def test_noise_without_scale_leaves_the_coefficients(x):
    scheme = sch.DCTDP(SIZE, sensitivity=0.)
    assert torch.allclose(scheme.protect(x).double(), official(x)[:, :, 1:].flatten(1, 2), atol=1e-3)

def test_noise_has_the_scale_of_the_budget(x):
    scheme = sch.DCTDP(SIZE, budget=.5, sensitivity=3.)
    noise = scheme.protect(x) - sch.coefficients(x, scheme.frequencies)
    assert abs(noise.abs().mean().item() - 6) < .1               # b = sensitivity/budget
    scheme.learned['rho'].data[0] = 1.                           # a larger share: less noise
    b = scheme.scale()
    assert b[0].max() < 6 < b[1].min() and torch.allclose(b[1]/b[0], torch.tensor(math.e)**scheme.rate)
    shares = 3/(b.double()*.5*b.numel())
    assert abs(shares.sum() - 1) < 1e-3                          # one budget

def test_every_image_has_noise_of_its_own(x):
    same = x[:1].expand(3, -1, -1, -1)
    p = sch.DCTDP(SIZE).protect(same)
    assert (p[0] != p[1]).float().mean() > .99 and abs(np.corrcoef((p - p.mean(0))[:2].flatten(1))[0, 1]) < .6

def test_laplace_is_of_the_stream_alone():
    seeds = torch.randint(256, (2, 32), dtype=torch.uint8)
    assert torch.equal(sch.laplace(seeds, 4, 5)[1], sch.laplace(seeds[1:], 20).view(4, 5))
    assert sch.laplace(seeds, 10**6).abs().max() < 17.4          # 25 log 2

@pytest.mark.parametrize('size', [(2, 2), (5, 9), (28, 28)])
def test_the_folded_residue_is_the_plain_one(size):
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)*2 - 1
    orders = sch.NullResidue().secrets(2)
    want = decode(shuffle(null_part(encode(x)), orders))
    assert torch.allclose(sch.NullResidue().protect(x, secrets=orders), want, atol=1e-9)

@pytest.mark.parametrize('name', RANDOM)
def test_a_seed_of_torch_decides_nothing(x, name):
    found = []
    for _ in range(2):
        torch.manual_seed(0), np.random.seed(0)
        found.append(make(name).protect(x))
    assert not torch.equal(*found)

@pytest.mark.parametrize('name', sch.IMAGE_SCHEMES)
def test_secrets_are_one_an_image(x, name):
    scheme = make(name)
    drawn = scheme.secrets(3, torch.Generator().manual_seed(5))
    whole = scheme.protect(x, secrets=drawn)
    parts = [scheme.protect(x[i:i + 1], secrets=None if drawn is None else drawn[i:i + 1]) for i in range(3)]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-4) and whole.shape[1] == scheme.channels
    seen = scheme.view(whole)
    assert seen.shape == x.shape and 0 <= seen.min() and seen.max() <= 1

@pytest.mark.parametrize('name', sch.IMAGE_SCHEMES)
@pytest.mark.parametrize('change,error,words', [
    (lambda x: x*torch.nan, ValueError, 'NaN'), (lambda x: 3*x, ValueError, r'\[-1, 1\]'),
    (lambda x: (x + 1)/2, ValueError, r'may be in \[0, 1\]'), (lambda x: x[:, :1], ValueError, r'\(b, 3, h, w\)'),
    (lambda x: x[0], ValueError, r'\(b, 3, h, w\)'), (lambda x: x[:0], ValueError, 'empty'),
    (lambda x: x.numpy(), TypeError, 'tensor'), (lambda x: (x*127).byte(), TypeError, 'floats'),
    (lambda x: torch.full((1, 3, 1, 1), -.5), ValueError, '2 x 2')])
def test_bad_images_are_named(x, name, change, error, words):
    with pytest.raises(error, match=words): make(name).protect(change(x))

@pytest.mark.parametrize('name,secrets,words', [
    ('plain', torch.zeros(3, 1), 'draws none'), ('duetface', torch.zeros(3, 1), 'draws none'),
    ('partialface', torch.full((3, 1), 18), '0 to 17'), ('partialface', torch.zeros(2, 1).long(), r'\(3, 1\)'),
    ('partialface', torch.zeros(3, 1), 'float32'), ('dctdp', torch.zeros(3, 16, dtype=torch.uint8), r'\(3, 32\)'),
    ('dctdp', torch.zeros(3, 32), 'uint8'), ('null_residue', torch.zeros(3, 192).long(), 'once'),
    ('null_residue', torch.zeros(3, 12).long(), r'\(3, 192\)')])
def test_bad_secrets_are_named(x, name, secrets, words):
    with pytest.raises(ValueError, match=words): make(name).protect(x, secrets=secrets)

@pytest.mark.parametrize('call,words', [
    (lambda: sch.DCTDP(28).protect(torch.rand(1, 3, 12, 12) - 1), 'are what this budget is for'),
    (lambda: sch.DCTDP(budget=0.), 'more than 0'), (lambda: sch.DuetFace('both'), 'server or client'),
    (lambda: sch.PartialFace().secrets(3, person=torch.zeros(2).long()), r'\(3,\) is wanted'),
    (lambda: sch.recogniser('ir18', 3, 56), 'not 56'),
    (lambda: sch.train_on(sch.Plain(), torch.zeros(4, 3, 56, 56).byte(), torch.zeros(3).long()), 'each of 4')])
def test_bad_settings_are_named(call, words):
    with pytest.raises(ValueError, match=words): call()

def test_dctdp_is_what_was_saved(x, tmp_path):
    scheme = sch.DCTDP.fit(x, .7, rate=5.)
    scheme.learned['rho'].data.normal_(), scheme.learned['loc'].data.normal_()
    scheme.save(tmp_path/'d.safetensors')
    again, seeds = sch.DCTDP.load(tmp_path/'d.safetensors'), scheme.secrets(3)
    assert torch.equal(scheme.protect(x, secrets=seeds), again.protect(x, secrets=seeds))
    sch.save_tensors(tmp_path/'other.safetensors', rho=torch.zeros(2))
    with pytest.raises(ValueError, match='about, loc, sensitivity missing'): sch.DCTDP.load(tmp_path/'other.safetensors')

def test_solving_gives_the_image_back_and_finds_the_rank():
    grid = torch.linspace(-1, 1, 20)
    x = torch.stack([grid[:, None]*grid, (3*grid).sin()[:, None] + 0*grid, (2*grid).cos() + 0*grid[:, None]])[None]*.8
    want = (x + 1)/2
    duet = sch.DuetFace()
    found, rest = sch.undo(duet.protect(x), duet.frequencies)
    apart = found - want
    assert (apart - apart.mean((2, 3), keepdim=True)).abs().max() < .01 and rest.max() < 1e-9
    scheme = sch.PartialFace()
    ranks = torch.arange(18)[:, None]
    p = scheme.protect(x.expand(18, -1, -1, -1) + .01*torch.randn(18, 3, 20, 20).clamp(-1, 1), secrets=ranks)
    assert torch.equal(sch.find_ranks(scheme, p), ranks)

class PowerCut(Exception): pass

@pytest.mark.parametrize('guided', [True, False])
def test_a_killed_training_ends_the_same(tmp_path, guided):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (12, 3, 56, 56), generator=generator, dtype=torch.uint8)
    guide = F.normalize(torch.randn(12, 16, generator=generator), dim=1) if guided else None
    def train(fail=None, **kw):
        scheme, calls = sch.DCTDP(56, sensitivity=5.), 0
        plain_secrets = scheme.secrets
        def secrets(*args):
            nonlocal calls
            calls += 1
            if calls == fail: raise PowerCut
            return plain_secrets(*args)
        scheme.secrets = secrets
        net, losses = sch.train_on(scheme, images, torch.arange(12) % 4, guide, steps=5, batch=6, **kw)
        return net, scheme, losses
    net, scheme, losses = train()
    with pytest.raises(PowerCut): train(4, checkpoint=tmp_path/'c', every=2)
    with pytest.raises(ValueError, match='lr was'): train(checkpoint=tmp_path/'c', every=2, lr=1e-4)
    again, other, resumed = train(checkpoint=tmp_path/'c', every=2)
    assert resumed == losses and torch.equal(scheme.scale(), other.scale())
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters()))
    assert scheme.learned['rho'].abs().max() > 0 and not scheme.learned['rho'].requires_grad

def test_training_in_half_precision_stays_near():
    images = torch.randint(256, (12, 3, 56, 56), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    plain, half = (sch.train_on(sch.Plain(), images, torch.arange(12) % 4, steps=4, batch=6, lr=1e-4, precision=p)[1]
                   for p in ('no', 'bf16'))
    assert half != plain and half == pytest.approx(plain, rel=.03)

def test_stretched_pictures_fill_the_range():
    flat = torch.linspace(.4, .5, 100).view(1, 1, 10, 10)
    assert sch.stretch(flat).min() == 0 and sch.stretch(flat).max() == 1
    assert torch.equal(sch.loudest(torch.cat([flat, 9*flat], 1)), sch.stretch(9*flat).expand(-1, 3, -1, -1))

@pytest.mark.parametrize('spoil, says', [
    (lambda p, k: (p[:, :26], k), 'finite coefficients'), (lambda p, k: (p[0], k), 'finite coefficients'),
    (lambda p, k: (p*torch.nan, k), 'finite coefficients'), (lambda p, k: (p, k + 60), '0 to 63'),
    (lambda p, k: (p, k.float()), '0 to 63')])
def test_undo_refuses_what_it_cannot_solve(spoil, says):
    scheme = sch.PartialFace()
    p = torch.zeros(2, 27, 16, 16)
    with pytest.raises(ValueError, match=says): sch.undo(*spoil(p, scheme.ranks[0]))

@pytest.mark.parametrize('p', [torch.zeros(2, 26, 16, 16), torch.full((2, 27, 16, 16), torch.nan)])
def test_ranks_of_what_was_never_sent(p):
    with pytest.raises(ValueError, match='finite coefficients'): sch.find_ranks(sch.PartialFace(), p)
