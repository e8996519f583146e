"""LivePortrait's training: true keypoints, losses, resumable stages, measures, and the weights that are given"""
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

from faceprivacy import train_liveportrait as training
from faceprivacy.core import load_tensors, path, read_json, save_tensors
from faceprivacy.faster_training import BASE, FourierConv, Muon, faster_mask, orthogonal, sorted_weights
from faceprivacy.keypoints import EYES, LIPS, Motion, read_heads, rotation, transform
from faceprivacy.portrait_losses import (GAPS, GUIDED, Perception, bend, bin_loss, cut, equivariance_loss, eye_maps,
                                         face_map, gaps, guide_loss, lip_map, pose_loss, prior_loss, truth_loss, wing)
from faceprivacy.portrait_metrics import (ACTS, acts, border_change, cross_scores, intervals, learn_sliders, people_of,
                                          play, posed, psnr, self_scores, wrapped_psnr, write_gif)
from faceprivacy.portrait_motion import load_networks
from faceprivacy.portrait_truth import (POINTS, Drawn, at_rest, check_drawn, chooser, draw, draw_clips, draw_stills,
                                        official, open_drawn, save_drawn)
from faceprivacy.recognition import open_recogniser
from faceprivacy.small_networks import (Reader, StageTwo, eye_boxes, lip_boxes, opened, openings, outside, teach_small,
                                        train_reader, train_small)
from faceprivacy.train_liveportrait import (DRAWS, StageOne, by_person, course, fresh, moved_by, polish, sample_pair,
                                            save_networks, shrunk, teach_motion, train_base, true_flow)
from faceprivacy.training import at_step
from faceprivacy.warping import voxels

WEIGHTS = path('data/networks/liveportrait')


@pytest.fixture(scope='module')
def data(): return draw_stills(6, 2, 64, 3)


@pytest.fixture(scope='module')
def recogniser(): return open_recogniser('small', path('data/networks/small.safetensors'))


def untaught():
    "A reader, the same each time"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Reader().eval().requires_grad_(False)


@pytest.fixture(scope='module')
def given():
    "The networks that come with the repository"
    torch.set_grad_enabled(False)
    yield load_networks(WEIGHTS, dtype=torch.float32)
    torch.set_grad_enabled(True)


# the truth

def test_true_keypoints_lie_where_the_camera_sees_them(data):
    seen, placed = chooser() @ data.marks, transform(data.motion)[..., :2]
    error = (seen - placed).norm(dim=-1)
    inner = [k for k in EYES + LIPS if k not in (11, 15)]  # those two follow the gaze
    assert error[:, inner].max() < .05 and error.mean() < .02
    wrong = transform(replace(data.motion, yaw=-data.motion.yaw))[..., :2]  # a wrong sign is seen at once
    assert (seen - wrong).norm(dim=-1).mean() > 3*error.mean()


def test_expression_is_in_delta_and_identity_in_the_canonical_keypoints(data):
    assert torch.equal(data.kp[0], data.kp[1]) and not torch.equal(data.kp[0], data.kp[2])
    clip = draw_clips(1, 4, 48, 5)
    assert clip.exp[::4].abs().max() < .02 < clip.exp.abs().max()
    assert clip.angle[::4].abs().max() < 1e-3


def test_every_weight_of_a_keypoint_belongs_to_its_region():
    assert len(POINTS) == 21
    assert torch.allclose(chooser().sum(1), torch.ones(21))
    for up, low in GAPS: assert min(POINTS[up]) < min(POINTS[low])


@pytest.mark.parametrize('change, says', [
    (dict(kp=torch.zeros(12, 20, 3)), 'kp: '), (dict(marks=torch.full((12, 68, 2), float('nan'))), 'marks holds NaN'),
    (dict(image=torch.zeros(12, 4, 64, 64, dtype=torch.uint8)), 'image: bytes'), (dict(scale=torch.ones(3, 1)), 'scale'),
    (dict(image=torch.zeros(12, 3, 64, 64)), 'image: bytes'), (dict(person=torch.zeros(12)), 'person: torch.int64'),
    (dict(alpha=torch.zeros(12, 1, 8, 64, dtype=torch.uint8)), 'alpha: ')])
def test_data_that_is_not_whole_is_named(data, change, says):
    broken = Drawn(**vars(data) | change)
    for use in (check_drawn, by_person, lambda d: train_reader(d, d.person.unique(), 1)):
        with pytest.raises(ValueError, match=says): use(broken)


