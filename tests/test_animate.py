"Animating a still or a video: from files to a file, stopped and started, hidden faces, wrong questions"
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from golden_rule import golden_state
from onnx import TensorProto, helper, numpy_helper

import faceprivacy.animate as module
from faceprivacy.animate import Parts, animate, fingerprint, paired
from faceprivacy.core import path
from faceprivacy.driving import Drive
from faceprivacy.face_landmarks import Detector, as_faces, face_square, finder, follow, nearest
from faceprivacy.fast_liveportrait import FastLivePortrait
from faceprivacy.liveportrait import LivePortrait, Sizes
from faceprivacy.motion_templates import open_template, save_template
from faceprivacy.official_weights import NETWORKS, save_official
from faceprivacy.portrait_crop import crop, matrix, square
from faceprivacy.portrait_motion import (UNTRAINED, Settings, as_template, driver_motion, driving_crops, finished, load_networks, moved_points,
                                         open_face, open_footage, pixels, portraits, put_back, ratios, rehearse)
from faceprivacy.video import is_marked, probe, read_frames, write_picture, write_video

N, FPS = 6, Fraction(30000, 1001)
TAGS = {**NETWORKS, 'stitching': 'stitching', 'eyes': 'eye', 'lip': 'lip'}  # the golden rule's names


def golden_model():
    "Small networks with the golden rule's weights; spectral norms as they would be, scale near 1"
    model = LivePortrait(Sizes(**UNTRAINED))
    for name, tag in TAGS.items():
        net = model.get_submodule(name)
        own = {f'buffer.{tag}.{k}': v.numpy() for k, v in net.state_dict().items()}
        net.load_state_dict(golden_state(tag, net.state_dict(), 1., own))
    for net in model.modules():
        if hasattr(net, 'weight_orig'):
            u, _, v = torch.linalg.svd(net.weight_orig.detach().flatten(1), full_matrices=False)
            net.weight_u.copy_(u[:, 0]), net.weight_v.copy_(v[0])
    scale = model.motion.detector.fc_scale
    torch.nn.init.normal_(scale.weight, std=.01, generator=torch.Generator().manual_seed(0)), torch.nn.init.ones_(scale.bias)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope='module')
def net(): return FastLivePortrait(golden_model(), torch.float32)


@pytest.fixture(scope='module')
def play(): return rehearse(N, 64, torch.Generator().manual_seed(1))


@pytest.fixture(scope='module')
def files(play, tmp_path_factory):
    "source.png, driver.mp4 with a tone, silent.mp4 without, weights"
    folder = tmp_path_factory.mktemp('given')
    write_picture(folder/'source.png', play.picture, synthetic=False)
    t = np.arange(22050)/44100
    with wave.open(str(folder/'tone.wav'), 'wb') as f:
        f.setnchannels(1), f.setsampwidth(2), f.setframerate(44100)
        f.writeframes((8000*np.sin(2*np.pi*440*t)).astype('<i2').tobytes())
    write_video(folder/'driver.mp4', play.clip, FPS, sound=folder/'tone.wav', synthetic=False)
    write_video(folder/'silent.mp4', play.clip, FPS, synthetic=False)
    save_official(golden_model(), folder/'weights', '.safetensors')
    (folder/'weights'/'sizes.json').write_text(json.dumps(UNTRAINED))
    return folder


@pytest.fixture
def asked(play): return dict(landmarks=play.points, driving_landmarks=play.marks, settings=Settings(batch=4, crop_driving=True))


def leftovers(folder): return sorted(f.name for f in folder.iterdir() if f.name.startswith('.'))


class Stops(FastLivePortrait):
    "Stopped when one batch too many is asked for"
    left = 1
    def render(self, *args):
        self.left -= 1
        if self.left < 0: raise KeyboardInterrupt
        return super().render(*args)


# a still

