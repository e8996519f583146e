"""LivePortrait: agreement with the official code, its files, the fast networks, and what wrong input says"""
import functools
import hashlib
import http.server
import json
import pickle
import threading
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_rule import golden_input, golden_state, rng

import faceprivacy.official_weights as official
from faceprivacy.fast_generator import (EnlargedSPADE, FastGenerator, Views, last, small_places, summed, value,
                                        value_places)
from faceprivacy.fast_liveportrait import (FastLivePortrait, FastSource, FastWarping, faster_dtype, read_rows,
                                           shifted)
from faceprivacy.keypoints import read_heads, transform
from faceprivacy.liveportrait import LivePortrait, Sizes, Source
from faceprivacy.official_weights import NETWORKS, SMALL, download_official, find_official, load_official, save_official
from faceprivacy.spade_generator import SPADE
from faceprivacy.warping import sample, voxels

GOLDEN = Path(__file__).parent/'golden'
MODULES = {**NETWORKS, 'stitching': 'stitching', 'eyes': 'eye', 'lip': 'lip'}  # the golden files' names
TINY = Sizes(size=64, width=4, channels=4, depth=4, blocks=1, motion_widths=(8, 16), motion_depths=(1, 1),
             flow_width=4, flow_limit=16, flow_blocks=2, spade=8, middle=1)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad(): yield


@pytest.fixture(scope='module')
def golden():
    with np.load(GOLDEN/'liveportrait.npz') as f: return dict(f)


@pytest.fixture(scope='module')
def full(golden):
    "The official sizes with the golden weights"
    with torch.device('meta'): model = LivePortrait()
    for name, tag in MODULES.items():
        net = model.get_submodule(name)
        net.load_state_dict(golden_state(tag, net.state_dict(), 1., golden), assign=True)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope='module')
def tiny():
    "A small portrait whose norms have statistics as after training"
    torch.manual_seed(0)
    model = LivePortrait(TINY).eval().requires_grad_(False)
    for layer in model.modules():
        if isinstance(layer, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            for v in (layer.weight, layer.bias, layer.running_mean): v.add_(.3*torch.randn(v.shape))
            layer.running_var.copy_(torch.randn(layer.running_var.shape).exp())
    return model


def pictures(n=1, size=64): return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(n))


def worst(out, golden, name):
    "The largest deviation from the samples, in standard deviations (of one number: in its own size)"
    assert tuple(out.shape) == tuple(golden[f'{name}.shape'])
    samples = out.flatten()[::int(golden[f'{name}.step'])].double().numpy()
    size = float(golden[f'{name}.std']) or abs(float(golden[f'{name}.mean']))
    return np.abs(samples - golden[f'{name}.samples']).max()/size


# the official code

def test_names_and_shapes_are_the_official_ones():
    with torch.device('meta'): model = LivePortrait()
    want = json.loads((GOLDEN/'liveportrait_state_dict.json').read_text())
    for name, tag in MODULES.items():
        state = model.get_submodule(name).state_dict()
        assert {k: list(v.shape) for k, v in state.items()} == want[tag], name


def test_F_and_M(full, golden):
    x = golden_input('input.image', (1, 3, 256, 256), 'random')
    assert worst(full.appearance(x), golden, 'appearance_feature_extractor.out') < 1e-4
    for name, v in full.motion(x).items(): assert worst(v, golden, f'motion_extractor.{name}') < 1e-4


def warping_input():
    f_s = golden_input('input.feature_3d', (1, 32, 16, 64, 64))
    x_s = torch.from_numpy((rng('input.kp_source').random((1, 21, 3)) - .5).astype(np.float32))
    move = .1*(rng('input.kp_driving').random((1, 21, 3)) - .5)
    return f_s, torch.from_numpy((x_s.numpy() + move).astype(np.float32)), x_s


