"Implicit keypoints and following a driver: the official values, limit cases, and what wrong input says"
from dataclasses import replace
from itertools import product
from pathlib import Path
import numpy as np, pytest, torch
from golden_rule import assert_golden, golden_input, rng
from scipy.spatial.transform import Rotation
from faceprivacy.driving import (ABSOLUTE, REGIONS, Drive, moved, nearest_rotation, openness, retargeting_input,
                                 size_ratio, smooth, stitched, stitching_input)
from faceprivacy.keypoints import (EDITS, EYES, LIPS, SLIDERS, Motion, angles, edit, hand_made, headpose_degrees, place,
                                   read_heads, rotation, transform)

@pytest.fixture(scope='module')
def golden():
    with np.load(Path(__file__).parent/'golden/keypoints.npz') as f: return dict(f)

@pytest.fixture
def generator(): return torch.Generator().manual_seed(0)

def motion(n, generator, dtype=torch.float64):
    noise = lambda *shape, size=1.: size*torch.randn(*shape, generator=generator, dtype=dtype)
    return Motion(noise(n, 21, 3, size=.3), *noise(3, n, size=15), noise(n, 3, size=.1), noise(n, 21, 3, size=.02),
                  1.4 + noise(n, 1, size=.1))

@pytest.fixture
def source(generator): return motion(1, generator)

@pytest.fixture
def driver(generator): return motion(9, generator)

# the official code

def test_degrees(golden):
    assert_golden(headpose_degrees(golden_input('input.headpose_logits', (4, 66))), golden, 'camera.degree', 1e-5)

def golden_angles(): return torch.from_numpy((rng('input.angles').random((4, 3)) - .5)*90).float().T

def test_rotation(golden): assert_golden(rotation(*golden_angles()), golden, 'camera.rotation', 1e-5)

def test_transform(golden):
    draw = lambda name, shape: torch.from_numpy(rng(f'input.{name}').random(shape)).float()
    normal = lambda name, shape: torch.from_numpy(rng(f'input.{name}').standard_normal(shape)).float()
    m = Motion(draw('kp_canonical', (4, 21, 3)) - .5, *golden_angles(), .1*normal('t', (4, 3)),
               .05*normal('exp', (4, 21, 3)), 1 + draw('scale', (4, 1)))
    assert_golden(transform(m), golden, 'camera.transform_keypoint', 1e-5)

def test_published_vectors():
    R = rotation(*torch.tensor([[10.], [20], [30]]))[0]
    want = [[.813798, .469846, -.342020], [-.440970, .882564, .163176], [.378522, .018028, .925417]]
    assert (R - torch.tensor(want)).abs().max() < 1e-6

# pose and places

def test_angles_invert_rotation(generator):
    turns = (torch.rand(3, 500, generator=generator, dtype=torch.double) - .5)*torch.tensor([[350.], [178], [350]])
    assert (torch.stack(angles(rotation(*turns))) - turns).abs().max() < 1e-8
    by_scipy = Rotation.from_euler('xyz', turns.T.numpy(), degrees=True).as_matrix()
    assert np.abs(rotation(*turns).mT.numpy() - by_scipy).max() < 1e-12

def test_nearest_rotation_is_one_and_is_nearest(generator):
    m = rotation(*torch.randn(3, 50, generator=generator, dtype=torch.double)*30)
    noisy = m + .05*torch.randn(50, 3, 3, generator=generator, dtype=torch.double)
    near = nearest_rotation(noisy)
    assert (near @ near.mT - torch.eye(3)).abs().max() < 1e-12 and (near.det() - 1).abs().max() < 1e-12
    assert ((near - noisy).flatten(1).norm(dim=1) <= (m - noisy).flatten(1).norm(dim=1)).all()
    assert (nearest_rotation(-torch.eye(3)[None]).det() - 1).abs() < 1e-6  # no mirror image

def test_whole_turn_of_the_head_keeps_distances(source):
    flat = replace(source, exp=0*source.exp, t=0*source.t)
    turned = replace(flat, yaw=flat.yaw + 70)
    assert (torch.cdist(transform(flat)[0], transform(flat)[0])
            - torch.cdist(transform(turned)[0], transform(turned)[0])).abs().max() < 1e-12

def test_gradients_reach_every_part(source):
    leaves = source.map(lambda v: v.clone().requires_grad_())
    transform(leaves).square().sum().backward()
    assert all(v.grad.abs().sum() > 0 for v in vars(leaves).values())

