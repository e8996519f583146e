"Motion templates: round trips, official pickles read without running them, hostile and broken files refused"
import io
import json
import os
import pickle
import zipfile
from dataclasses import replace
from fractions import Fraction
import numpy as np, pytest, torch
from safetensors.torch import load_file, save_file
from faceprivacy.driving import REGIONS, Drive
from faceprivacy.keypoints import Motion, edit, hand_made, rotation
from faceprivacy.motion_templates import (MOST_FRAMES, Template, frame_rate, import_pickle, load_template, open_template,
                                          read_neutral, save_template, since)

def clip(n=12, ratios=True):
    g = torch.Generator().manual_seed(1)
    noise = lambda *shape, size=1.: size*torch.randn(*shape, generator=g)
    m = Motion(None, *noise(3, n, size=12), noise(n, 3, size=.1), noise(n, 21, 3, size=.02), 1.4 + noise(n, 1, size=.05))
    return Template(m, Fraction(30000, 1001), *((noise(n, 2).abs(), noise(n, 1).abs()) if ratios else ()))

def official(t, old=False, ratios=True, **more):
    "What the official code keeps of a clip"
    m = t.motion
    R = rotation(m.pitch, m.yaw, m.roll).numpy()
    rows = [{'R_d' if old else 'R': R[[i]], 'exp': m.exp[[i]].numpy(), 'scale': m.scale[[i]].numpy(), 't': m.t[[i]].numpy()} | more
            for i in range(len(m))]
    d = 'd_' if old else ''
    return dict(n_frames=len(rows), output_fps=25, motion=rows) | ({} if not ratios else {
        f'c_{d}eyes_lst': [r[None].numpy() for r in t.eyes], f'c_{d}lip_lst': [r[None].numpy() for r in t.lips]})

def put(folder, whole, protocol=4):
    file = folder/'t.pkl'
    file.write_bytes(whole if isinstance(whole, bytes) else pickle.dumps(whole, protocol=protocol))
    return file

# safetensors

@pytest.mark.parametrize('ratios', [True, False])
def test_round_trip(tmp_path, ratios):
    t = clip(ratios=ratios)
    save_template(tmp_path/'a.safetensors', t)
    again = open_template(tmp_path/'a.safetensors')
    assert again.fps == t.fps and (again.eyes is None) == (not ratios)
    for name in ('pitch', 'yaw', 'roll', 't', 'exp', 'scale'):
        assert torch.equal(getattr(again.motion, name), getattr(t.motion, name))
    assert not set(load_file(tmp_path/'a.safetensors')) & {'kp', 'x_s'}
    assert [f.name for f in tmp_path.iterdir()] == ['a.safetensors']

def test_double_precision_is_kept_as_single(tmp_path):
    t = clip(ratios=False)
    save_template(tmp_path/'a.safetensors', replace(t, motion=t.motion.to(torch.double)))
    assert torch.equal(load_template(tmp_path/'a.safetensors').motion.exp, t.motion.exp)

def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    save_template(tmp_path/'a.safetensors', clip())
    old = (tmp_path/'a.safetensors').read_bytes()
    def full(tensors, file, head):
        open(file, 'wb').write(b'half')
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr('faceprivacy.motion_templates.save_file', full)
    with pytest.raises(OSError, match='No space left'): save_template(tmp_path/'a.safetensors', clip(5))
    assert (tmp_path/'a.safetensors').read_bytes() == old and len(list(tmp_path.iterdir())) == 1

def rewritten(folder, change, head=None):
    "A template file with some tensors changed"
    save_template(folder/'a.safetensors', clip())
    tensors = load_file(folder/'a.safetensors')
    head = json.dumps(dict(dict(holds='motion', version=1, fps='25'), **(head or {})))
    save_file({k: v for k, v in (tensors | change).items() if v is not None}, folder/'a.safetensors', dict(faceprivacy=head))
    return folder/'a.safetensors'

