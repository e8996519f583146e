"""Golden parity, folded forms, orders, ranges, kill and resume, and bad input, for block_dct, subtraction and minusface"""
import json
import math
import os
from pathlib import Path
import numpy as np, pytest, torch, torch.nn as nn, torch.nn.functional as F
from faceprivacy import block_dct as dct, image_audit as audit, minusface as mf, subtraction as sub
from faceprivacy.recognition import CosFace, cost, load_weights, margin_head
from golden_rule import assert_golden, golden_input, golden_state

GOLDEN = Path(__file__).parent/'golden'

@pytest.fixture(autouse=True)
def one_thread():
    "Small operations wait for each other on two threads of a busy machine"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

def rng(seed=0): return torch.Generator().manual_seed(seed)

def faces(n=2, h=16, w=16, seed=0, dtype=torch.float32): return torch.rand(n, 3, h, w, generator=rng(seed), dtype=dtype)*2 - 1

def grown(x, n):
    "e the straightforward way: a picture n times as large, cut into blocks"
    big = F.interpolate(127.5*(x + 1), scale_factor=n, mode='bilinear', align_corners=True)
    big = torch.einsum('pc,bchw->bphw', dct.TO_YCC.to(x), big)
    big[:, 0] -= 128
    blocks = F.unfold(big.flatten(0, 1)[:, None], n, stride=n).mT.unflatten(2, (n, n))
    D = dct.dct_matrix(n).to(x)
    return (D @ blocks @ D.T).flatten(2).mT.reshape(len(x), 3*n*n, *x.shape[2:])

def shrunk(c, n):
    "d the straightforward way"
    b, _, h, w = c.shape
    D = dct.dct_matrix(n).to(c)
    blocks = D.T @ c.reshape(3*b, n*n, h*w).mT.unflatten(2, (n, n)) @ D
    big = F.fold(blocks.flatten(2).mT, (n*h, n*w), n, stride=n).view(b, 3, n*h, n*w)
    big = torch.einsum('pc,bchw->bphw', dct.TO_RGB.to(c), big)/255 + 128/255
    return F.interpolate(big, (h, w), mode='bilinear', align_corners=True)

# exact e, d and g

def test_the_dct_is_the_official_one():
    golden = np.load(GOLDEN/'minusface_dct.npz')
    x = torch.from_numpy(golden['x'])
    coefs = dct.encode(x)
    assert coefs.dtype == torch.float32 and tuple(coefs.shape) == tuple(golden['dct_shape'])
    samples = coefs.flatten()[::int(golden['dct_step'])].numpy()
    assert np.abs(samples - golden['dct_samples']).max() < 1e-5*np.abs(golden['dct_samples']).max()
    scale = np.abs(golden['dct_channel_std']).max()
    for f, name in (coefs.mean((2, 3)), 'mean'), (coefs.std((2, 3)), 'std'):
        assert np.abs(f.numpy() - golden[f'dct_channel_{name}']).max() < 1e-4*scale
    assert np.abs(dct.decode(coefs).numpy() - golden['roundtrip']).max() < 5e-5
    order = torch.from_numpy(golden['perm'])
    for shuffled in coefs[:, order], sub.shuffle(coefs, order.expand(3, -1)):
        assert np.abs(dct.decode(shuffled).numpy() - golden['shuffled_decode']).max() < 2e-4