@pytest.mark.parametrize('frames, options, says', [
    (torch.full((3, 3, 8, 8), float('nan')), {}, 'finite'), (torch.zeros(3, 3, 8, 8, dtype=torch.uint8), {}, 'uint8'),
    (torch.zeros(1, 3, 8, 8), {}, 'two or more'), (torch.zeros(3, 3, 8, 8), dict(fps=0), 'fps: more than 0')])
def test_a_film_of_nothing_is_not_written(tmp_path, frames, options, says):
    with pytest.raises(ValueError, match=says): write_gif(tmp_path/'a.gif', frames, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('use, says', [
    (lambda d: draw_stills(2, 0, 64, 1), 'each: 1 or more'), (lambda d: draw_clips(2, 0, 64, 1), 'frames: 1 or more'),
    (lambda d: psnr(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 5, 5)), 'pictures of one size'),
    (lambda d: train_small(fresh('tiny', 0), Reader(), d, 1, batch=1), 'who drive each other')])
def test_numbers_that_cannot_be(data, use, says):
    with pytest.raises(ValueError, match=says): use(data)


def test_a_file_of_something_else_is_no_data(tmp_path, data):
    save_drawn(tmp_path/'a.safetensors', data)
    assert torch.equal(open_drawn(tmp_path/'a.safetensors').image, data.image)
    save_tensors(tmp_path/'b.safetensors', image=data.image)
    with pytest.raises(ValueError, match='not drawn portraits'): open_drawn(tmp_path/'b.safetensors')
    (tmp_path/'c.safetensors').write_bytes(b'\0'*64)
    with pytest.raises(ValueError, match='c.safetensors'): open_drawn(tmp_path/'c.safetensors')
    with pytest.raises(FileNotFoundError): open_drawn(tmp_path/'d.safetensors')


# losses

def test_truth_costs_nothing(data):
    m = data.motion
    assert truth_loss(m, m) == 0 and pose_loss(m, m) == 0 and guide_loss(transform(m), data.marks) < .4
    for name in ('kp', 'exp', 'scale', 't'):
        assert truth_loss(replace(m, **{name: getattr(m, name) + .1}), m) > .09


def test_a_blink_counts_though_it_moves_few_coordinates(data):
    m, R = data.motion, rotation(*data.angle.T)
    shut = m.exp.clone()
    shut[:, 11] += .02*R[:, 1]  # down in the head's frame
    assert torch.allclose(gaps(replace(m, exp=shut), R)[:, 0], gaps(m, R)[:, 0] - .02, atol=1e-5)
    assert truth_loss(replace(m, exp=shut), m) > 10*2*F.l1_loss(shut, m.exp)


@pytest.mark.parametrize('yaw', [-97.5, -40., 0., 1.5, 97.5])
def test_bins_are_least_at_the_truth(yaw):
    angle = torch.tensor([yaw])
    m = Motion(torch.zeros(1, 21, 3), angle, angle, angle, torch.zeros(1, 3), torch.zeros(1, 21, 3), torch.ones(1, 1))
    heads = {n: torch.zeros(1, 66, requires_grad=True) for n in ('pitch', 'yaw', 'roll')}
    bin_loss(heads, m).backward()
    i = round((yaw + 97.5)/3 - .01)
    assert heads['yaw'].grad[0].argmin().item() in (i, i + 1)  # there the logit should grow
    assert abs(heads['yaw'].grad.sum()) < 1e-6


def test_a_bent_picture_and_its_points_agree(data):
    T = bend(len(data), torch.Generator().manual_seed(1))
    y = transform(data.motion)
    z = y[..., :2].clone()
    for _ in range(100): z = z - .5*(T(z) - y[..., :2])  # the inverse of T
    back = torch.cat([z, y[..., 2:]], -1)
    assert equivariance_loss(y, back, T) < 2e-3 < .02 < equivariance_loss(y, y, T)


def test_wing_is_continuous_and_even():
    d = torch.linspace(-.3, .3, 6001)
    assert wing(d).diff().abs().max() < 2e-3 and torch.allclose(wing(d), wing(-d))
    assert len(GUIDED) == 10 and set(GUIDED) <= {*EYES, *LIPS}


def test_points_in_one_place_are_pushed_apart():
    y = torch.randn(2, 21, 3, requires_grad=True)
    close = y.clone()
    close[:, 4] = y[:, 9].detach() + .01
    pull, = torch.autograd.grad(prior_loss(close), y)
    assert (pull[:, 9] != 0).any() and (pull[:, 2] == 0).all()