@pytest.mark.parametrize('change, head, message', [
    (dict(exp=torch.zeros(12, 20, 3)), None, r'exp: floats of shape \(12, 21, 3\)|Motion'),
    (dict(exp=torch.zeros(12, 63)), None, r'Motion.exp: a tensor \(b, k, 3\)'), (dict(yaw=torch.zeros(11)), None, r'Motion.yaw: shape \(12,\)'),
    (dict(yaw=torch.full((12,), float('nan'))), None, 'yaw: holds NaN'), (dict(yaw=torch.full((12,), 720.)), None, 'yaw: values from -180 to 180'),
    (dict(scale=torch.zeros(12, 1)), None, 'scale: values from 0.001'), (dict(yaw=torch.zeros(12, dtype=torch.int32)), None, 'yaw: floats'),
    (dict(eyes=-torch.ones(12, 2)), None, 'eyes: values from 0'), (dict(lips=torch.ones(12, 2)), None, r'lips: floats of shape \(12, 1\)'),
    (dict(kp=torch.zeros(12, 21, 3)), None, 'a template holds .* not .*kp'), (dict(t=None), None, 'a template holds'),
    ({}, dict(version=2), 'no motion template of version 1'), ({}, dict(fps='0'), 'fps: above 0'), ({}, dict(fps=None), 'fps: a number'),
    ({}, dict(fps='1/0'), 'fps: a number'), ({}, dict(holds='keys'), 'no motion template')])
def test_bad_files_are_named(tmp_path, change, head, message):
    with pytest.raises(ValueError, match=message) as e: load_template(rewritten(tmp_path, change, head))
    assert 'a.safetensors' in str(e.value)

def test_no_safetensors(tmp_path):
    for data in (b'', b'no', os.urandom(500), (2**62).to_bytes(8, 'little') + b'{}'):
        (tmp_path/'a.safetensors').write_bytes(data)
        with pytest.raises(ValueError, match='no whole safetensors file'): load_template(tmp_path/'a.safetensors')
    save_file(dict(a=torch.zeros(1)), tmp_path/'a.safetensors')
    with pytest.raises(ValueError, match='no motion template of version 1'): load_template(tmp_path/'a.safetensors')
    for read in (load_template, import_pickle, open_template):
        with pytest.raises(FileNotFoundError, match='no motion template at'): read(tmp_path/'b.pkl')
    with pytest.raises(ValueError, match='is a .safetensors or a .pkl'): open_template(tmp_path/'a.npz')

# pickles

@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('old', [True, False])
def test_pickles_of_every_protocol(tmp_path, protocol, old):
    t = clip()
    found = import_pickle(put(tmp_path, official(t, old), protocol))
    assert found.fps == 25 and torch.equal(found.motion.exp, t.motion.exp) and torch.equal(found.eyes, t.eyes)
    for name in ('pitch', 'yaw', 'roll'): assert (getattr(found.motion, name) - getattr(t.motion, name)).abs().max() < 1e-4

def test_faces_are_left_behind_and_ratios_may_be_missing(tmp_path):
    t, kp = clip(), hand_made().kp.numpy()
    found = import_pickle(put(tmp_path, official(t, kp=kp, x_s=kp)))
    assert found.motion.kp is None
    save_template(tmp_path/'a.safetensors', found)
    assert kp.astype('<f4').tobytes() not in (tmp_path/'a.safetensors').read_bytes()
    assert import_pickle(put(tmp_path, official(t, ratios=False))).lips is None

class Runs:
    def __init__(self, *what): self.what = what
    def __reduce__(self): return self.what

HOSTILE = {'shell': Runs(os.system, ('touch {}',)), 'eval': Runs(eval, ("open('{}', 'w')",)),
           'getattr': Runs(getattr, (os, 'system')), 'open': Runs(io.open, ('{}', 'w')),
           'numpy load': Runs(np.load, ('{}',)), 'partial': Runs(__import__('functools').partial, (os.system, 'touch {}'))}

def reach(value, mark):
    "The hostile value with the file's name filled in"
    if isinstance(value, Runs): return Runs(value.what[0], tuple(reach(v, mark) for v in value.what[1]))
    return value.format(mark) if isinstance(value, str) else value