def test_vectors():
    "A pattern of known coefficients, in float64"
    i = torch.arange(112, dtype=torch.float64)
    p = (7*i[:, None] + 13*i + 29*torch.arange(3.)[:, None, None]) % 256
    x = dct.encode((p/255*2 - 1)[None])
    places = (0, 0), (10, 20), (111, 111)
    for k, known in {0: (-765.4675, -194.1155, 471.6275), 1: [-29.3786]*3, 8: [-15.8192]*3, 64: [155.1467]*3,
                     128: [-134.8645]*3}.items():
        assert [round(x[0, k, a, b].item(), 4) for a, b in places] == list(known)
    assert np.allclose(dct.decode(x)[0, :, 10, 20], (.290196, .403922, .517647), atol=1e-6)
    turned = dct.decode(x.flip(1), clamp=False)[0]
    for at, known in {(0, 0): (.450933, .518365, .507187), (10, 20): (.473010, .503163, .509343),
                      (56, 56): (.502376, .500786, .502486), (111, 111): (.527552, .479338, .507187)}.items():
        assert np.allclose(turned[:, *at], known, atol=1e-6)
    flat = dct.encode(torch.full((1, 3, 8, 8), 2*200/255 - 1, dtype=torch.float64))
    assert np.allclose(flat[0, [0, 64, 128], 3, 3], (576, 0, 0), atol=1e-4)

@pytest.mark.parametrize('h,w', [(2, 2), (3, 8), (9, 2), (20, 33), (113, 50)])
@pytest.mark.parametrize('e,d,n', dct.MAPPINGS.values())
def test_any_size(h, w, e, d, n):
    x = faces(1, h, w, dtype=torch.float64)
    assert (e(x) - grown(x, n)).abs().max() < 1e-9
    c = 50*torch.randn(1, 3*n*n, h, w, generator=rng(), dtype=torch.float64)
    assert (d(c, clamp=False) - shrunk(c, n)).abs().max() < 1e-9
    assert (d(c) - d(c, clamp=False).clamp(0, 1)).abs().max() == 0
    hidden = dct.null_part(c)
    assert (d(hidden, clamp=False) - 128/255).abs().max() < 1e-9
    assert (c - hidden)[:, :, 0, 0].norm() < c[:, :, 0, 0].norm()

def test_e_and_d_have_gradients():
    x = .9*faces(1, 3, 2, dtype=torch.float64)
    for e, d, n in dct.MAPPINGS.values():
        assert torch.autograd.gradcheck(e, x.clone().requires_grad_(), fast_mode=True)
        c = torch.randn(1, 3*n*n, 2, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda c: d(c, False), c, fast_mode=True)
        assert torch.autograd.gradcheck(dct.null_part, c, fast_mode=True)

def test_the_generator_is_the_official_one():
    net = sub.UNet().eval()
    known = json.loads((GOLDEN/'tface_state_dict.json').read_text())['minusface_unet']
    assert {k: list(v.shape) for k, v in net.state_dict().items()} == known
    assert sub.generator_cost(net)['parameters'] == 34_634_624
    assert round(sub.generator_cost(net)['macs']/1e9, 2) == 11.25
    net.load_state_dict(golden_state('minusface_unet', net.state_dict()))
    with torch.inference_mode(): made = net(golden_input('input.dct', (1, 192, 112, 112)))
    assert_golden(made, np.load(GOLDEN/'tface_networks.npz'), 'minusface_unet.out', 1e-4)

def test_a_released_checkpoint_opens_without_unpickling(tmp_path):
    net = sub.UNet(widths=(4, 8))
    torch.save({k: v for k, v in net.state_dict().items()}, tmp_path/'g.pth')
    other = load_weights(sub.UNet(widths=(4, 8)), tmp_path/'g.pth')
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values()))
    class Harm:
        def __reduce__(self): return os.system, ('exit 1',)
    torch.save(dict(harm=Harm()), tmp_path/'harm.pth')
    with pytest.raises(ValueError, match='not a file of tensors and nothing else'):
        load_weights(other, tmp_path/'harm.pth')
    with pytest.raises(ValueError, match='does not fit the network'):
        load_weights(sub.UNet(widths=(4, 8, 16)), tmp_path/'g.pth')

# folded