def test_heads_of_another_number_of_keypoints():
    heads = dict(pitch=torch.zeros(2, 66), yaw=torch.zeros(2, 1), roll=torch.zeros(2), t=torch.zeros(2, 3),
                 exp=torch.zeros(2, 30), kp=torch.zeros(2, 10, 3), scale=torch.ones(2, 1))
    assert transform(read_heads(heads)).shape == (2, 10, 3)
    with pytest.raises(ValueError, match=r'bins: shape \(b, 66\)'): read_heads(dict(heads, yaw=torch.zeros(2, 62)))
    with pytest.raises(ValueError, match=r"heads: \['kp'\] missing"): read_heads({k: v for k, v in heads.items() if k != 'kp'})

@pytest.mark.parametrize('change, message', [
    (dict(kp=torch.zeros(9, 20, 3)), r'Motion.kp: shape \(9, 21, 3\) is wanted, as of exp, not \(9, 20, 3\)'),
    (dict(yaw=torch.zeros(9, 1)), r'Motion.yaw: shape \(9,\)'), (dict(t=torch.zeros(9, 2)), r'Motion.t: shape \(9, 3\)'),
    (dict(scale=torch.ones(9)), r'Motion.scale: shape \(9, 1\)'), (dict(exp=None), 'Motion.exp: a tensor .* not NoneType'),
    (dict(exp=torch.zeros(9, 63)), r'Motion.exp: a tensor \(b, k, 3\)'), (dict(roll=3.), 'Motion.roll: .* not float')])
def test_motions_refused(driver, change, message):
    with pytest.raises(ValueError, match=message): replace(driver, **change)

# sliders

def test_every_slider_moves_something_and_has_a_range():
    still = transform(hand_made())
    for name, (low, high) in SLIDERS.items():
        for value in (low, high):
            moved_by = (transform(edit(hand_made(), **{name: value})) - still).abs().max()
            assert moved_by > 1e-4 or not value, name
        with pytest.raises(ValueError, match=f'{name}: a number from'): edit(hand_made(), **{name: high + .01})
        with pytest.raises(ValueError, match=f'{name}: a number from'): edit(hand_made(), **{name: float('nan')})

@pytest.mark.parametrize('slider, value, spot, shift', [
    ('smile', 1., (20, 1), -.01), ('smile', 1., (17, 2), .003), ('smile', 1., (7, 1), -.0035), ('move_x', .1, (5, 0), -.1),
    ('move_y', .1, (5, 1), .1), ('gaze_x', 10., (15, 0), .01), ('gaze_x', -10., (15, 0), -.007), ('gaze_y', 20., (11, 1), -.01),
    ('gaze_y', 20., (16, 1), -.003), ('eyebrow', 10., (1, 1), .01), ('eyebrow', 10., (1, 0), 0), ('eyebrow', -10., (1, 0), .01),
    ('eyebrow', -10., (1, 1), -.003), ('wink', 10., (17, 0), .003), ('pouting', .05, (19, 0), .05), ('grin', 10., (20, 2), -.01),
    ('pursing', 10., (3, 1), -.005), ('lip', 100., (19, 2), .01)])
def test_slider_shifts(slider, value, spot, shift):
    assert edit(hand_made(), **{slider: value}).exp[0][spot].item() == pytest.approx(shift, abs=1e-7)

# driving

def by_hand(d, s, m, i):
    "Equation 7 for frame i and the rules of sections on regions, in numpy, one frame at a time"
    R = lambda m, i: Rotation.from_euler('xyz', [[a[i].item() for a in (m.pitch, m.yaw, m.roll)]], degrees=True).as_matrix()[0]
    n = lambda v: v.numpy()
    part, rel = moved(d.region, d.relative).numpy(), d.relative
    turn = R(m, i).T @ R(m, 0) @ R(s, 0).T if rel else R(m, i).T
    exp = n(s.exp[0]) + n(m.exp[i]) - n(m.exp[0]) if rel else n(m.exp[i])
    t = n(s.t[0]) + n(m.t[i]) - n(m.t[0]) if rel else n(m.t[i])
    scale = s.scale.item()*(m.scale[i].item()/m.scale[0].item() if rel and d.region == 'all' else 1)
    if d.region not in ('all', 'pose'): turn, t = R(s, 0).T, n(s.t[0])
    x = scale*(n(s.kp[0]) @ turn + np.where(part, exp, n(s.exp[0])))
    x[:, :2] += t[:2]
    return torch.from_numpy(x)

@pytest.mark.parametrize('region, relative', list(product(REGIONS, [True, False])))
def test_every_region_by_hand(region, relative, source, driver):
    d = Drive(region=region, relative=relative, friendly='pose')
    x = d.keypoints(source, driver)
    for i in range(len(driver)): assert (x[i] - by_hand(d, source, driver, i)).abs().max() < 1e-12