@pytest.mark.parametrize('name', HOSTILE)
@pytest.mark.parametrize('where', ['whole', 'frame', 'rate', 'key'])
def test_hostile_pickles_do_not_run(tmp_path, name, where):
    mark, whole = tmp_path/'was_here', official(clip())
    evil = Runs(dict, ()) if name == 'getattr' else reach(HOSTILE[name], str(mark))
    if where == 'whole': whole = evil
    if where == 'frame': whole['motion'][3]['exp'] = evil
    if where == 'rate': whole['output_fps'] = evil
    if where == 'key': whole['other'] = evil
    with pytest.raises(ValueError, match='t.pkl: no motion template .*asks for'): import_pickle(put(tmp_path, whole))
    assert not mark.exists() and os.listdir(tmp_path) == ['t.pkl']

def test_a_pickle_that_calls_what_it_may_name(tmp_path):
    "numpy.ndarray may be named; calling it with a huge shape must not allocate"
    code = b'\x80\x04cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86\x86tR.'
    with pytest.raises(ValueError, match='no motion template'): import_pickle(put(tmp_path, code))

def test_bombs(tmp_path):
    deep = []
    for _ in range(60): deep = [deep]*10  # 10^60 items if one walks through them
    whole = official(clip(2))
    assert len(import_pickle(put(tmp_path, whole | dict(other=deep)))) == 2
    many = whole | dict(motion=[whole['motion'][0]]*(MOST_FRAMES + 1), n_frames=MOST_FRAMES + 1)
    with pytest.raises(ValueError, match=f'a list of 1 to {MOST_FRAMES} frames'): import_pickle(put(tmp_path, many))
    with pytest.raises(ValueError, match='numbers an item'): import_pickle(put(tmp_path, b'\x80\x04Nr\xff\xff\xff\x7f.'))

def test_any_cut_or_change_is_named(tmp_path):
    data = pickle.dumps(official(clip(2)), protocol=4)
    rng = np.random.default_rng(0)
    for cut in range(0, len(data) - 1, 7):
        with pytest.raises(ValueError, match='t.pkl'): import_pickle(put(tmp_path, data[:cut]))
    for _ in range(1500):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 3): changed[at] = rng.integers(0, 256)
        try: found = import_pickle(put(tmp_path, bytes(changed)))
        except ValueError as e: assert 't.pkl' in str(e)
        else: assert found.motion.exp.isfinite().all() and 0 < found.fps <= 1000

def test_other_files(tmp_path):
    with zipfile.ZipFile(tmp_path/'t.pkl', 'w') as z: z.writestr('archive/data.pkl', b'x')
    with pytest.raises(ValueError, match='no motion template'): import_pickle(tmp_path/'t.pkl')

def change(whole, **frame):
    whole['motion'][1].update(frame)
    return whole

def drop(whole, key):
    del whole['motion'][0][key]
    return whole

BAD = {'20 keypoints': (lambda w: change(w, exp=np.zeros((1, 20, 3), 'f4')), r'exp of frame 1 has shape \(1, 20, 3\)'),
       'mirror': (lambda w: change(w, R=-np.eye(3, dtype='f4')[None]), 'R of frame 1 is no rotation'),
       'stretched': (lambda w: change(w, R=1.1*np.eye(3, dtype='f4')[None]), 'R of frame 1 is no rotation, it is off by 0.21'),
       'NaN in R': (lambda w: change(w, R=np.full((1, 3, 3), np.nan, 'f4')), 'R of frame 1 is no rotation'),
       'NaN': (lambda w: change(w, t=np.full((1, 3), np.nan, 'f4')), 't: holds NaN'), 'text': (lambda w: change(w, t='left'), 'a str stands'),
       'objects': (lambda w: change(w, t=np.array([[None]*3])), 'array of .*O'), 'big end': (lambda w: change(w, t=np.zeros((1, 3), '>f4')), 'array of >f4'),
       'no R': (lambda w: drop(w, 'R'), r"frame 0 has no R, it has \['exp', 'scale', 't'\]"), 'count': (lambda w: w | dict(n_frames=9), 'n_frames is 9'),
       'rate': (lambda w: w | dict(output_fps=-3), 'fps: above 0'), 'no frames': (lambda w: w | dict(motion=[]), 'a list of 1 to'),
       'a list': (lambda w: [w], 'no motion template'), 'a number': (lambda w: 7, 'no motion template'),
       'few ratios': (lambda w: w | dict(c_lip_lst=w['c_lip_lst'][:1]), r'lips: floats of shape \(2, 1\)'),
       'frames are text': (lambda w: w | dict(motion='abc'), 'a list of 1 to')}