def test_regions_are_upright_faces(data):
    M = face_map(data.marks)
    turned = replace(data, marks=data.marks @ rotation(*torch.tensor([[0.], [0.], [30.]]))[0, :2, :2])
    ratio = face_map(turned.marks)[:, :, :2].det()/M[:, :, :2].det()
    assert torch.allclose(ratio, torch.ones(len(data)), atol=1e-4)  # the same size, turned
    assert cut(data.pictures, lip_map(data.marks), 48).shape == (12, 3, 48, 48)


def test_the_eyes_are_cut_where_they_are(data):
    M = eye_maps(data.marks)
    left, right = M.split(len(data))
    for part, i in ((left, 36), (right, 42)):
        inside = (data.marks[:, i:i + 6] - part[:, None, :, 2]) @ torch.linalg.inv(part[:, :, :2]).mT
        assert inside.abs().max() < 1.2 and inside.abs().max() > .4  # an eye fills its square, and little lies beyond


def test_a_critic_of_perception_never_changes_the_recogniser(recogniser, data):
    see = Perception(recogniser).train()
    before = {k: v.clone() for k, v in see.state_dict().items()}
    see(cut(data.pictures, face_map(data.marks), 112))
    assert all(torch.equal(v, before[k]) for k, v in see.state_dict().items())


# faster training

