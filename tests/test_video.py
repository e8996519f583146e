"Video in and out: exact rates, sound, streaming, marks, hostile and broken files, full disks"
import os
import struct
import subprocess
import sys
import warnings
import wave
from fractions import Fraction
from itertools import count, islice
import av, numpy as np, pytest
from PIL import Image
from faceprivacy.video import (SYNTHETIC, Clip, is_marked, probe, read_frames, stamp, write_picture, write_video)

W, H = 96, 64

def frame(i, w=W, h=H):
    "A smooth picture whose left half tells its number"
    y, x = np.mgrid[:h, :w]
    x = np.stack([x*2 % 256, y*3 % 256, np.full_like(x, 128)], -1).astype(np.uint8)
    x[:, :w//2] = [10*(i % 24), 200, 255 - 10*(i % 24)]
    return x

def number(pixels): return round(pixels[8:-8, 8:W//2 - 8, 0].mean()/10)

def frames(n, **kw): return (frame(i, **kw) for i in range(n))

def tone(file, seconds, rate=44100, channels=2):
    t = np.arange(round(seconds*rate))/rate
    with wave.open(str(file), 'wb') as f:
        f.setnchannels(channels), f.setsampwidth(2), f.setframerate(rate)
        f.writeframes((8000*np.sin(2*np.pi*440*t)).astype('<i2').repeat(channels).tobytes())
    return file

def packets(file):
    with av.open(str(file)) as c: return [(float(p.pts*p.time_base), bytes(p)) for p in c.demux(audio=0) if p.dts is not None]

def leftovers(folder): return [f.name for f in folder.iterdir() if f.name.startswith('.')]

# rates, frames, sound

@pytest.mark.parametrize('fps', ['30000/1001', '24000/1001', '60000/1001', 25, 30, '25/2', '15', 50, '119/4', '2997/100'])
@pytest.mark.parametrize('kind', ['mp4', 'mov', 'mkv'])
def test_rate_and_frames_stay(tmp_path, fps, kind):
    file = tmp_path/f'a.{kind}'
    assert write_video(file, frames(20), fps) == 20
    found = probe(file)
    want = Fraction(30000, 1001) if fps == '2997/100' else Fraction(fps)
    if kind == 'mkv': assert abs(found.fps - want) < Fraction(1, 20), 'Matroska keeps milliseconds'
    else: assert found.fps == want
    assert (found.width, found.height, found.sound) == (W, H, None)
    assert [number(x) for x in read_frames(file)] == list(range(20))
    if kind != 'mkv':
        with av.open(str(file)) as c:
            assert [f.pts*f.time_base for f in c.decode(video=0)] == [i/want for i in range(20)], 'shown on the dot'

def test_again_and_again(tmp_path):
    write_video(tmp_path/'0.mp4', frames(30), 29.97)
    for i in range(3): write_video(tmp_path/f'{i + 1}.mp4', read_frames(tmp_path/f'{i}.mp4'), probe(tmp_path/f'{i}.mp4').fps)
    assert probe(tmp_path/'3.mp4').fps == Fraction(30000, 1001) and probe(tmp_path/'3.mp4').frames == 30
    assert [number(x) for x in read_frames(tmp_path/'3.mp4')] == [i % 24 for i in range(30)]

def test_pixels_and_colours_stay(tmp_path):
    flat = [np.full((H, W, 3), c, np.uint8) for c in ([200, 60, 30], [20, 180, 90], [128, 128, 128], [0, 0, 0], [255, 255, 255])]
    write_video(tmp_path/'a.mp4', flat, 25, crf=10)
    for x, y in zip(flat, read_frames(tmp_path/'a.mp4')): assert np.abs(x - y.astype(float)).max() <= 2
    with av.open(str(tmp_path/'a.mp4')) as c: assert next(c.decode(video=0)).colorspace == 6

@pytest.mark.parametrize('first, last', [(0, None), (0, 5), (3, 9), (10, None), (19, 20), (20, None), (5, 5), (50, None)])
def test_parts_of_a_clip(tmp_path, first, last):
    write_video(tmp_path/'a.mp4', frames(20), 25)
    assert [number(x) for x in read_frames(tmp_path/'a.mp4', first, last)] == list(range(20))[first:last]

def test_one_frame(tmp_path):
    write_video(tmp_path/'a.mp4', frames(1), 25)
    assert probe(tmp_path/'a.mp4').fps == 25 and len(list(read_frames(tmp_path/'a.mp4'))) == 1

@pytest.mark.parametrize('seconds', [.3, 2., 9.])
def test_sound_is_kept_and_cut_to_the_video(tmp_path, seconds):
    tone(tmp_path/'t.wav', seconds)
    assert write_video(tmp_path/'a.mp4', frames(60), '30000/1001', sound=tmp_path/'t.wav') == 60
    assert write_video(tmp_path/'b.mp4', frames(60), '30000/1001', sound=tmp_path/'a.mp4') == 60
    a, b = packets(tmp_path/'a.mp4'), packets(tmp_path/'b.mp4')
    assert a == b and probe(tmp_path/'b.mp4').sound == 'aac' and probe(tmp_path/'b.mp4').frames == 60
    assert 1024*len(b)/44100 == pytest.approx(min(seconds, 60*1001/30000), abs=.06)
    with av.open(str(tmp_path/'b.mp4')) as c:
        heard = np.concatenate([f.to_ndarray()[0] for f in c.decode(audio=0)])
    spectrum = np.abs(np.fft.rfft(heard[2000:12000]))
    assert spectrum.argmax()*44100/10000 == pytest.approx(440, abs=10)

def test_sound_stands_beside_its_frames(tmp_path):
    "Packets of a long clip alternate, so that a player need not jump"
    tone(tmp_path/'t.wav', 8, 16000, 1)
    write_video(tmp_path/'a.mp4', frames(160), 20, sound=tmp_path/'t.wav')
    with av.open(str(tmp_path/'a.mp4')) as c: order = [(p.stream.type, p.pos) for p in c.demux() if p.pos is not None and p.size]
    kinds = [kind for kind, _ in sorted(order, key=lambda x: x[1])]
    assert max(len(run) for run in ''.join(k[0] for k in kinds).split('v')) < 60

def test_a_source_without_sound(tmp_path):
    write_video(tmp_path/'a.mp4', frames(5), 25)
    write_video(tmp_path/'b.mp4', frames(5), 25, sound=tmp_path/'a.mp4')
    assert probe(tmp_path/'b.mp4').sound is None

def test_frames_are_not_hoarded(tmp_path):
    "At no time is more than a few of 100 frames alive"
    alive, most = 0, 0
    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= self.base is not None and type(self.base) is not Counted
    def made():
        nonlocal alive, most
        for i in range(100):
            x = frame(i, 320, 320)[:].view(Counted)
            alive += 1
            most = max(most, alive)
            yield x
            del x
    write_video(tmp_path/'a.mp4', made(), 25, crf=40)
    assert most < 5
    assert len(list(islice(read_frames(tmp_path/'a.mp4'), 2))) == 2

def test_writing_asks_for_frames_one_by_one(tmp_path):
    asked = count()
    def endless():
        while next(asked) < 12: yield frame(0)
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): write_video(tmp_path/'a.mp4', endless(), 25)
    assert next(asked) == 13 and not list(tmp_path.iterdir())

def test_odd_names(tmp_path, monkeypatch):
    "Names that ffmpeg or a shell would read as something else"
    folder = tmp_path/"it's; a $(dir) %d"
    folder.mkdir()
    for name in ('concat:a|b.mp4', 'http:x.mp4', '-i.mp4', 'a%03d.mp4', 'ä ö.mp4', '"$(touch x)".mp4'):
        write_video(folder/name, frames(3), 25)
        monkeypatch.chdir(folder)
        for file in (folder/name, name): assert len(list(read_frames(file))) == 3
    assert len(list(folder.iterdir())) == 6 and not (tmp_path/'x').exists()

def test_upright(tmp_path):
    "A turned phone: the matrix in the track's header says so"
    write_video(tmp_path/'a.mp4', frames(3), 25)
    data = bytearray((tmp_path/'a.mp4').read_bytes())
    at = data.index(b'tkhd') + 4 + 40
    for turn, matrix in ((1, (0, -1, 1, 0)), (-1, (0, 1, -1, 0)), (2, (-1, 0, 0, -1))):
        a, b, c, d = (v*65536 for v in matrix)
        data[at:at + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
        (tmp_path/'b.mp4').write_bytes(data)
        found, want = next(read_frames(tmp_path/'b.mp4')), np.rot90(next(read_frames(tmp_path/'a.mp4')), turn)
        assert np.array_equal(found, want)
        assert (probe(tmp_path/'b.mp4').height, probe(tmp_path/'b.mp4').width) == want.shape[:2]

# marks

@pytest.mark.parametrize('kind', ['mp4', 'mov', 'mkv'])
@pytest.mark.parametrize('synthetic', [True, False])
def test_videos_say_what_they_are(tmp_path, kind, synthetic):
    file = tmp_path/f'a.{kind}'
    write_video(file, frames(3), 25, synthetic=synthetic)
    assert is_marked(file) == synthetic and (probe(file).comment == SYNTHETIC) == synthetic

def test_visible_mark(tmp_path):
    plain = [np.full((256, 256, 3), 128, np.uint8)]*3
    write_video(tmp_path/'a.mp4', plain, 25, visible=True)
    found = next(read_frames(tmp_path/'a.mp4')).astype(float)
    assert found[225:250, 5:70].std() > 30 and found[:220].std() < 3
    assert (plain[0] == 128).all(), 'the given frames are not drawn upon'

@pytest.mark.parametrize('shape', [(16, 16), (64, 300), (300, 64), (1080, 1920), (40, 40)])
def test_stamp_fits_any_picture(shape):
    x = np.full((*shape, 3), 128, np.uint8)
    changed = (stamp(x) != x).any(-1)
    assert changed.any() and changed.mean() < .9 and not changed[0].all()

@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.JPEG'])
def test_pictures_say_what_they_are(tmp_path, name):
    for synthetic in (True, False):
        write_picture(tmp_path/name, frame(3), synthetic)
        assert is_marked(tmp_path/name) == synthetic
    write_picture(tmp_path/name, frame(3), visible=True)
    found = np.array(Image.open(tmp_path/name)).astype(int)
    assert np.abs(found[:30] - frame(3)[:30]).mean() < 6 and np.abs(found[45:, :40] - frame(3)[45:, :40]).mean() > 20
    assert not leftovers(tmp_path)

# bad input

def test_bad_frames(tmp_path):
    file = tmp_path/'a.mp4'
    write_video(file, frames(3), 25)
    before = file.read_bytes()
    wrong = {'no frames': ([], 'there are no frames'), 'odd': (frames(3, w=95), 'even sides are wanted, not 95 x 64'),
             'size': ([frame(0), frame(1, w=64)], 'frame 1: 96 x 64 as the first'), 'floats': ([frame(0)/255], r'frame: RGB \(h, w, 3\) uint8'),
             'late floats': ([frame(0), frame(0)/255], 'frame 1: RGB'), 'grey': ([frame(0)[..., 0]], 'frame: RGB'), 'none': ([frame(0), None], 'frame 1')}
    for given, message in wrong.values():
        with pytest.raises(ValueError, match=message): write_video(file, given, 25)
        assert file.read_bytes() == before and [f.name for f in tmp_path.iterdir()] == ['a.mp4']
    for fps in (0, -25, 'x', float('nan'), None):
        with pytest.raises(ValueError, match='fps: '): write_video(file, frames(3), fps)
    with pytest.raises(ValueError, match=r"a.avi: a video is written as one of \['.mp4'"): write_video(tmp_path/'a.avi', frames(3), 25)
    with pytest.raises(ValueError, match='is written as .png or .jpg'): write_picture(tmp_path/'a.gif', frame(0))
    with pytest.raises(FileNotFoundError, match='no video at'): write_video(file, frames(3), 25, sound=tmp_path/'none.mp4')
    assert file.read_bytes() == before

def test_files_that_are_no_videos(tmp_path):
    video = tmp_path/'v.mp4'
    write_video(video, frames(3), 25)
    Image.fromarray(frame(0)).save(tmp_path/'p.mp4', 'PNG')
    (tmp_path/'list.mp4').write_text(f'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{video}\n#EXT-X-ENDLIST\n')
    (tmp_path/'list.m3u8').write_text((tmp_path/'list.mp4').read_text())
    (tmp_path/'concat.mp4').write_text(f"ffconcat version 1.0\nfile '{video}'\n")
    (tmp_path/'empty.mp4').write_bytes(b'')
    (tmp_path/'noise.mp4').write_bytes(os.urandom(5000))
    for name in ('p.mp4', 'list.mp4', 'list.m3u8', 'concat.mp4', 'empty.mp4', 'noise.mp4'):
        with pytest.raises(ValueError, match='no whole video|has no') as e: probe(tmp_path/name)
        assert name in str(e.value)
    tone(tmp_path/'t.wav', 1)
    with pytest.raises(ValueError, match='t.wav: has no video'): next(read_frames(tmp_path/'t.wav'))
    for missing in (tmp_path, tmp_path/'x.mp4', 'http://example.invalid/a.mp4'):
        with pytest.raises(FileNotFoundError, match='no video at'): probe(missing)
    for first, last in ((-1, None), (5, 2)):
        with pytest.raises(ValueError, match='first, last:'): next(read_frames(video, first, last))

def test_cut_files(tmp_path):
    "Cut anywhere: an error that names the file, or a warning that says how much there was"
    write_video(tmp_path/'a.mp4', frames(60), 25)
    data, endings, found = (tmp_path/'a.mp4').read_bytes(), set(), 0
    for share in np.linspace(.02, .98, 9):
        (tmp_path/'b.mp4').write_bytes(data[:int(share*len(data))])
        with warnings.catch_warnings(record=True) as said:
            try: found = len(list(read_frames(tmp_path/'b.mp4')))
            except ValueError as e: assert 'b.mp4' in str(e)
            else: assert found == 60 or f'b.mp4: says it has 60 frames, {found} could be read' in str(said[0].message)
        endings.add(found if not said else 'warned')
    assert 'warned' in endings

def test_changed_files(tmp_path, recwarn):
    write_video(tmp_path/'a.mp4', frames(20), 25)
    data, rng = (tmp_path/'a.mp4').read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 20): changed[at] = rng.integers(0, 256)
        (tmp_path/'b.mp4').write_bytes(changed)
        try:
            for x in read_frames(tmp_path/'b.mp4'): assert x.dtype == np.uint8 and x.ndim == 3
            assert isinstance(probe(tmp_path/'b.mp4'), Clip)
        except ValueError as e: assert 'b.mp4' in str(e) or 'fps' in str(e)

def test_huge_frames_are_refused(tmp_path, monkeypatch):
    write_video(tmp_path/'a.mp4', frames(3), 25)
    monkeypatch.setattr('faceprivacy.video.MOST_PIXELS', 1000)
    with pytest.raises(ValueError, match='a.mp4: frames of 96 x 64; at most 1000 pixels'): probe(tmp_path/'a.mp4')

FULL = '''
import resource, sys
import numpy as np
from faceprivacy.video import write_video
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # as if the disk were full
rng = np.random.default_rng(0)
try: write_video(sys.argv[1], (rng.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(60)), 25)
except OSError as e: print('OSError', e)
'''

def test_full_disk(tmp_path):
    file = tmp_path/'a.mp4'
    write_video(file, frames(3), 25)
    before = file.read_bytes()
    done = subprocess.run([sys.executable, '-c', FULL, str(file)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith('OSError'), done.stderr
    assert 'a.mp4' in done.stdout and file.read_bytes() == before and not leftovers(tmp_path)

# the official clips

def test_official_clips(real_data, tmp_path):
    found = {name: real_data/'liveportrait'/f'{name}.mp4' for name in ('d0', 'd18')}
    if not all(f.is_file() for f in found.values()): pytest.skip('no liveportrait/d0.mp4 and d18.mp4 among the real data')
    assert probe(found['d0']) == Clip(512, 512, Fraction(25), 78, None, '')
    assert probe(found['d18']) == Clip(480, 480, Fraction(30), 216, 'aac', '')
    assert write_video(tmp_path/'a.mp4', read_frames(found['d18'], last=45), 30, sound=found['d18']) == 45
    heard = packets(tmp_path/'a.mp4')
    assert [p for _, p in heard] == [p for _, p in packets(found['d18'])][:len(heard)] and heard[-1][0] == pytest.approx(1.5, abs=.05)