@pytest.mark.parametrize('name', BAD)
def test_bad_pickles_are_named(tmp_path, name):
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message): import_pickle(put(tmp_path, make(official(clip(2)))))

def test_neutral(tmp_path):
    x = np.random.default_rng(0).normal(0, .01, (1, 21, 3)).astype('f4')
    assert torch.equal(read_neutral(put(tmp_path, x)), torch.from_numpy(x))
    for bad in (x[:, :20], x*np.nan, [1], Runs(os.system, ('true',))):
        with pytest.raises(ValueError, match=r't.pkl: no array \(1, 21, 3\)'): read_neutral(put(tmp_path, bad))

# rates, and what is left of the face

@pytest.mark.parametrize('given, want', [
    (30, '30'), (30., '30'), (1, '1'), (5, '5'), (29.97, '30000/1001'), (29.970029970029969, '30000/1001'), (59.94, '60000/1001'), (23.976, '24000/1001'),
    ('30000/1001', '30000/1001'), (12.5, '25/2'), (Fraction(119, 4), '119/4'), (np.float64(25), '25'), (1000, '1000'), (29.5, '59/2')])
def test_rates(given, want): assert frame_rate(given) == Fraction(want)

@pytest.mark.parametrize('given', [0, -1, 1001, float('nan'), float('inf'), 'x', None, '1/0', [25]])
def test_bad_rates(given):
    with pytest.raises(ValueError, match='fps: '): frame_rate(given)

@pytest.mark.parametrize('region', REGIONS)
@pytest.mark.parametrize('frame', [0, 5])
def test_since_changes_no_relative_animation(region, frame):
    t, source = clip(), edit(hand_made(), yaw=9., smile=.4)
    rest = since(t, frame)
    for m, scale in ((rest.motion[frame], 1),):
        assert max(v.abs().max() for v in (m.pitch, m.yaw, m.roll, m.t, m.exp)) < 1e-5 and m.scale.item() == scale
    x, y = (Drive(region=region).keypoints(source, v.motion, v.motion[frame]) for v in (t, rest))
    assert (x - y).abs().max() < 2e-6

def test_since_takes_out_a_constant():
    t = clip()
    other = replace(t, motion=replace(t.motion, exp=t.motion.exp + .05*torch.randn(21, 3), scale=1.1*t.motion.scale))
    a, b = since(t).motion, since(other).motion
    assert (a.exp - b.exp).abs().max() < 1e-6 and (a.scale - b.scale).abs().max() < 1e-6

# the official templates

def test_official_templates(real_data):
    files = sorted((real_data/'liveportrait').glob('*.pkl'))
    if not files: pytest.skip('no liveportrait/*.pkl among the real data')
    frames = dict(d1=16, d2=16, d5=148, d7=178, d8=275, laugh=54, shake_face=93, aggrieved=57, open_lip=77, shy=80, wink=57, talking=100)
    for file in files:
        t = import_pickle(file)
        assert len(t) == frames[file.stem] and t.motion.t[:, 2].abs().max() == 0
        assert (t.lips is None) == (file.stem[0] != 'd'), 'templates of the animal mode have no ratios'
        x = Drive().keypoints(hand_made(), t.motion)
        assert x.isfinite().all() and x.abs().max() < 2
        assert (Drive().keypoints(hand_made(), since(t).motion) - x).abs().max() < 1e-5