@pytest.mark.parametrize('shape, k', [((4, 24, 24), 7), ((1, 5, 8), 3), ((3, 7, 6), 5), ((2, 2, 2), 7)])
def test_a_convolution_by_fourier_transforms_is_a_convolution(shape, k):
    conv = nn.Conv3d(2, 3, k, padding=k//2).double()
    x = torch.randn(2, 2, *shape, dtype=torch.double, requires_grad=True)
    plain = torch.autograd.grad(conv(x).sin().sum(), [x, conv.weight, conv.bias])
    conv.__class__ = FourierConv
    fast = torch.autograd.grad(conv(x).sin().sum(), [x, conv.weight, conv.bias])
    for a, b in zip(plain, fast): assert torch.allclose(a, b, atol=1e-4*b.abs().max())


def test_the_mask_is_itself_again_after_an_error():
    model = fresh('tiny', 0)
    mask = model.warping.dense_motion_network.mask
    with pytest.raises(RuntimeError), faster_mask(model):
        assert type(mask) is FourierConv
        raise RuntimeError
    assert type(mask) is nn.Conv3d


@pytest.mark.parametrize('shape', [(8, 8), (4, 30), (30, 4), (1, 9)])
def test_orthogonal_steps_have_even_singular_values(shape):
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    s = torch.linalg.svdvals(orthogonal(g))
    assert s.min() > .4 and s.max() < 1.3


def test_muon_moves_alike_kernels_as_if_each_were_alone():
    g = torch.Generator().manual_seed(3)
    shapes = [(4, 3, 3, 3), (6, 5), (4, 27), (4, 3, 3, 3)]
    start, slopes = ([torch.randn(s, generator=g) for s in shapes] for _ in range(2))
    def moved(groups):
        weights = [w.clone().requires_grad_() for w in start]
        for w, slope in zip(weights, slopes): w.grad = slope.clone()
        for group in groups:
            descent = Muon([weights[i] for i in group], .1)
            for _ in range(3): descent.step()
        return weights
    for a, b in zip(moved([[0, 1, 2, 3]]), moved([[0], [1], [2], [3]])): assert torch.allclose(a, b, atol=1e-5)


def test_muon_learns_small_directions_that_adam_leaves():
    def error(optimiser, lr):
        g = torch.Generator().manual_seed(2)
        goal, scales, W = torch.randn(8, 16, generator=g), torch.logspace(0, -2, 16), torch.zeros(8, 16).requires_grad_()
        o = optimiser([W], lr)
        for k in range(80):
            x = torch.randn(32, 16, generator=g)*scales
            F.mse_loss(x @ W.T, x @ goal.T).backward()
            for group in o.param_groups: group['lr'] = lr*(1 - k/80)
            o.step(), o.zero_grad()
        return (W - goal)[:, -4:].square().mean().item()
    assert error(Muon, .3) < .7*min(error(torch.optim.Adam, lr) for lr in (.01, .05))


def test_every_weight_is_trained_once():
    model = fresh('tiny', 0)
    kernels, others = sorted_weights(model)
    every = [p for n in BASE for p in model.get_submodule(n).parameters()]
    assert sorted(map(id, kernels + others)) == sorted(map(id, every))
    assert all(p.ndim > 1 for p in kernels)


# stage I

def test_pictures_and_truth_move_together(data):
    zoom, shift = torch.full((12, 1), .8), torch.tensor([[.1, -.05]]).expand(12, 2)
    moved = moved_by(data.alpha.float(), zoom, shift)
    line = (torch.arange(64) + .5)/32 - 1
    def centre(a): return torch.stack([(a*line).sum((1, 2, 3)), (a*line[:, None]).sum((1, 2, 3))], 1)/a.sum((1, 2, 3))[:, None]
    inside = moved[:, :, [0, -1]].sum((1, 2, 3)) + moved[..., [0, -1]].sum((1, 2, 3)) == 0
    assert inside.any()
    wanted = .8*centre(data.alpha.float()) + shift
    assert (centre(moved) - wanted)[inside].abs().max() < .02


def test_the_true_flow_takes_keypoints_to_keypoints_and_leaves_the_border(data):
    p = sample_pair(data, by_person(data), 4, at_step(0, 0))
    for i in range(4):
        x = transform(p.m_d[i])[0]
        found = true_flow(p.m_s[i], p.m_d[i], x[None, None])[0, 0, 0]
        assert (found - transform(p.m_s[i])[0]).norm(dim=-1).mean() < .05
    grid = voxels(4, 16, 16, like=p.x_s)
    corner = true_flow(p.m_s, p.m_d, grid)[:, :, 0, 0]
    assert (corner - grid[:, 0, 0]).abs().max() < 5e-3


def test_the_course_begins_with_the_truth_and_ends_without():
    assert course(0.) == dict(teach=1, teach_flow=1, follow=1) and course(1.) == dict(teach=0, teach_flow=0, follow=0)
    for name in course(0.): assert all(course(t)[name] >= course(t + .01)[name] for t in np.arange(0, .99, .01))


def test_a_killed_training_ends_with_the_same_bits(tmp_path, data, recogniser):
    def train(folder, stop=None):
        net = fresh('tiny', 1)
        def watch(k, *_):
            if k == stop: raise KeyboardInterrupt
        try: train_base(net, recogniser, untaught(), data, 4, 2, checkpoint=folder, every=2, watch=watch)
        except KeyboardInterrupt: pass
        return net.state_dict()
    train(tmp_path/'a', stop=3)
    assert [f.name for f in (tmp_path/'a').iterdir()] == ['after_0000002']
    again, whole = train(tmp_path/'a'), train(tmp_path/'b')
    assert all(torch.equal(v, whole[k]) for k, v in again.items())
    with pytest.raises(ValueError, match='lr was 0.001, is 0.01'):
        train_base(fresh('tiny', 1), recogniser, untaught(), data, 4, 2, lr=.01, checkpoint=tmp_path/'a')
    next((tmp_path/'a').glob('after_*/model.safetensors')).write_bytes(b'torn')
    with pytest.raises(ValueError, match='damaged checkpoint'):
        train_base(fresh('tiny', 1), recogniser, untaught(), data, 4, 2, checkpoint=tmp_path/'a')


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, data, recogniser, monkeypatch):
    train = lambda steps: train_base(fresh('tiny', 1), recogniser, untaught(), data, 4, 2, checkpoint=tmp_path, every=2)
    real, calls = training.save_checkpoint, []
    def full(accelerator, folder, history, settings):
        calls.append(len(history))
        if len(history) > 2:
            (folder/'new.tmp').mkdir(exist_ok=True), (folder/'new.tmp'/'half').touch()
            raise OSError(28, 'No space left on device')
        real(accelerator, folder, history, settings)
    monkeypatch.setattr(training, 'save_checkpoint', full)
    with pytest.raises(OSError, match='No space'): train(4)
    assert (tmp_path/'after_0000002').is_dir() and not (tmp_path/'after_0000004').exists()
    monkeypatch.undo()
    assert len(train(4)) == 4  # and goes on from there


@pytest.mark.parametrize('change, says', [(dict(steps=0), 'steps: 1 or more'), (dict(batch=99), 'batch: 1 to 6 people')])
def test_a_training_that_cannot_be_says_why(data, recogniser, change, says):
    with pytest.raises(ValueError, match=says): train_base(
        fresh('tiny', 0), recogniser, untaught(), data, **dict(steps=1, batch=2) | change)