@pytest.mark.parametrize('n', (8, 2))
@pytest.mark.parametrize('stride', (1, 2))
def test_folded_layers_are_the_layers(n, stride):
    x, e = faces(2, 13, 18, dtype=torch.float64), {8: dct.encode, 2: dct.encode_dwt}[n]
    layer, last = nn.Conv2d(3*n*n, 5, 3, stride, 1, bias=False).double(), nn.Conv2d(4, 3*n*n, 1).double()
    h = torch.randn(2, 4, 13, 18, generator=rng(), dtype=torch.float64)
    folded, plain = dct.residue_conv(layer, last, dct.Code(x, n), h), layer(e(x) - last(h))
    assert (folded - plain).abs().max() < 1e-9
    for f, p in zip(*(torch.autograd.grad(y.square().sum(), (layer.weight, last.weight, last.bias))
                      for y in (folded, plain))): assert torch.allclose(f, p, rtol=1e-8)
    d = {8: dct.decode, 2: dct.decode_dwt}[n]
    assert (dct.decode_features(last, h, n) - d(last(h), clamp=False)).abs().max() < 1e-9

def test_the_kept_kernels_follow_the_weights():
    scheme, x = sub.MinusFace(sub.UNet(widths=(4, 8)).requires_grad_(False)), faces()
    def direct(): return dct.encode(x) - scheme.generator(dct.encode(x))
    assert torch.allclose(scheme.residue(x), direct(), atol=1e-2)
    with torch.no_grad(): scheme.generator.first.weight.mul_(2)
    assert torch.allclose(scheme.residue(x), direct(), atol=1e-2)
    odd = faces(1, 15, 16)
    assert scheme.residue(odd).shape == (1, 192, 15, 16)

# the scheme

@pytest.fixture(scope='module')
def scheme():
    torch.manual_seed(0)
    return sub.MinusFace(sub.UNet(widths=(4, 8)).requires_grad_(False))