def test_W_plain_and_fast(full, golden):
    f_s, x_d, x_s = warping_input()
    plain, fast = full.warping(f_s, x_d, x_s), FastWarping(full.warping)
    found = fast(fast.prepare(Source(f_s, None, x_s)), x_d)
    for name in plain:
        assert worst(plain[name], golden, f'warping_module.{name}') < 1e-4
        assert worst(found[name], golden, f'warping_module.{name}') < 1e-4


def test_G_plain_and_fast(full, golden):
    f = golden_input('input.feature_2d', (1, 256, 64, 64))
    assert worst(full.generator(f), golden, 'spade_generator.out') < 1e-4
    assert worst(FastGenerator(full.generator)(f), golden, 'spade_generator.out') < 1e-4


def test_bfloat16_from_end_to_end(full):
    "Within 1 % of the output; the source is the golden picture, the motion as large as in a clip"
    x = golden_input('input.image', (1, 3, 256, 256), 'random')
    exact, fast = FastLivePortrait(full, torch.float32), FastLivePortrait(full, torch.bfloat16)
    source = exact.source(x)
    x_d = source.points + .05*torch.randn(1, 21, 3, generator=torch.Generator().manual_seed(0))
    want = exact.render(source, x_d)
    assert (fast.render(source, x_d) - want).norm() < .01*want.norm()


@pytest.mark.parametrize('name, size', [('stitching', 126), ('eyes', 66), ('lip', 65)])
def test_S_and_R(full, golden, name, size):
    tag = MODULES[name]
    found = full.get_submodule(name)(golden_input(f'input.{tag}', (2, size), 'random') - .5)
    assert worst(found, golden, f'{tag}.out') < 1e-4


# the files

@pytest.fixture
def folder(tiny, tmp_path):
    save_official(tiny, tmp_path)
    return tmp_path


def same(a, b): return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_the_full_official_layout(full, tmp_path):
    "Golden weights, written as the authors do, from several GPUs, and as a conversion; read back whole"
    save_official(full, tmp_path/'one')
    several = {k: {f'module.{n}': v for n, v in full.get_submodule(a).state_dict().items()} for a, k in SMALL.items()}
    torch.save(several, tmp_path/'one/liveportrait/retargeting_models/stitching_retargeting_module.pth')
    assert same(full, load_official(tmp_path/'one'))
    sizes = {f.name: f.stat().st_size/1e6 for f in (tmp_path/'one').rglob('*.pth')}
    for name, size in dict(appearance_feature_extractor=3.39, motion_extractor=113, spade_generator=222,
                           warping_module=182).items():  # as listed at huggingface.co
        assert sizes[f'{name}.pth'] == pytest.approx(size, rel=.01)
    for f in (tmp_path/'one').rglob('*.pth'): f.unlink()
    save_official(full, tmp_path/'two', '.safetensors')
    assert same(full, load_official(tmp_path/'two/liveportrait'))


def test_a_flat_folder_and_half_precision(tiny, folder, tmp_path):
    flat = tmp_path/'flat'
    flat.mkdir()
    for f in folder.rglob('*.pth'):
        state = torch.load(f, weights_only=True)
        half = lambda v: v.half() if torch.is_tensor(v) and v.is_floating_point() else v
        torch.save({k: {n: half(u) for n, u in v.items()} if isinstance(v, dict) else half(v) for k, v in state.items()},
                   flat/f.name)
    found = load_official(flat, sizes=TINY).state_dict()
    for k, v in tiny.state_dict().items(): assert torch.equal(found[k], v.half().to(v.dtype)), k


def test_batch_counters_may_be_missing_and_prefixes_there(tiny, folder):
    file = find_official(folder)['warping_module']
    state = torch.load(file, weights_only=True)
    torch.save({f'module.{k}': v for k, v in state.items() if not k.endswith('num_batches_tracked')}, file)
    assert same(tiny, load_official(folder, sizes=TINY))


def test_animals_share_the_small_networks(tiny, folder):
    with pytest.raises(FileNotFoundError, match='liveportrait_animals/base_models_v1.1/motion_extractor.pth'):
        load_official(folder, 'animals', TINY)
    (folder/'liveportrait_animals').mkdir()
    (folder/'liveportrait/base_models').rename(folder/'liveportrait_animals/base_models')
    assert same(tiny, load_official(folder, 'animals', TINY))