def test_one_picture_of_a_person_makes_no_pair(data, recogniser):
    with pytest.raises(ValueError, match='two or more pictures'): train_base(
        fresh('tiny', 0), recogniser, untaught(), data[::2], 1)
    with pytest.raises(ValueError, match='network: one of'): fresh('huge', 0)


def test_teaching_m_alone_moves_nothing_else(data):
    model = fresh('tiny', 2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    history = teach_motion(model, data, 25, 3)
    changed = {k.split('.')[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {'motion'}
    assert sum(h['truth'] for h in history[-5:]) < .8*sum(h['truth'] for h in history[:5])


def test_a_loss_that_is_no_number_ends_the_training(data, recogniser, tmp_path):
    model = fresh('tiny', 0)
    nn.init.constant_(model.generator.fc.bias, float('nan'))
    with pytest.raises(FloatingPointError, match='lower lr'):
        train_base(model, recogniser, untaught(), data, 2, 2, checkpoint=tmp_path, every=1)
    assert not list(tmp_path.glob('after_*'))
    with pytest.raises(FloatingPointError, match='lower lr'): polish(model, untaught(), data, 1, 2)


def test_one_pair_is_learned_by_heart(data, recogniser):
    torch.manual_seed(0)
    model = fresh('tiny', 3)
    history = train_base(model, recogniser, untaught(), data[:4], 16, 2, lr=3e-3)
    assert sum(h['pixel'] for h in history[-5:]) < .75*sum(h['pixel'] for h in history[:5])


def test_polishing_moves_what_draws_towards_the_pixels(data):
    model = fresh('tiny', 3)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    history = polish(model, untaught(), data, 16, 2, lr=2e-3)
    assert {k.split('.')[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])} == set(DRAWS)
    assert sum(h['pixel'] for h in history[-5:]) < .9*sum(h['pixel'] for h in history[:5])
    assert not model.training and all(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match='steps: 1 or more'): polish(model, untaught(), data, 0)


# stage II

def test_masks_keep_what_must_stay(data):
    eyes, lips, out = eye_boxes(data.marks, 64), lip_boxes(data.marks, 64), outside(data.motion, 64)
    assert 0 < eyes.mean() < .15 and 0 < lips.mean() < .15
    assert (data.alpha.float()/255*out).mean() < .01 and out.mean() > .2
    assert (eyes*out).sum() == 0


def test_small_networks_alone_learn(data):
    model = fresh('tiny', 0)
    reader = train_reader(data, data.person.unique(), 3, 8)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    history = train_small(model, reader, data, 2, 3)
    assert {k.split('.')[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])} == {
        'stitching', 'eyes', 'lip'}
    assert history[0]['stitch_calm'] == history[0]['eyes_keep'] == history[0]['lip_calm'] == 0
    assert not any(p.requires_grad for p in model.parameters())


def test_directions_open_eyes_and_lips():
    d = draw_stills(12, 4, 32, 4)
    ways, m, R = openings(d), d.motion, rotation(*d.angle.T)
    wanted = torch.full_like(d.ratios, .3)
    moved = replace(m, exp=m.exp + opened(m, wanted - d.ratios, ways)/m.scale[:, None])
    before, after = gaps(m, R), gaps(moved, R)
    for k in range(3): assert np.corrcoef((after - before)[:, k], (wanted - d.ratios)[:, k])[0, 1] > .85
    assert after[:, 2].std() < .6*before[:, 2].std()  # mouths of one ratio have about one opening


def test_directions_are_learned_by_two_networks_alone(data):
    model = fresh('tiny', 0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    errors = teach_small(model, data, 150, 16)
    assert sum(errors[-10:]) < .7*sum(errors[:10])
    assert {k.split('.')[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])} == {'eyes', 'lip'}
    with pytest.raises(ValueError, match='steps: 1 or more'): teach_small(model, data, 0)
    with pytest.raises(ValueError, match='batch of 1 or more'): teach_small(model, data, 1, 0)


def test_asking_for_more_pushes_the_offsets(data):
    model, reader = fresh('tiny', 0), Reader().eval().requires_grad_(False)
    stage = StageTwo(model, reader)
    p = sample_pair(data, by_person(data), 3, at_step(0, 0))
    stage(p, p.m_d[[1, 2, 0]], data[p.rows[:, 0]].ratios, at_step(0, 1))['eyes_ask'].backward()
    assert model.eyes.mlp[-1].bias.grad.abs().sum() > 0


# files

def test_networks_come_back_from_their_folder(tmp_path):
    model = fresh('tiny', 4)
    nn.init.normal_(model.stitching.mlp[-1].bias)
    save_networks(model, tmp_path, dict(what='a test'))
    loaded = load_networks(tmp_path, dtype=torch.float32)
    assert loaded.sizes == model.sizes and read_json(tmp_path/'card.json')['what'] == 'a test'
    for k, v in model.state_dict().items(): assert torch.allclose(loaded.model.state_dict()[k].float(), v.float(), atol=2e-3)
    (tmp_path/'sizes.json').write_text('{"size": 128}')
    with pytest.raises(ValueError, match='does not fit'): load_networks(tmp_path)


# measures

def test_psnr_is_the_one_of_scikit_image(data):
    x = data.pictures
    noisy = (x + .05*torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    theirs = [peak_signal_noise_ratio(a.double().numpy(), b.double().numpy(), data_range=1) for a, b in zip(x, noisy)]
    assert np.allclose(psnr(noisy, x), theirs, atol=1e-3)


def test_wrapping_bytes_hides_any_error():
    x = torch.zeros(1, 3, 8, 8)
    assert wrapped_psnr(x, x + 16/255) > 100  # 16 squared is 256, which wraps to nothing
    assert math.isclose(psnr(x, x + 16/255).item(), -20*math.log10(16/255), abs_tol=1e-3)


def test_intervals_hold_the_mean_and_repeat():
    rows = [dict(a=float(v)) for v in range(10)]
    found = intervals(rows, np.random.default_rng(0))['a']
    assert found == intervals(rows, np.random.default_rng(0))['a']
    assert found['low'] < found['value'] == 4.5 < found['high']


def test_expression_is_read_whatever_the_pose(data):
    m = data.motion
    turned = replace(m, yaw=m.yaw + 20, exp=m.exp @ rotation(m.pitch, m.yaw, m.roll).mT
                     @ rotation(m.pitch, m.yaw + 20, m.roll))
    for n in ('jaw', 'blink'): assert torch.allclose(acts(m)[n], acts(turned)[n], atol=1e-5)


def test_sliders_are_the_expressions(data):
    sliders = learn_sliders(draw_stills(4, 12, 32, 8))
    assert set(sliders) == {*ACTS, 'wide'}
    rest = Motion(*(v[:1] for v in vars(data.motion).values()))
    opened = posed(rest, sliders, jaw=1.)
    assert acts(opened)['jaw'] > acts(rest)['jaw'] + .08
    assert acts(posed(rest, sliders, blink_left=1., blink_right=1.))['blink'] > acts(rest)['blink'] + .01


def test_a_moving_picture_says_what_it_is(tmp_path):
    from PIL import Image
    write_gif(tmp_path/'a.gif', torch.rand(3, 3, 32, 32))
    with Image.open(tmp_path/'a.gif') as p: assert p.n_frames == 3 and b'nthetic' in p.info['comment']
    with pytest.raises(ValueError, match='two or more'): write_gif(tmp_path/'b.gif', torch.rand(3, 32, 32))
    assert not (tmp_path/'b.gif').exists()


# the weights that are given

def test_the_given_weights_are_small_and_say_what_they_are():
    assert sum(f.stat().st_size for f in WEIGHTS.rglob('*') if f.is_file()) < 8e6
    card = read_json(WEIGHTS/'card.json')
    assert {'parameters', 'log', 'metrics', 'licence', 'use'} <= set(card)
    assert 'seed' in card['parameters'] and len(card['log']) > 10


def test_the_given_weights_move_people_they_never_saw(given):
    clips = people_of(draw_clips(3, 6, given.sizes.size, 4321))
    found = intervals([self_scores(given, c) for c in clips], np.random.default_rng(0), 50)
    assert found['psnr_gain']['value'] > 1.5
    for n in ('yaw', 'pitch'): assert found[f'{n}_follows']['value'] > .85
    still = play(given, clips[0].pictures[:1], clips[1].pictures[[0]])
    assert psnr(still.frames, clips[0].pictures[:1]).item() > 15


def test_the_given_reader_reads(given):
    clip = draw_clips(3, 6, given.sizes.size, 99)
    reader = Reader().eval()
    reader.load_state_dict(load_tensors(WEIGHTS/'reader.safetensors'))
    read = reader(cut(clip.pictures, face_map(clip.marks), 112))
    for a, b in zip(read.T, clip.ratios.T): assert np.corrcoef(a, b)[0, 1] > .8