def test_frames_rate_sound_size_and_mark(net, files, play, asked, tmp_path):
    report = animate(files/'source.png', files/'driver.mp4', tmp_path/'a.mp4', net, **asked)
    made = probe(tmp_path/'a.mp4')
    assert (made.frames, made.fps, made.sound) == (N, FPS, 'aac') and (made.height, made.width) == play.picture.shape[:2]
    assert is_marked(tmp_path/'a.mp4') and leftovers(tmp_path) == []
    assert (report.frames, report.fps, report.faces, report.lost, report.held, report.kept) == (N, FPS, 1, [], [N//2], 0)
    assert report.sound == files/'driver.mp4'


def test_frames_are_what_the_steps_give_by_hand(net, files, play, asked, tmp_path, monkeypatch):
    "Against a plain loop over the plain networks, one frame at a time"
    kept = []
    monkeypatch.setattr(module, 'write_video', lambda file, frames, *a, **k: (kept.extend(frames), Path(file).touch()))
    animate(files/'source.png', files/'driver.mp4', tmp_path/'a.mp4', net, **asked)
    plain, drive = golden_model(), Drive()
    m = matrix(square(play.points, 2.3, 0., -.125), 128)
    face = plain.source(portraits([cv2.resize(crop(play.picture, m, 128), (64, 64), interpolation=cv2.INTER_AREA)]))
    seen = [*driving_crops(open_footage(files/'driver.mp4'), play.marks, 64, True)]
    motion = [plain.read(portraits([c])) for c in seen]
    order = [0, 1, 2, 2, 3, 4]  # frame 3 is hidden
    for i, frame in zip(order, kept):
        x = drive.keypoints(face.motion, replace(motion[i], kp=None), motion[0])
        square_i = pixels(plain.render(face, plain.stitch(face, x)))[0]
        want = put_back([open_face(net, play.picture, play.points)], [square_i])
        assert np.abs(want.astype(int) - frame).max() <= 1
    assert len(kept) == N and (kept[3] == kept[2]).all() and (kept[1] != kept[2]).any()


def test_outside_of_the_square_nothing_changes(net, files, play, asked, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(module, 'write_video', lambda file, frames, *a, **k: (kept.extend(frames), Path(file).touch()))
    animate(files/'source.png', files/'driver.mp4', tmp_path/'a.mp4', net, **asked)
    face = open_face(net, play.picture, play.points)
    mask = np.zeros(play.picture.shape[:2], bool)
    mask[face.paste.part] = face.paste.mask[..., 0] > 0
    assert mask.any() and not mask.all()
    for frame in kept: assert (frame == play.picture)[~mask].all() and (frame != play.picture)[mask].any()


@pytest.mark.parametrize('relative', [True, False])
@pytest.mark.parametrize('region', ['all', 'exp', 'pose', 'lip', 'eyes'])
def test_regions_and_modes(net, play, region, relative, tmp_path):
    x = {}
    for name, drive in dict(asked=Drive(region, relative), none=Drive(region, relative, multiplier=0.)).items():
        face = open_face(net, play.picture, play.points)
        motion = replace(net.read(portraits([cv2.resize(c, (64, 64)) for c in play.clip])), kp=None)
        t = as_template(motion, FPS)
        s = Settings(stitch=False)
        x[name] = finished(net, face.source.points, moved_points(face.source.motion, t, True, drive, s), drive, s)
    assert torch.allclose(x['none'], face.source.points.expand_as(x['none']), atol=1e-6)
    assert (x['asked'] - face.source.points).abs().max() > 1e-4


def test_a_template_moves_as_its_clip_does(net, files, play, tmp_path):
    footage = open_footage(files/'driver.mp4')
    save_template(tmp_path/'m.safetensors', as_template(driver_motion(net, footage), footage.fps))
    for name, driving in (('a.mp4', files/'silent.mp4'), ('b.mp4', tmp_path/'m.safetensors')):
        report = animate(files/'source.png', driving, tmp_path/name, net, landmarks=play.points)
        assert report.fps == FPS and report.sound is None
    assert (tmp_path/'a.mp4').read_bytes() == (tmp_path/'b.mp4').read_bytes()


def test_a_picture_drives_a_picture(net, files, play, tmp_path):
    write_picture(tmp_path/'d.jpg', play.clip[2])
    report = animate(play.picture, tmp_path/'d.jpg', tmp_path/'a.png', net, landmarks=play.points)
    assert (report.frames, report.fps) == (1, None) and is_marked(tmp_path/'a.png')
    neutral = torch.full((1, 21, 3), .02)
    animate(play.picture, tmp_path/'d.jpg', tmp_path/'b.png', net, landmarks=play.points, neutral=neutral)
    assert (tmp_path/'a.png').read_bytes() != (tmp_path/'b.png').read_bytes()


def test_a_whole_square_portrait_needs_no_landmarks(net, files, play, tmp_path):
    report = animate(play.clip[0], files/'driver.mp4', tmp_path/'a.mp4', net)
    assert (probe(tmp_path/'a.mp4').width, probe(tmp_path/'a.mp4').height, report.held) == (128, 128, [])


def test_the_square_alone(net, files, asked, tmp_path):
    asked['settings'] = replace(asked['settings'], paste=False)
    animate(files/'source.png', files/'driver.mp4', tmp_path/'a.mp4', net, **asked)
    assert (probe(tmp_path/'a.mp4').width, probe(tmp_path/'a.mp4').height) == (128, 128)


@pytest.mark.parametrize('synthetic, visible', [(True, False), (False, False), (True, True)])
def test_marks(net, files, play, synthetic, visible, tmp_path):
    s = Settings(synthetic=synthetic, visible=visible, sound='none', crf=1)
    animate(play.clip[0], files/'driver.mp4', tmp_path/'a.mp4', net, settings=s)
    animate(play.clip[0], files/'driver.mp4', tmp_path/'b.mp4', net, settings=replace(s, visible=False))
    assert is_marked(tmp_path/'a.mp4') == synthetic and probe(tmp_path/'a.mp4').sound is None
    a, b = (next(read_frames(tmp_path/n)).astype(int) for n in ('a.mp4', 'b.mp4'))
    assert (np.abs(a - b)[100:, :40].mean() > 20) == visible


def test_all_faces_of_a_picture(net, files, play, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(module, 'write_video', lambda file, frames, *a, **k: (kept.append(next(iter(frames))), Path(file).touch()))
    two, w = np.concatenate([play.picture, play.picture], 1), play.picture.shape[1]
    marks = [play.points, play.points + [w, 0]]
    changed = {}
    for face in ('all', 'left', 1):
        report = animate(two, files/'driver.mp4', tmp_path/'a.mp4', net, Drive(multiplier=0.), Settings(face=face), landmarks=marks)
        assert report.faces == (2 if face == 'all' else 1)
        changed[face] = [(kept[-1][:, part] != two[:, part]).mean() > .1 for part in (slice(w), slice(w, None))]
    assert changed == {'all': [True, True], 'left': [True, False], 1: [False, True]}


def test_retargeting_follows_the_driver(net, files, play, tmp_path):
    "Offsets are added as the networks give them; a template without ratios, or five points, cannot be followed"
    wanted = ratios(play.marks)
    t = as_template(driver_motion(net, open_footage(files/'driver.mp4')), FPS)
    for name in ('eyes', 'lips'):
        s = Settings(**{name: True})
        animate(play.picture, files/'driver.mp4', tmp_path/'a.mp4', net, settings=s, landmarks=play.points,
                driving_landmarks=play.marks)
        with pytest.raises(ValueError, match=f'{name}: needs 68 or 203 landmarks of the driver, or a template'):
            animate(play.picture, t, tmp_path/'b.mp4', net, settings=s, landmarks=play.points)
        with pytest.raises(ValueError, match=f'{name}: needs 68 or 203 landmarks of the source'):
            animate(play.picture, t, tmp_path/'b.mp4', net, settings=s, landmarks=play.points[[36, 45, 30, 48, 54]])
    face = open_face(net, play.picture, play.points)
    found = finished(net, face.source.points, face.source.points.repeat(N - 1, 1, 1), Drive(), Settings(eyes=True, stitch=False),
                     face.now, wanted)
    offsets = net.eye_offsets(face.source, face.now[0], wanted[0][:, :1])
    assert torch.allclose(found, face.source.points + offsets, atol=1e-6) and offsets.abs().max() > 1e-3
    assert leftovers(tmp_path) == []


def test_weights_without_the_small_networks(files, play, tmp_path):
    shutil.copytree(files/'weights', tmp_path/'w')
    shutil.rmtree(tmp_path/'w'/'liveportrait'/'retargeting_models')
    net = load_networks(tmp_path/'w', dtype=torch.float32)
    animate(play.clip[0], files/'driver.mp4', tmp_path/'a.mp4', net)
    for name in ('stitch', 'eyes', 'lips', 'close_lips'):
        with pytest.raises(ValueError, match=f'{name}: these weights hold no network'):
            animate(play.picture, files/'driver.mp4', tmp_path/'b.mp4', net, settings=Settings(**{name: True}), landmarks=play.points)
    (tmp_path/'w'/'sizes.json').write_text('{"size": 60}')
    with pytest.raises(ValueError, match='sizes.json: are no sizes'): load_networks(tmp_path/'w')


# a video

def video_of(play, file, hide=(), fps=FPS):
    write_video(file, [c if i not in hide else 0*c for i, c in enumerate(play.clip)], fps, synthetic=False)
    return [p if i not in hide else None for i, p in enumerate([*play.marks[:N//2], play.marks[N//2 - 1], *play.marks[N//2 + 1:]])]


def test_a_video_moves_and_hidden_frames_stay(net, files, play, tmp_path, monkeypatch):
    marks, kept = video_of(play, tmp_path/'s.mp4', hide=(0, 4)), []
    given = list(read_frames(tmp_path/'s.mp4'))
    monkeypatch.setattr(module, 'write_video', lambda file, frames, *a, **k: (kept.extend(frames), Path(file).touch()))
    report = animate(tmp_path/'s.mp4', files/'driver.mp4', tmp_path/'a.mp4', net, settings=Settings(batch=4), landmarks=marks)
    assert (report.frames, report.lost, report.fps) == (N, [0, 4], FPS)
    assert [bool((a == b).all()) for a, b in zip(given, kept)] == [i in (0, 4) for i in range(N)]


def test_a_video_follows_a_picture(net, play, tmp_path):
    marks = video_of(play, tmp_path/'s.mp4')
    write_picture(tmp_path/'d.png', play.clip[2])
    report = animate(tmp_path/'s.mp4', tmp_path/'d.png', tmp_path/'a.mp4', net, landmarks=marks)
    assert (report.frames, probe(tmp_path/'a.mp4').fps) == (N, FPS)


def test_two_rates_are_paired_by_time(net, files, play, tmp_path):
    marks = video_of(play, tmp_path/'s.mp4', fps=Fraction(15))
    report = animate(tmp_path/'s.mp4', files/'driver.mp4', tmp_path/'a.mp4', net, landmarks=marks)
    assert (report.frames, report.fps) == (3, 15), '6 frames at 29.97 last as long as 3 at 15'
    assert probe(tmp_path/'a.mp4').sound == 'aac'
    for n, a, m, b in ((100, FPS, 90, Fraction(25)), (50, Fraction(24), 300, Fraction(60)), (7, Fraction(25), 7, Fraction(25))):
        at = paired(n, a, m, b)
        assert all(abs(k/b - i/a) <= 1/(2*b) for i, k in enumerate(at)) and len(at) == n or (len(at)*b/a > m - 1)


def test_sound_of_either(net, files, play, tmp_path):
    quiet = files/'silent.mp4'
    for source, driving, sound, want in ((files/'driver.mp4', quiet, 'driving', 'driver.mp4'), (files/'driver.mp4', quiet, 'none', None),
                                         (play.clip[0], files/'driver.mp4', 'source', 'driver.mp4')):
        report = animate(source, driving, tmp_path/'a.mp4', net, settings=Settings(sound=sound))
        assert (report.sound and report.sound.name) == want and probe(tmp_path/'a.mp4').sound == ('aac' if want else None)


# stopped and started

@pytest.mark.parametrize('batches', [0, 1])
def test_a_stopped_run_goes_on(net, files, asked, batches, tmp_path):
    stops = Stops(golden_model(), torch.float32)
    stops.left = batches
    with pytest.raises(KeyboardInterrupt): animate(files/'source.png', files/'driver.mp4', tmp_path/'a.mp4', stops, **asked)
    assert [f.name for f in tmp_path.iterdir()] == ['.a.mp4.parts'] and not list(tmp_path.glob('.*/*.tmp'))
    report = animate(files/'source.png', files/'driver.mp4', tmp_path/'a.mp4', net, **asked)
    animate(files/'source.png', files/'driver.mp4', tmp_path/'b.mp4', net, **asked)
    assert report.kept == 4*batches and leftovers(tmp_path) == []
    assert (tmp_path/'a.mp4').read_bytes() == (tmp_path/'b.mp4').read_bytes()


def test_a_stopped_video_goes_on(net, play, files, tmp_path):
    marks = video_of(play, tmp_path/'s.mp4', hide=(1,))
    stops, asked = Stops(golden_model(), torch.float32), dict(settings=Settings(batch=2), landmarks=marks)
    stops.left = 3  # frames 0, 2, 3: two batches
    with pytest.raises(KeyboardInterrupt): animate(tmp_path/'s.mp4', files/'driver.mp4', tmp_path/'a.mp4', stops, **asked)
    report = animate(tmp_path/'s.mp4', files/'driver.mp4', tmp_path/'a.mp4', net, **asked)
    assert report.kept == 3 and report.lost == [1]


@pytest.mark.parametrize('change', ['weights', 'settings', 'drive', 'landmarks', 'driver', 'source'])
def test_pieces_of_another_job_are_not_used(net, files, play, asked, change, tmp_path):
    driver, source, drive, other = tmp_path/'driver.mp4', tmp_path/'source.png', Drive(), net
    shutil.copy(files/'driver.mp4', driver), shutil.copy(files/'source.png', source)
    with pytest.raises(KeyboardInterrupt): animate(source, driver, tmp_path/'a.mp4', Stops(golden_model(), torch.float32), **asked)
    if change == 'weights':
        model = golden_model()
        model.generator.conv_img[0].bias.add_(.1)
        other = FastLivePortrait(model, torch.float32)
    if change == 'settings': asked['settings'] = replace(asked['settings'], scale=2.)
    if change == 'drive': drive = Drive(multiplier=.5)
    if change == 'landmarks': asked['landmarks'] = play.points + 1
    if change == 'driver': write_video(driver, play.clip[::-1], FPS)
    if change == 'source': write_picture(source, 255 - play.picture)
    assert animate(source, driver, tmp_path/'a.mp4', other, drive, **asked).kept == 0


def test_how_it_is_written_does_not_concern_the_pieces(net, files, asked, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        animate(files/'source.png', files/'driver.mp4', tmp_path/'a.mp4', Stops(golden_model(), torch.float32), **asked)
    asked['settings'] = replace(asked['settings'], crf=30, visible=True, sound='none')
    assert animate(files/'source.png', files/'driver.mp4', tmp_path/'a.mp4', net, **asked).kept == 4


@pytest.mark.parametrize('harm', [b'', b'\x89PNG', None])
def test_a_damaged_piece_is_made_again(net, files, asked, harm, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        animate(files/'source.png', files/'driver.mp4', tmp_path/'a.mp4', Stops(golden_model(), torch.float32), **asked)
    piece, = tmp_path.glob('.a.mp4.parts/*.png')
    piece.write_bytes(piece.read_bytes()[:-200] if harm is None else harm)
    report = animate(files/'source.png', files/'driver.mp4', tmp_path/'a.mp4', net, **asked)
    animate(files/'source.png', files/'driver.mp4', tmp_path/'b.mp4', net, **asked)
    assert (tmp_path/'a.mp4').read_bytes() == (tmp_path/'b.mp4').read_bytes()


def test_killed_it_goes_on(files, tmp_path):
    "A process that gets SIGKILL after its first batch leaves whole pieces and no result"
    code = ("import os, signal, sys, torch; sys.path.insert(0, 'tests')\n"
            "from faceprivacy.animate import Parts, animate; from faceprivacy.portrait_motion import Settings, load_networks\n"
            "save = Parts.save\n"
            "def kill(self, name, data):\n    save(self, name, data)\n    if name == '0_000002.png': os.kill(os.getpid(), signal.SIGKILL)\n"
            "if sys.argv[5] == 'kill': Parts.save = kill\n"
            "torch.set_num_threads(1)\n"
            "print(animate(sys.argv[1], sys.argv[2], sys.argv[3], load_networks(sys.argv[4], dtype=torch.float32),\n"
            "              settings=Settings(batch=2)).kept)")
    def run(how): return subprocess.run([sys.executable, '-c', code, files/'silent.mp4', files/'driver.mp4', tmp_path/'a.mp4',
                                         files/'weights', how], capture_output=True, text=True, cwd=path())
    assert run('kill').returncode == -signal.SIGKILL and not (tmp_path/'a.mp4').exists()
    done = run('go on')
    assert done.stdout == '4\n', done.stderr
    assert probe(tmp_path/'a.mp4').frames == N and leftovers(tmp_path) == []


def test_a_full_disk_is_named_and_leaves_the_old_result(net, files, asked, tmp_path, monkeypatch):
    (tmp_path/'a.mp4').write_bytes(b'before')
    write = Path.write_bytes
    def full(self, data):
        if '.png.' in self.name: raise OSError(28, 'No space left on device')
        return write(self, data)
    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(OSError, match=r'0_000000.png: No space left on device; what is finished is kept'):
        animate(files/'source.png', files/'driver.mp4', tmp_path/'a.mp4', net, **asked)
    assert (tmp_path/'a.mp4').read_bytes() == b'before' and not list(tmp_path.glob('.*/.*'))


def test_frames_are_not_hoarded(net, play, files, tmp_path, monkeypatch):
    "While a long still is made, no more than two batches of frames are alive"
    alive, most, paste = 0, 0, module.put_back
    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= getattr(self, 'mine', False)
    def counted(*args):
        nonlocal alive, most
        found = paste(*args).view(Counted)
        found.mine, alive = True, alive + 1
        most = max(most, alive)
        return found
    monkeypatch.setattr(module, 'put_back', counted)
    motion = driver_motion(net, open_footage(files/'driver.mp4'))
    t = as_template(motion[[i % N for i in range(60)]], FPS)
    animate(play.clip[0], t, tmp_path/'a.mp4', net, settings=Settings(batch=4))
    assert probe(tmp_path/'a.mp4').frames == 60 and most <= 8


# wrong questions

def test_wrong_questions_are_named_and_leave_nothing(net, files, play, tmp_path):
    bad = tmp_path/'bad.mp4'
    bad.write_bytes((files/'driver.mp4').read_bytes()[:1500])
    (tmp_path/'bad.png').write_bytes(b'no picture')
    t = as_template(driver_motion(net, open_footage(files/'driver.mp4')), FPS)
    cases = [
        (play.picture, t, 'a.mp4', {}, 'is 128 x 96; without landmarks the whole frame'),
        (play.picture, t, 'a.gif', dict(landmarks=play.points), 'the result is a video, so its name ends in'),
        (files/'source.png', t, 'a.png', dict(landmarks=play.points), 'the result is a video'),
        (files/'nothing.png', t, 'a.mp4', {}, 'no picture at'), (files/'nothing.mp4', t, 'a.mp4', {}, 'no video at'),
        (tmp_path/'bad.png', t, 'a.mp4', {}, 'no picture'), (bad, t, 'a.mp4', {}, 'bad.mp4'),
        (play.picture, bad, 'a.mp4', dict(landmarks=play.points), 'bad.mp4'),
        (play.picture, files/'nothing.pkl', 'a.mp4', {}, 'no motion template at'),
        (play.picture, tmp_path/'bad.pkl', 'a.mp4', {}, 'no motion template'),
        (np.zeros((64, 64, 4), np.uint8), t, 'a.mp4', {}, r'RGB \(h, w, 3\) uint8 is wanted'),
        (np.zeros((1, 1, 3), np.uint8), t, 'a.mp4', {}, 'at least 16 pixels'),
        (play.picture, t, 'a.mp4', dict(landmarks=lambda x: []), 'no face in any of 1 frames'),
        (play.picture, t, 'a.mp4', dict(landmarks=play.points*np.nan), 'hold NaN'),
        (play.picture, t, 'a.mp4', dict(landmarks=[play.points], settings=Settings(face=2)), 'face 2 is asked for, there are 1'),
        (play.picture, t, 'a.mp4', dict(landmarks=[play.points]*2, settings=Settings(face='all', paste=False)), 'paste: 2 faces'),
        (play.picture, t, 'a.mp4', dict(landmarks=play.points, settings=Settings(reference=99)), 'reference: frame 99'),
        (files/'silent.mp4', t, 'a.mp4', dict(landmarks=play.marks[:2]), 'of 2 frames'),
        (files/'silent.mp4', t, 'a.mp4', dict(settings=Settings(close_lips=True)), 'close_lips: True is for a source that is'),
        (files/'silent.mp4', t, 'a.mp4', dict(settings=Settings(reference=2)), 'reference: 2 is for a source that is'),
        (play.picture, files/'driver.mp4', 'a.mp4', dict(landmarks=play.points, settings=Settings(crop_driving=True)),
         'cannot be cut without landmarks')]
    (tmp_path/'bad.pkl').write_bytes(b'cos\nsystem\n(S"touch ran"\ntR.')
    before = sorted(f.name for f in tmp_path.iterdir())
    for source, driving, out, more, why in cases:
        with pytest.raises((ValueError, OSError), match=why): animate(source, driving, tmp_path/out, net, **more)
    assert sorted(f.name for f in tmp_path.iterdir()) == before and not Path('ran').exists()


@pytest.mark.parametrize('wrong', [dict(face='best'), dict(driver='all'), dict(reference='first'), dict(batch=0), dict(crf=99),
                                   dict(scale=float('nan')), dict(sound='loud'), dict(most=10), dict(face=True), dict(face=1.)])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))): Settings(**wrong)


# finding faces

def constant_network(file, outputs, size):
    "An .onnx that answers the same to every picture (1, 3, size, size)"
    shape = [1, 3, *([size]*2 if size else ['h', 'w'])]
    given = helper.make_tensor_value_info('x', TensorProto.FLOAT, shape)
    nodes, made, kept = [], [], []
    for i, value in enumerate(outputs):
        kept.append(numpy_helper.from_array(np.float32(value), f'c{i}'))
        nodes.append(helper.make_node('Identity', [f'c{i}'], [f'y{i}']))
        made.append(helper.make_tensor_value_info(f'y{i}', TensorProto.FLOAT, np.shape(value)))
    graph = helper.make_graph(nodes, 'g', [given], made, kept)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8), file)


def scrfd(file, spots):
    "A detector of SCRFD's form: faces of 128 pixels in a picture of 640, their middles in steps of 32"
    answer = {}
    for kind, wide in (('score', 1), ('box', 4), ('points', 10)):
        for step in (8, 16, 32): answer[kind, step] = np.zeros(((640//step)**2*2, wide))
    for x, y in spots:
        row = 2*((y//32)*20 + x//32)
        answer['score', 32][row] = .9
        answer['box', 32][row] = 2.
        answer['points', 32][row] = np.array([-1, -1, 1, -1, 0, 0, -.8, 1, .8, 1])
    constant_network(file, list(answer.values()), 640)


def test_networks_of_the_user(tmp_path):
    picture = np.zeros((640, 640, 3), np.uint8)
    scrfd(tmp_path/'det.onnx', [(320, 320), (96, 160)])
    faces = Detector(tmp_path/'det.onnx')(picture)
    assert sorted(p.mean(0).round().tolist() for p in faces) == [[96, 160], [320, 320]] and faces[0].shape == (5, 2)
    constant_network(tmp_path/'more.onnx', [np.zeros((1, 212))], 192)
    faces = Detector(tmp_path)(picture)
    assert [p.shape for p in faces] == [(106, 2)]*2 and np.allclose(faces[0], faces[0][0]), '106 points, all in the middle of the box'
    assert np.abs(faces[0][0] - [320, 320]).max() < 2 or np.abs(faces[0][0] - [96, 160]).max() < 2
    (tmp_path/'more.onnx').unlink()
    grid = np.stack(np.meshgrid(np.linspace(.3, .7, 29), np.linspace(.2, .8, 7)), -1).reshape(1, 406)
    constant_network(tmp_path/'landmark.onnx', [np.zeros((1, 214)), np.zeros((1, 262)), grid], 224)
    found = Detector(tmp_path)(picture)
    five = sorted(Detector(tmp_path/'det.onnx')(picture), key=lambda p: p[0, 0])
    for p, q in zip(sorted(found, key=lambda p: p[0, 0]), five):
        s = face_square(q, 1.5, vy=-.1)
        assert p.shape == (203, 2) and np.abs(p.mean(0) - s.centre).max() < 1 and np.ptp(p[:, 1]) == pytest.approx(.6*s.side, rel=.01)


def test_places_without_a_detector(tmp_path):
    with pytest.raises(FileNotFoundError, match='no .onnx there.*Nothing is downloaded'): Detector(tmp_path)
    with pytest.raises(FileNotFoundError, match='no .onnx there'): Detector(tmp_path/'none.onnx')
    constant_network(tmp_path/'a.onnx', [np.zeros((1, 212))], 192)
    with pytest.raises(ValueError, match='is a detector'): Detector(tmp_path)
    (tmp_path/'a.onnx').write_bytes(b'no network')
    with pytest.raises(ValueError, match='a.onnx: is no whole .onnx'): Detector(tmp_path)


def test_landmarks_of_a_large_picture_are_shrunk_with_it(net, play, files, tmp_path):
    "Landmarks of the caller belong to the file, those of a function to what it sees"
    large = cv2.resize(play.picture, None, fx=3, fy=3)
    s, seen = Settings(most=128), []
    animate(large, files/'driver.mp4', tmp_path/'a.mp4', net, settings=s, landmarks=3*play.points)
    animate(large, files/'driver.mp4', tmp_path/'b.mp4', net, settings=s, landmarks=lambda x: seen.append(x.shape) or play.points
            if x.shape[0] == 96 else play.marks[0])
    assert seen == [(96, 128, 3)] and probe(tmp_path/'a.mp4').width == 128


def test_tracks_do_not_change_faces():
    "Random walks of four faces in random order: each track is one of the walks"
    rng = np.random.default_rng(0)
    base = np.array([[0, 0], [40, 0], [20, 20], [5, 40], [35, 40.]])
    starts = np.array([[0, 0], [150, 0], [0, 150], [150, 150]])
    walks = np.array([s + rng.uniform(-8, 8, (50, 2)).cumsum(0)*.3 for s in starts])
    clip = [[base + walks[k, i] for k in rng.permutation(4)] for i in range(50)]
    tracks = follow(clip, 'all')
    for t in tracks:
        k = min(range(4), key=lambda k: np.abs(t[0] - base - walks[k, 0]).max())
        assert all(np.allclose(p, base + w) for p, w in zip(t, walks[k]))
    assert len(tracks) == 4 and nearest([base], [base + 39]) == [0] and nearest([base], [base + 300]) == [None]


def test_faces_from_callers(play):
    for given, n in ((None, 0), ([], 0), (play.points, 1), (play.points[None].repeat(2, 0), 2), ([play.points, play.points[:5] + 1], 2)):
        assert len(as_faces(given)) == n
    for wrong in (5, 'x', np.zeros((4, 2)), [np.zeros((68, 3))], play.points + np.inf):
        with pytest.raises(ValueError, match='landmarks'): as_faces(wrong)
    assert finder(str, False) and fingerprint(Drive()) != fingerprint(Drive('lip'))


# the command line

def test_the_command(files, play, tmp_path, capsys):
    from faceprivacy import cli
    scrfd(tmp_path/'det.onnx', [(96, 96)])
    given = [str(files/'source.png'), str(files/'driver.mp4'), '--weights', str(files/'weights'), '--exact']
    assert cli.main(['animate', *given, '-o', str(tmp_path/'a.mp4'), '--landmarks', str(tmp_path/'det.onnx'), '--region', 'exp',
                     '--no-stitch', '--json', '--visible-mark']) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found['frames'], found['fps'], found['out'], found['faces']) == (N, str(FPS), str(tmp_path/'a.mp4'), 1)
    assert is_marked(tmp_path/'a.mp4') and probe(tmp_path/'a.mp4').sound == 'aac'
    for more, why in ((['-o', str(tmp_path/'b.mp4')], 'is 128 x 96; without landmarks'),
                      (['-o', str(tmp_path/'b.gif'), '--landmarks', str(tmp_path/'det.onnx')], 'the result is a video'),
                      (['-o', str(tmp_path/'b.mp4'), '--face', 'best'], "face: a number or one of")):
        assert cli.main(['animate', *given, *more]) == 1
        out, err = capsys.readouterr()
        assert out == '' and 'faceprivacy: ' in err and why in err and 'Traceback' not in err
    assert not list(tmp_path.glob('*b.*'))


# real files

def test_paintings_and_clips(real_data, files, tmp_path):
    "A painting, a few frames of a clip and a template, found by a detector that the user has"
    folder, net = real_data/'liveportrait', load_networks(files/'weights', dtype=torch.float32)
    detector = Detector(real_data/'models'/'retinaface_mnet025.onnx')
    write_video(tmp_path/'d0.mp4', read_frames(folder/'d0.mp4', 0, 6), probe(folder/'d0.mp4').fps)
    report = animate(folder/'s0.jpg', tmp_path/'d0.mp4', tmp_path/'a.mp4', net, landmarks=detector)
    assert (report.frames, report.fps, report.held, report.faces) == (6, 25, [], 1)
    made = probe(tmp_path/'a.mp4')
    assert (made.width, made.height) == (600, 704)
    few = open_template(folder/'d1.pkl')[:5]
    report = animate(folder/'s0.jpg', few, tmp_path/'b.mp4', net, Drive('exp'), landmarks=detector)
    assert (report.frames, report.fps) == (5, 30)
    report = animate(tmp_path/'d0.mp4', few, tmp_path/'c.mp4', net, landmarks=detector)
    assert (report.frames, report.fps, report.lost) == (4, 25, [])
    for name in ('s3', 's4', 's5', 's6', 's7'):
        picture = next(iter(open_footage(folder/f'{name}.jpg')))
        assert len(detector(picture)) == 1, name