def test_what_is_missing_is_named(folder):
    find_official(folder)['spade_generator'].unlink()
    with pytest.raises(FileNotFoundError, match='lacks liveportrait/base_models/spade_generator.pth; get them from '
                                                'huggingface.co/KwaiVGI/LivePortrait'): load_official(folder, sizes=TINY)


@pytest.mark.parametrize('change, message', [
    (lambda s: {k: v for k, v in s.items() if k != 'fc.bias'}, 'fc.bias is missing'),
    (lambda s: s | {'more': s['fc.bias']}, 'more is unknown'),
    (lambda s: s | {'fc.bias': torch.zeros(7)}, r'fc.bias is \(7,\), not \(32,\)'),
    (lambda s: s | {'fc.bias': s['fc.bias']/0}, 'fc.bias holds NaN or infinity'),
    (lambda s: s | {'fc.bias': s['fc.bias'].int()}, 'fc.bias is torch.int32'),
    (lambda s: s | {'fc.bias': 3}, 'fc.bias is no tensor but int')])
def test_what_does_not_fit_is_named(folder, change, message):
    file = find_official(folder)['spade_generator']
    torch.save(change(torch.load(file, weights_only=True)), file)
    with pytest.raises(ValueError, match=f'spade_generator.pth does not fit, 1 of .*{message}'):
        load_official(folder, sizes=TINY)


@pytest.mark.parametrize('content', [b'', b'PK', b'\x80\x04not a pickle', bytes(1000)])
def test_a_broken_file_is_named(folder, content):
    find_official(folder)['motion_extractor'].write_bytes(content)
    with pytest.raises(ValueError, match='motion_extractor.pth is not a whole file'): load_official(folder, sizes=TINY)


def test_a_program_does_not_run(folder):
    class Program:
        def __reduce__(self): return Path.touch, (folder/'ran',)
    file = find_official(folder)['motion_extractor']
    file.write_bytes(pickle.dumps(Program(), 2))
    with pytest.raises(ValueError, match='nothing else'): load_official(folder, sizes=TINY)
    torch.save(Program(), file)
    with pytest.raises(ValueError, match='nothing else'): load_official(folder, sizes=TINY)
    assert not (folder/'ran').exists()


def test_a_file_of_one_tensor(folder):
    torch.save(torch.ones(1), find_official(folder)['motion_extractor'])
    with pytest.raises(ValueError, match='a dict of tensors is wanted, not Tensor'): load_official(folder, sizes=TINY)


# the download

@pytest.fixture
def hub(tiny, tmp_path):
    "A server with the layout of the repository; gives its address and its folder"
    root = tmp_path/'hub'
    files = root/official.REPOSITORY/'resolve/main'
    save_official(tiny, files)
    listing = [dict(type='directory', path='liveportrait')]
    for f in files.rglob('*.pth'):
        oid = hashlib.sha256(f.read_bytes()).hexdigest()
        listing.append(dict(type='file', path=str(f.relative_to(files)), lfs=dict(oid=oid, size=f.stat().st_size)))
    api = root/'api/models'/official.REPOSITORY/'tree'
    api.mkdir(parents=True)
    (api/'main').write_text(json.dumps(listing))
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_address[1]}', files
    server.shutdown()


def test_download(tiny, hub, tmp_path):
    endpoint, files = hub
    got = download_official(tmp_path/'new', endpoint=endpoint)
    assert len(got) == 5 and same(tiny, load_official(tmp_path/'new', sizes=TINY))
    before = got[0].stat().st_mtime_ns
    got[1].unlink()
    download_official(tmp_path/'new', endpoint=endpoint)  # only what is not there
    assert got[0].stat().st_mtime_ns == before and got[1].is_file()
    state = torch.load(got[2], weights_only=True)
    torch.save({k: v + 1 for k, v in state.items()}, got[2])
    with pytest.raises(ValueError, match='another SHA-256 than listed'): load_official(tmp_path/'new', sizes=TINY)