@pytest.mark.parametrize('region', REGIONS)
def test_relative_motion_starts_at_the_source_and_needs_no_face(region, source, driver):
    d = Drive(region=region)
    x = d.keypoints(source, driver)
    assert (x[0] - transform(source)[0]).abs().max() < 1e-12
    assert torch.equal(d.keypoints(source, replace(driver, kp=None)), x)
    assert torch.equal(replace(d, friendly='pose').keypoints(source, driver), x), 'the option changes nothing here'

def test_own_motion_gives_the_own_frames(driver):
    assert (Drive().keypoints(driver[0], replace(driver, kp=driver.kp[[0]*9]))
            - transform(replace(driver, kp=driver.kp[[0]*9]))).abs().max() < 1e-12

def test_absolute_keeps_what_shows_the_face(source, driver):
    other = replace(driver, exp=torch.where(ABSOLUTE, driver.exp, 0), scale=driver.scale + 1)
    d = Drive(relative=False, friendly='pose')
    assert torch.equal(d.keypoints(source, driver), d.keypoints(source, other))

def test_pieces_of_a_clip(source, driver):
    for d in (Drive(), Drive(relative=False), Drive(relative=False, region='lip')):
        pieces = [d.keypoints(source, driver[i:i + 4], driver[0]) for i in (0, 4, 8)]
        assert (torch.cat(pieces) - d.keypoints(source, driver)).abs().max() < 1e-12

def test_hold_keeps_the_sources_expression(source, driver):
    x = Drive(region='exp', hold=('eyes', 'lip')).keypoints(source, driver)
    still = (x - transform(source)).abs().amax((0, 2)) < 1e-12
    assert still.nonzero().flatten().tolist() == sorted(EYES + LIPS)

def test_scale_ratio(source, driver):
    x = Drive(scale_ratio=False).keypoints(source, driver)
    assert (x - Drive().keypoints(source, replace(driver, scale=driver.scale[[0]*9]))).abs().max() < 1e-12

def test_still_picture_moves_no_head(source, driver):
    x = Drive().still(source, driver[4])
    assert (x - source.scale*driver.exp[4] - transform(source)).abs().max() < 1e-12
    neutral = torch.full((1, 21, 3), .01)
    assert (x - Drive().still(source, driver[4], neutral) - .01*source.scale).abs().max() < 1e-8
    eyes = Drive(region='eyes')
    assert torch.equal(eyes.still(source, driver[4], neutral), eyes.still(source, driver[4]))

def test_video_follows_video(generator, driver):
    clip = motion(7, generator)
    x = Drive().video(clip, driver, observation=1e-13)
    exp = torch.where(ABSOLUTE, clip.exp + driver.exp[:7] - driver.exp[0], clip.exp)
    turns = [rotation(m.pitch, m.yaw, m.roll) for m in (driver[:7], driver[0], clip)]
    want = place(clip.kp, turns[0] @ turns[1].mT @ turns[2], exp, clip.scale, clip.t)
    assert (x - want).abs().max() < 1e-5
    still = clip[[0]*7]
    smoothed, rough = (Drive().video(still, driver, observation=r).diff(dim=0).norm() for r in (1e-2, 3e-7))
    assert smoothed < rough/2

# smoothing

def kalman(y, r, q):
    z, p = [y[0]], [r/(1 + r)]
    for v in y[1:]:
        gain = (p[-1] + q)/(p[-1] + q + r)
        z, p = z + [z[-1] + gain*(v - z[-1])], p + [gain*r]
    for i in range(len(y) - 2, -1, -1): z[i] = z[i] + p[i]/(p[i] + q)*(z[i + 1] - z[i])
    return torch.stack(z)

@pytest.mark.parametrize('n', [1, 2, 3, 50])
@pytest.mark.parametrize('r', [3e-7, 3e-6, 1e-3])
def test_smoothing_is_the_kalman_smoother(n, r, generator):
    y = torch.randn(n, 2, 3, generator=generator, dtype=torch.double)
    assert (smooth(y, r) - kalman(y, r, 1e-5)).abs().max() < 1e-11
    assert smooth(y.float(), r).dtype == torch.float32

def test_constant_stays_and_less_trust_is_smoother(generator):
    assert (smooth(torch.full((20, 4), 3.)) - 3).abs().max() < 1e-6
    y = torch.randn(200, generator=generator)
    rough = [smooth(y, r).diff().norm().item() for r in (1e-9, 3e-7, 3e-6, 1e-4)]
    assert rough == sorted(rough, reverse=True)
    with pytest.raises(ValueError, match='variances above 0'): smooth(y, 0.)

# ratios, stitching, retargeting