def test_orders_come_from_the_system(monkeypatch):
    torch.manual_seed(0)
    first = sub.channel_orders(3)
    torch.manual_seed(0)
    assert not torch.equal(first, sub.channel_orders(3))
    asked = []
    def token(n): asked.append(n); return bytes(range(256))*(n//256 + 1)
    monkeypatch.setattr(sub.secrets, 'token_bytes', lambda n: token(n)[:n])
    sub.channel_orders(3)
    assert asked == [8*3*192]
    monkeypatch.undo()
    assert torch.equal(sub.channel_orders(2, 12, rng(1)), sub.channel_orders(2, 12, rng(1)))

def test_every_image_has_its_own_order(scheme):
    x = faces(1).expand(4, -1, -1, -1)
    p = scheme.protect(x)
    assert p.shape == x.shape and p.min() >= 0 and p.max() <= 1
    assert all((p[i] - p[j]).abs().max() > 0 for i in range(4) for j in range(i))
    assert not torch.equal(p, scheme.protect(x))
    one, two = (scheme.protect(x, rng(3)) for _ in range(2))
    assert torch.equal(one, two)

def test_the_modes(scheme):
    x, g = faces(2), scheme.generator
    r, orders = scheme.residue(x), scheme.secrets(2)
    plain = sub.MinusFace(g, mode='none')
    assert torch.equal(plain.protect(x), dct.decode(r))
    mask = sub.MinusFace(g, mode='mask', share=.25)
    kept = torch.ones(2, 192)
    for b in range(2): kept[b, orders[b, 0, :48]] = 0
    assert torch.equal(mask.protect(x, secrets=orders), dct.decode(r*kept[..., None, None]))
    three = sub.MinusFace(g, n_duplicate=3)
    drawn = three.secrets(2)
    p = three.protect(x, secrets=drawn)
    assert p.shape == (2, 9, 16, 16) and three.bytes() == 9*112*112*4 and three.view(p).shape == (2, 3, 16, 16)
    for k in range(3):
        assert torch.equal(p[:, 3*k:3*k + 3], scheme.protect(x, secrets=drawn[:, k]))
    wavelets = sub.MinusFace(sub.UNet(12, 12, (4, 8)), 'dwt')
    assert wavelets.secrets(5).shape == (5, 1, 12) and wavelets.protect(x).shape == x.shape

@pytest.mark.parametrize('mode', ['shuffle', 'mask', 'none'])
def test_image_by_image_is_all_at_once(scheme, mode):
    "d of the whole batch, as the paper writes it, and of residues kept in halves"
    r = 40*torch.randn(3, 192, 9, 7)
    orders = sub.channel_orders(6).view(3, 2, 192)
    made = sub.MinusFace(scheme.generator, n_duplicate=2, mode=mode, share=.5)
    def whole(r, order):
        if mode == 'shuffle': return dct.decode(sub.shuffle(r, order))
        kept = torch.ones(3, 192).scatter(1, order[:, :96], 0.) if mode == 'mask' else torch.ones(3, 192)
        return dct.decode(r*kept[..., None, None])
    for x in r, r.half():
        wanted = torch.cat([whole(x.float(), order) for order in orders.unbind(1)], 1)
        torch.testing.assert_close(made.conceal(x, orders), wanted)

@pytest.mark.parametrize('how', [dict(centred=True), dict(evened=True), dict(centred=True, turned=True)])
def test_changed_residues_in_halves(scheme, how):
    known = (40*torch.randn(9, 192, 8, 8)).half()
    changed = sub.Changed(scheme, known, **how)
    secrets, r = changed.secrets(4), known[:4]
    mixed = sub.shuffle_signed(changed.even(r.float()), secrets[:, 0])
    if changed.turned: mixed = sub.shuffle_signed(torch.einsum('kl,blhw->bkhw', dct.dct_matrix(192).float(), mixed),
                                                  secrets[:, 1])
    torch.testing.assert_close(changed.conceal(r, secrets), dct.decode(mixed))

@pytest.mark.parametrize('residues, secrets', [(2, 3), (3, 2), (0, 0)])
def test_residues_without_secrets_are_refused(scheme, residues, secrets):
    r, known = torch.randn(residues, 192, 8, 8), torch.randn(9, 192, 8, 8)
    for s in scheme, sub.Changed(scheme, known, evened=True):
        with pytest.raises(ValueError, match=f'secrets for each, are wanted, not {residues} and {secrets}'):
            s.conceal(r, s.secrets(3)[:secrets])

def test_templates_alone_are_those_beside_pictures(scheme):
    "A shortcut of the audit: the same protected images, without the pictures drawn of them"
    begun, look = (40*torch.randn(5, 192, 56, 56)).half(), audit.Look(scheme)
    attacker = audit.Attacker(3, 128, 56, (8, 16)).eval()
    _, z = audit.attack(attacker, look, begun, torch.Generator().manual_seed(3), batch=2)
    alone = audit.name_all(attacker, look, begun, torch.Generator().manual_seed(3), batch=2)
    torch.testing.assert_close(alone, z)

def test_an_attack_may_ask_for_gradients(scheme):
    x = (.9*faces(1)).requires_grad_()
    scheme.protect(x, secrets=scheme.secrets(1, rng())).sum().backward()
    assert x.grad.abs().max() > 0
    assert not scheme.protect(x.detach()).requires_grad

@pytest.mark.parametrize('mapping', ('dct', 'dwt'))
def test_saved_and_loaded(tmp_path, mapping):
    inner = 3*dct.MAPPINGS[mapping][2]**2
    made = sub.MinusFace(sub.UNet(inner, inner, (4, 8)), mapping, 2, 'mask', .5, True)
    made.save(tmp_path)
    again = sub.MinusFace.load(tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {'generator.safetensors', 'minusface.json'}
    for k in 'mapping', 'n_duplicate', 'mode', 'share', 'exact': assert getattr(made, k) == getattr(again, k)
    secrets, x = made.secrets(2), faces()
    assert torch.equal(made.protect(x, secrets=secrets), again.protect(x, secrets=secrets))
    sub.UNet(inner, inner, (4, 8, 8))  # another layout in the place of the first
    sub.save_weights(tmp_path/'generator.safetensors', sub.UNet(inner, inner, (4, 9)))
    with pytest.raises(ValueError, match='does not fit the network'): sub.MinusFace.load(tmp_path)
    with pytest.raises(FileNotFoundError, match='no minusface.json'): sub.MinusFace.load(tmp_path/'nowhere')

NAN = faces()
NAN[0, 0, 3, 3] = math.nan
@pytest.mark.parametrize('x,message', [
    ((faces() + 1)/2, r'may be in \[0, 1\]'), (127*(faces() + 1), r'\[-1, 1\] are wanted'), (NAN, 'NaN'),
    (faces()[:, :1], r'\(b, 3, h, w\) is wanted'), (faces()[0], r'\(b, 3, h, w\) is wanted'),
    (faces(1, 1, 8), '2 x 2 pixels'), (faces()[:0], 'empty')])
def test_bad_images(scheme, x, message):
    with pytest.raises(ValueError, match=message): scheme.protect(x)

def test_bad_dtype(scheme):
    with pytest.raises(TypeError, match='floats are wanted'): scheme.protect((faces()*100).byte())

def test_ranges(scheme):
    x = faces()
    known = scheme.secrets(2)
    want = scheme.protect(x, secrets=known)
    for given, range in ((x + 1)/2, (0, 1)), ((x + 1)*127.5, (0, 255)), (x, (-1, 1)):
        assert torch.allclose(scheme.protect(given, secrets=known, range=range), want, atol=1e-3)
    assert scheme.protect(faces().abs(), range=(-1, 1)).shape == x.shape  # as bright as it says
    scheme.protect(.02*x - .97)  # a dark face
    with pytest.raises(ValueError, match=r'not \(0, 3\)'): scheme.protect(x, range=(0, 3))
    with pytest.raises(ValueError, match=r'values in \[-1, 1\]'): scheme.protect(255*(x + 1)/2, range=(0, 1))

@pytest.mark.parametrize('secrets,message', [
    (torch.zeros(2, 1, 192).long(), 'each of 0 to 191 once'), (torch.arange(192).expand(3, -1), r'\(2, 1, 192\)'),
    (torch.rand(2, 1, 192), 'int64')])
def test_bad_secrets(scheme, secrets, message):
    with pytest.raises(ValueError, match=message): scheme.protect(faces(), secrets=secrets)

@pytest.mark.parametrize('options,message', [
    (dict(mapping='fft'), 'one of dct, dwt'), (dict(mode='swap'), 'one of shuffle, mask, none'),
    (dict(n_duplicate=0), '1 or more')])
def test_bad_schemes(options, message):
    with pytest.raises(ValueError, match=message): sub.MinusFace(sub.UNet(widths=(4, 8)), **options)

@pytest.mark.parametrize('coefs,message', [
    (torch.zeros(1, 3, 8, 8), '192 channels'), (torch.zeros(192, 8, 8), r'\(b, channels, h, w\)'),
    (torch.full((1, 192, 4, 4), math.inf), 'NaN or infinity'), (torch.zeros(1, 192, 1, 4), '2 x 2'),
    (torch.zeros(1, 192, 4, 4).long(), 'floats')])
def test_bad_coefficients(coefs, message):
    with pytest.raises(ValueError, match=message): dct.decode(coefs)

@pytest.mark.parametrize('read, channels', [
    (dct.decode, 192), (dct.decode_dwt, 12), (dct.null_part, 192), (dct.null_part, 12)])
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_one_bad_coefficient_among_all(read, channels, value):
    for k in range(channels):
        coefs = torch.zeros(1, channels, 7, 7)
        coefs[0, k, 3, 2] = value
        with pytest.raises(ValueError, match='NaN or infinity'): read(coefs)

# training

def people(n=12, size=56):
    pattern = F.interpolate(torch.rand(3, 3, 4, 4, generator=rng()), size=size).repeat_interleave(n//3, 0)
    return (pattern*255).byte(), torch.arange(3).repeat_interleave(n//3)

TINY = mf.Settings(widths=(12, 8), batch=4)

def test_stage_one_survives_a_kill(tmp_path):
    images, person = people()
    def stop(step, _):
        if step == 3: raise KeyboardInterrupt('power cut')
    options = dict(steps=5, every=2)
    whole, losses = mf.train_generator(images, person, TINY, **options)
    with pytest.raises(KeyboardInterrupt):
        mf.train_generator(images, person, TINY, watch=stop, checkpoint=tmp_path/'ck', **options)
    with pytest.raises(ValueError, match='alpha was 5.0, is 4.0'):
        mf.train_generator(images, person, mf.Settings(widths=(12, 8), batch=4, alpha=4.),
                           checkpoint=tmp_path/'ck', **options)
    again, resumed = mf.train_generator(images, person, TINY, checkpoint=tmp_path/'ck', **options)
    assert resumed == losses
    for a, b in zip(whole.generator.parameters(), again.generator.parameters()): assert torch.equal(a, b)

def test_both_losses_reach_the_generator():
    images, person = people()
    torch.manual_seed(0)
    model = nn.ModuleDict(dict(generator=mf.let_pass(sub.UNet(widths=(12, 8))),
                               recogniser=mf.recogniser('small', 192, 56), head=margin_head('CosFace', 128, 3)))
    assert isinstance(model['head'], CosFace)
    x = images[::4].float()/127.5 - 1
    for name in 'gen', 'fr', 'sparsity':
        model.zero_grad()
        mf.stage_one_losses(model, x, person[::4])[name].backward()
        moved = {k: any(p.grad is not None and p.grad.abs().max() > 0 for p in m.parameters())
                 for k, m in model.items()}
        assert moved == dict(generator=True, recogniser=name == 'fr', head=name == 'fr')
    model.zero_grad()
    mf.stage_one_losses(model, x, person[::4], moving=False)['fr'].backward()
    assert all(p.grad is None for p in model['generator'].left_conv_1.parameters())

def test_the_generator_may_move_more_slowly():
    images, person = people()
    quick, slow = (mf.train_generator(images, person, mf.Settings(widths=(12, 8), batch=4, pace=k), steps=2, decay=0.)[0]
                   for k in (1, 3))
    start = mf.train_generator(images, person, TINY, steps=1, lr=0.)[0].generator.first.weight
    far = [(s.generator.first.weight - start).norm() for s in (quick, slow)]
    assert far[0] > far[1]

def test_stage_two_learns_side_by_side(tmp_path):
    images, person = people()
    scheme = sub.MinusFace(mf.let_pass(sub.UNet(widths=(12, 8))).requires_grad_(False), exact=True)
    def views(x, generator): return dict(X=x, X_p=scheme.protect(x, generator, range=(-1, 1)))
    def fresh():
        torch.manual_seed(0)
        return {k: mf.recogniser('small', 3, 56) for k in ('X', 'X_p')}
    nets, losses = mf.train_recognisers(views, fresh(), images, person, 3, TINY)
    assert len(losses) == 3 and math.isfinite(losses[-1])
    z = mf.templates(views, nets, images, rng())
    assert z['X'].shape == z['X_p'].shape == (12, 128) and torch.allclose(z['X'].norm(dim=1), torch.ones(12))
    seen = []
    def stop(x, generator):
        seen.append(1)
        if len(seen) == 3: raise KeyboardInterrupt
        return views(x, generator)
    with pytest.raises(KeyboardInterrupt):
        mf.train_recognisers(stop, fresh(), images, person, 3, TINY, checkpoint=tmp_path/'ck', every=1)
    again, resumed = mf.train_recognisers(views, fresh(), images, person, 3, TINY, checkpoint=tmp_path/'ck', every=1)
    assert resumed == losses
    for a, b in zip(nets['X_p'].parameters(), again['X_p'].parameters()): assert torch.equal(a, b)

def test_recognisers_meet_the_templates_of_a_guide():
    images, person = people()
    torch.manual_seed(1)
    goal = torch.nn.functional.normalize(torch.randn(len(images), 128))
    nets, losses = mf.train_recognisers(lambda x, g: {'X': x}, {'X': mf.recogniser('small', 3, 56)}, images, person,
                                        40, TINY, guide=goal)
    assert losses[0] > .8 and losses[-1] < losses[0] - .2
    with pytest.raises(RuntimeError, match='size'):
        mf.train_recognisers(lambda x, g: {'X': x}, nets, images, person, 1, TINY, guide=goal[:, :64])

def test_a_plain_recogniser_to_start_from(tmp_path):
    images, _ = people()
    torch.manual_seed(1)
    goal = torch.nn.functional.normalize(torch.randn(len(images), 128))
    def agreement(start):
        with torch.no_grad(): z = mf.recogniser('small', 3, 56, start=start).eval()(images/127.5 - 1)
        return torch.cosine_similarity(z, goal).mean().item()
    file = mf.warm_up(tmp_path/'plain.safetensors', images, goal, 40, batch=6)
    assert file == str(tmp_path/'plain.safetensors') and agreement(file) > agreement('') + .2
    further = mf.warm_up(tmp_path/'further.safetensors', images, goal, 40, file, batch=6)
    assert agreement(further) > agreement(file)
    with pytest.raises(ValueError, match=r'each of 12 images is wanted, \(n, d\), not \(5, 128\)'):
        mf.warm_up(tmp_path/'none.safetensors', images, goal[:5], 2)
    with pytest.raises(ValueError, match='NaN'): mf.warm_up(tmp_path/'none.safetensors', images, goal*math.nan, 2)
    with pytest.raises(ValueError, match='not \\(12,\\)'): mf.warm_up(tmp_path/'none.safetensors', images, goal[:, 0], 2)
    with pytest.raises(ValueError, match='templates to agree with'): mf.warm_up(tmp_path/'none.safetensors', images, None, 2)
    with pytest.raises(ValueError, match='1 or more'): mf.warm_up(tmp_path/'none.safetensors', images, goal, 0)
    assert not (tmp_path/'none.safetensors').exists()

def test_stage_two_in_half_precision_stays_near():
    images, person = people()
    def losses(precision):
        torch.manual_seed(1)
        return mf.train_recognisers(lambda x, g: {'X': x}, {'X': mf.recogniser('small', 3, 56)}, images, person, 4, TINY,
                                    lr=1e-4, precision=precision)[1]
    plain, half = losses('no'), losses('bf16')
    assert half != plain and half == pytest.approx(plain, rel=.03)

@pytest.mark.parametrize('change,message', [
    (dict(images=people()[0].float()), r'uint8 \(n, 3, h, w\)'), (dict(person=people()[1] + 1), 'numbers from 0'),
    (dict(images=people(size=58)[0]), 'multiple of'), (dict(settings=mf.Settings(widths=(8, 8))), '12 or more')])
def test_bad_trainings(change, message):
    given = dict(zip(('images', 'person'), people())) | dict(settings=TINY) | change
    with pytest.raises(ValueError, match=message): mf.train_generator(**given, steps=1)

def test_named_settings():
    paper, released = (mf.SETTINGS[k] for k in ('paper', 'released'))
    assert (paper.alpha, paper.beta, paper.scale, paper.margin, paper.batch, paper.epochs) == (5, 1, 64, .5, 64, 24)
    assert paper.network == 'ir50' and paper.pace == 2 and paper.repeats == (1, 3)
    assert released.network == 'ir18' and released.pace == 1 and released.repeats == (3, 3)
    assert cost(mf.recogniser('ir18', 192), 192)['macs'] > cost(mf.recogniser('ir18', 3))['macs']