def test_download_of_something_else_leaves_nothing(hub, tmp_path):
    endpoint, files = hub
    file = files/'liveportrait/base_models/appearance_feature_extractor.pth'
    file.write_bytes(file.read_bytes()[:-1] + b'x')
    with pytest.raises(ValueError, match='another SHA-256 came'): download_official(tmp_path/'new', endpoint=endpoint)
    assert not [f for f in (tmp_path/'new').rglob('*') if f.is_file()]


def test_download_without_a_network(tmp_path):
    with pytest.raises(ConnectionError, match='without a network, copy the files'):
        download_official(tmp_path/'new', endpoint='http://127.0.0.1:9')
    assert not (tmp_path/'new').exists()


# the fast networks

@pytest.mark.parametrize('r', [1, 2, 3, 4, 5])
def test_values_and_places(r):
    "Both tables, against convolutions of an enlarged row"
    row, kernel = torch.randn(1, 1, 6), torch.randn(1, 1, 3)
    wide = F.pad(row, (1, 1)).repeat_interleave(r, 2)
    first = F.conv1d(wide, kernel, padding=1)[..., r:-r]
    for p in range(r):
        alike = [q for q in range(r) if value(q, r) == value(p, r)]
        for q in alike: assert torch.equal(first[..., p::r], first[..., q::r])
        assert set(small_places(p, r)) <= {-1, 0, 1}
        assert [v//min(r, 3) for v in value_places(p, r)] == small_places(p, r)


@pytest.mark.parametrize('r, repeat, conv', [*product([1, 2, 4], [1, 2], [False, True])])
def test_enlarged_spade(r, repeat, conv):
    if r % repeat: pytest.skip('nothing to enlarge')
    torch.manual_seed(r)
    spade, V = SPADE(6, 5, 7), torch.nn.Conv2d(6, 3, 1, bias=False)
    f, x = torch.randn(2, 5, 4, 6), torch.randn(2, 6, 4*r//repeat, 6*r//repeat)
    y = spade(F.interpolate(x, scale_factor=repeat), f)
    want = V(y) if conv else F.leaky_relu(y, .2)
    found = EnlargedSPADE(spade, r, V if conv else None)(F.instance_norm(x), Views(last(f)))
    assert (found - want).abs().max() < 1e-4*want.std()


@pytest.mark.parametrize('far', [.01, .5, 3.])
def test_shifts_and_rows_are_sampling(far):
    generator = torch.Generator().manual_seed(0)
    block, shift = torch.randn(1, 3, 4, 6, 8, generator=generator), far*torch.randn(2, 5, 3, generator=generator)
    where = voxels(4, 6, 8, block) + shift[:, :, None, None, None]
    want = torch.stack([sample(block.expand(5, -1, -1, -1, -1), w) for w in where])
    assert (shifted(block, shift) - want).abs().max() < 2e-5
    table = block[0].flatten(1).T.contiguous()
    assert (read_rows(table, where[:, 0], (4, 6, 8)).movedim(-1, 1) - want[:, 0]).abs().max() < 2e-5


@pytest.mark.parametrize('sizes', [TINY, Sizes(size=32, width=8, channels=3, depth=2, blocks=1, motion_widths=(8, 8, 8),
                                              motion_depths=(1, 1, 1), flow_width=4, flow_limit=8, flow_blocks=3, spade=4,
                                              middle=1, upscale=1, points=5)], ids=['tiny', 'five points'])
@pytest.mark.parametrize('batch', [1, 3])
def test_fast_is_plain(sizes, batch):
    torch.manual_seed(1)
    model = LivePortrait(sizes).eval().requires_grad_(False)
    x = pictures(size=sizes.size)
    fast = FastLivePortrait(model, torch.float32)
    source = fast.source(x)
    x_d = source.points + .1*torch.randn(batch, sizes.points, 3)
    want = model.render(model.source(x), x_d)
    assert want.shape == (batch, 3, sizes.size*sizes.upscale, sizes.size*sizes.upscale)
    assert (fast.render(source, x_d) - want).norm() < 1e-4*want.norm()
    assert (fast.render(model.source(x), x_d) - want).norm() < 1e-4*want.norm()  # a plain source will do


def test_fast_has_the_methods(tiny):
    fast, x = FastLivePortrait(tiny, torch.float32), pictures()
    source = fast.source(x)
    assert isinstance(source, FastSource) and torch.equal(source.points, tiny.source(x).points)
    x_d, one = source.points + .1, torch.ones(1, 1)
    assert torch.equal(fast.stitch(source, x_d), tiny.stitch(source, x_d))
    assert torch.equal(fast.lip_offsets(source, one, one), tiny.lip_offsets(source, one, one))
    assert torch.equal(fast.eye_offsets(source, one.expand(1, 2), one), tiny.eye_offsets(source, one.expand(1, 2), one))
    assert faster_dtype() in (torch.float32, torch.bfloat16) and faster_dtype('cuda') == torch.float16


def test_fast_refuses(tiny):
    with pytest.raises(ValueError, match='call model.eval'): FastLivePortrait(LivePortrait(TINY))
    with pytest.raises(ValueError, match='dtype: one of'): FastLivePortrait(tiny, torch.float16)
    with pytest.raises(ValueError, match='x_d: holds NaN'):
        FastLivePortrait(tiny, torch.float32).render(tiny.source(pictures()), torch.full((1, 21, 3), float('nan')))


def test_summed_keeps_the_sum():
    w = torch.randn(2, 3, 3, 3)
    for p, q in product(range(4), range(4)):
        small = summed(w, small_places(p, 4), value_places(q, 4))
        assert torch.allclose(small.sum((-1, -2)), w.sum((-1, -2)), atol=1e-5)


# training and bad input

def test_gradients_reach_everything():
    torch.manual_seed(0)
    model, x = LivePortrait(TINY).train(), pictures(2)
    with torch.enable_grad():
        x_s, x_d = transform(read_heads(model.motion(x))), transform(read_heads(model.motion(x.flip(0))))
        out = model.generator(model.warping(model.appearance(x), x_d, x_s)['out'])
        out.pow(2).mean().backward()
    for name in ('appearance', 'motion', 'warping', 'generator'):
        for key, p in model.get_submodule(name).named_parameters():
            assert p.grad is not None and p.grad.isfinite().all(), f'{name}.{key}'


@pytest.mark.parametrize('x, message', [
    (torch.rand(1, 3, 64, 32), r'\(b, 3, 64, 64\) are wanted, not \(1, 3, 64, 32\)'), (torch.rand(1, 4, 64, 64), 'not'),
    (torch.rand(1, 3, 1, 1), 'not'), (torch.rand(3, 64, 64), 'not'), (torch.rand(0, 3, 64, 64), 'not'),
    (torch.rand(1, 3, 64, 64)*255, 'divide bytes by 255'), (torch.rand(1, 3, 64, 64) - 1, r'values in \[0, 1\]'),
    (torch.full((1, 3, 64, 64), float('nan')), 'holds NaN')])
def test_bad_pictures(tiny, x, message):
    with pytest.raises(ValueError, match=message): tiny.read(x)
    with pytest.raises(ValueError, match=message): FastLivePortrait(tiny, torch.float32).source(x)


@pytest.mark.parametrize('x', [np.zeros((1, 3, 64, 64)), torch.zeros(1, 3, 64, 64, dtype=torch.uint8), None])
def test_no_pictures(tiny, x):
    with pytest.raises(TypeError, match='a tensor of floats'): tiny.read(x)


@pytest.mark.parametrize('change, message', [
    (dict(size=100), 'Sizes.size: a multiple of 128 is wanted'), (dict(points=0), 'Sizes.points: 1 or more'),
    (dict(motion_depths=(1, 1)), 'Sizes.motion_depths: as many')])
def test_bad_sizes(change, message):
    with pytest.raises(ValueError, match=message): Sizes(**change)