def test_openness_of_a_known_face():
    points = torch.zeros(1, 203, 2)
    for parts, (wide, high) in (([0, 12, 6, 18], (10., 3.)), ([24, 36, 30, 42], (8., 2.)), ([48, 66, 90, 102], (20., 5.))):
        points[0, parts] = torch.tensor([[0., 0], [wide, 0], [wide/2, high/2], [wide/2, -high/2]])
    eyes, lip = openness(points)
    assert eyes[0].tolist() == pytest.approx([.3, .25], abs=1e-6) and lip.item() == pytest.approx(.25, abs=1e-6)
    turn = torch.tensor([[.6, .8], [-.8, .6]])
    assert (openness(points @ turn*40 + 7)[0] - eyes).abs().max() < 1e-5
    assert openness(0*points)[0].isfinite().all()

def test_openness_of_68_points_follows_the_lids():
    points = torch.zeros(2, 68, 2)
    points[:, 39] = points[:, 45] = points[:, 54] = torch.tensor([10., 0])
    points[1, [37, 38], 1], points[1, [40, 41], 1] = -2., 2.
    eyes, lip = openness(points)
    assert eyes.tolist() == [[0, 0], [pytest.approx(.4), 0]] and lip.flatten().tolist() == [0, 0]

def test_stitching_arithmetic(source, driver):
    x = Drive().keypoints(source, driver)
    offsets = torch.arange(65.).double().expand(9, -1)
    moved_x = stitched(x, offsets) - x
    assert torch.allclose(moved_x[:, :, 2], offsets[:, 2:63:3]), 'no shift in depth'
    assert torch.allclose(moved_x[:, :, 0], offsets[:, :63:3] + 63) and torch.allclose(moved_x[:, :, 1], offsets[:, 1:63:3] + 64)
    both = stitching_input(transform(source), x)
    assert torch.equal(both[4], torch.cat([transform(source).flatten(), x[4].flatten()]))

def test_algorithm_1(source, driver):
    x_s, x = transform(source), Drive().keypoints(source, driver)
    eyes, lip, closing = (torch.full_like(x, v) for v in (.1, .01, .001))
    stitch = lambda pair: torch.ones(len(pair), 65)
    grown = torch.tensor([2., 2, 1])
    assert torch.allclose(Drive().finish(x_s, x, stitch), x + grown)
    assert torch.allclose(Drive().finish(x_s, x, stitch, closing=closing), x + grown + .001)
    assert torch.allclose(Drive().finish(x_s, x, stitch, [eyes, lip], closing), x_s + .11 + grown), 'motion is lost'
    for d in (Drive(keep_motion=True), Drive(relative=False)):
        assert torch.allclose(d.finish(x_s, x, stitch, [eyes, lip], closing), x + .11 + grown)
    assert torch.allclose(Drive(multiplier=2.).finish(x_s, x), x_s + 2*(x - x_s))

def test_retargeting_inputs(source):
    x_s, now, wanted = transform(source), torch.tensor([[.3, .2]]), torch.rand(5, 1)
    found = retargeting_input(x_s, now, wanted)
    assert found.shape == (5, 66) and torch.equal(found[3, :63].double(), x_s.flatten())
    assert found[3, 63:].tolist() == pytest.approx([.3, .2, wanted[3].item()])
    with pytest.raises(ValueError, match=r'one ratio \(b, 1\) is wanted'): retargeting_input(x_s, now, torch.rand(5, 2))

def test_size_ratio_of_scaled_points(source):
    assert size_ratio(4*transform(source), transform(source)) == pytest.approx(8)

# bad input

@pytest.mark.parametrize('settings, message', [
    (dict(region='face'), "region: one of .* not 'face'"), (dict(friendly='both'), "friendly: 'expression' or 'pose'"),
    (dict(multiplier=float('nan')), 'multiplier: a number from 0 to 10 is wanted, not nan'), (dict(hold=('nose',)), "hold: .*nose"),
    (dict(multiplier=-1.), 'multiplier: a number from 0')])
def test_settings_refused(settings, message):
    with pytest.raises(ValueError, match=message): Drive(**settings)

def test_mixtures_refused(source, driver):
    few = Motion(None, *torch.zeros(3, 2), torch.zeros(2, 3), torch.zeros(2, 9, 3), torch.ones(2, 1))
    for call, message in ((lambda: Drive().keypoints(source, few), 'driving: 21 keypoints are wanted, not 9'),
                          (lambda: Drive().keypoints(driver[:3], driver), 'source: 1 frame, or 9'),
                          (lambda: Drive().driven(source, driver, driver), 'first: one frame is wanted, not 9'),
                          (lambda: Drive().keypoints(replace(source, kp=None), driver), 'source.kp: is missing'),
                          (lambda: Drive().still(source, driver), 'driving: one frame is wanted, not 9'),
                          (lambda: transform(replace(source, kp=None)), 'no keypoints to place'),
                          (lambda: openness(torch.zeros(1, 68, 3)), r'points: shape \(b, n, 2\)')):
        with pytest.raises(ValueError, match=message): call()
