"Crop geometry against its formula written out, cropping, choosing a face, and pasting back"
from math import acos
import cv2, numpy as np, pytest
from PIL import Image
from faceprivacy.portrait_crop import (CHOICES, EYES_MOUTH, Paste, Square, axes, choose, common_square, crop, feather, fit,
                                       inverse, matrix, move, read_picture, shrink, square)

@pytest.fixture
def rng(): return np.random.default_rng(0)

KINDS = sorted(EYES_MOUTH)

def face(n, rng):
    "Landmarks of kind n on a face about 100 wide: eyes and mouth where they belong, the rest around them"
    points = rng.uniform([-50, -60], [50, 60], (n, 2))
    for where, x, y in zip(EYES_MOUTH[n], (-20, 20, 0), (-15, -15, 30)):
        points[where] = [x, y] + rng.uniform(-3, 3, (len(where), 2))
    return points + [200, 180]

def similarity(points, angle=.5, zoom=2., shift=(30., -10)):
    c, s = np.cos(angle), np.sin(angle)
    return zoom*points @ np.array([[c, s], [-s, c]]) + shift

def written_out(points, dsize, scale, vx, vy, turn):
    "The map from the picture to the crop, step by step"
    left, right, mouth = (points[i].mean(0) for i in EYES_MOUTH[len(points)])
    a, b = (left + right)/2, mouth
    uy = (b - a)/np.linalg.norm(b - a)
    ux = np.array([uy[1], -uy[0]])
    mean = points.mean(0)
    across, down = (points - mean) @ ux, (points - mean) @ uy
    side = max(np.ptp(across), np.ptp(down))*scale
    centre = (mean + ux*(across.min() + across.max())/2 + uy*(down.min() + down.max())/2 + vx*side*ux + vy*side*uy)
    angle = (acos(ux[0]) if ux[1] >= 0 else -acos(ux[0]))*turn
    s, (x, y), h = dsize/side, centre, dsize/2
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[s*cos, s*sin, h - s*(cos*x + sin*y)], [-s*sin, s*cos, h - s*(-sin*x + cos*y)]])

@pytest.mark.parametrize('n', KINDS)
@pytest.mark.parametrize('turn', [True, False])
def test_map_is_the_formula(n, turn, rng):
    for angle in (0, .6, -2, 3):
        points = similarity(face(n, rng), angle)
        for scale, vx, vy in ((2.3, 0, -.125), (2.2, .1, -.1)):
            found = matrix(square(points, scale, vx, vy), 512, turn)
            assert np.abs(found - written_out(points, 512, scale, vx, vy, turn)).max() < 1e-9

@pytest.mark.parametrize('n, eye, mouth', [(5, [0], [3, 4]), (68, [36, 39], [48, 54]), (106, [33, 35, 40, 39], [52, 61]),
                                           (203, [0, 6, 12, 18], [48, 66]), (101, [39, 42, 45, 48], [75, 81])])
def test_index_sets(n, eye, mouth):
    assert EYES_MOUTH[n][0] == eye and EYES_MOUTH[n][2] == mouth
    assert len(EYES_MOUTH[n][1]) == len(eye) and not set(EYES_MOUTH[n][1]) & set(eye)

@pytest.mark.parametrize('n', KINDS)
def test_crop_follows_the_face(n, rng):
    points = face(n, rng)
    there = move(points, matrix(square(points)))
    for angle, zoom in ((.7, 3), (-3, .4), (1.5, 1)):
        other = similarity(points, angle, zoom)
        assert np.abs(move(other, matrix(square(other))) - there).max() < 1e-8
    assert np.linalg.norm(np.diff(axes(similarity(points, 2.)) - axes(points))) > 1

def test_upright_face_in_the_crop(rng):
    for n in KINDS:
        points = similarity(face(n, rng), 1.)
        inside = move(points, matrix(square(points, vy=0.)))
        left, right, mouth = (inside[i].mean(0) for i in EYES_MOUTH[n])
        assert abs(mouth[0] - (left[0] + right[0])/2) < 1e-6 and mouth[1] > left[1]
        assert np.ptp(inside, 0).max() == pytest.approx(512/2.3)
        assert (inside.min(0) + inside.max(0))/2 == pytest.approx([256, 256])

def test_there_and_back(rng):
    m = matrix(square(face(68, rng)))
    points = rng.uniform(0, 500, (50, 2))
    assert np.abs(move(move(points, m), inverse(m)) - points).max() < 1e-9

def test_common_square_is_the_mean_and_upright(rng):
    clip = [similarity(face(106, rng), .1*i, 1 + .1*i) for i in range(5)]
    one = common_square([clip[0], None, *clip[1:], None])
    each = [square(p, 2.2, 0, -.1) for p in clip]
    assert one.side == pytest.approx(np.mean([s.side for s in each])) and one.angle == 0
    assert one.centre == pytest.approx(np.mean([s.centre for s in each], 0))
    with pytest.raises(ValueError, match='clip: no frame has landmarks'): common_square([None, None])

# pictures

def waves(h, w):
    "A smooth picture"
    y, x = np.mgrid[:h, :w]
    return np.stack([127 + 120*np.sin(x/31 + k)*np.cos(y/(27 + k)) for k in range(3)], -1).astype(np.uint8)

def test_crop_takes_the_right_pixels():
    picture = waves(300, 400)
    found = crop(picture, matrix(Square((200., 150.), 100., 0.), 100), 100)
    assert np.array_equal(found, picture[100:200, 150:250])
    assert not crop(picture, matrix(Square((-500., 0.), 100., 0.), 64), 64).any()
    assert shrink(np.full((512, 512, 3), 7, np.uint8)).tolist() == np.full((256, 256, 3), 7).tolist()

@pytest.mark.parametrize('angle', [0, .3, -2.5])
def test_paste_back_is_the_whole_pictures_blend(angle, rng):
    picture, m = waves(300, 400), matrix(Square((210., 120.), 260., angle), 512)
    new = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)
    mask, there = (cv2.warpAffine(v, inverse(m), (400, 300), flags=cv2.INTER_LINEAR) for v in (feather(), new))
    want = mask[..., None]*there + (1 - mask[..., None])*picture
    found = Paste(picture, m)(new)
    assert np.abs(found - want).max() <= .5 + 4  # fixed-point weights of the warp
    assert np.abs(found - want).mean() < .6
    blend = (mask > 0) & (mask < 1)
    assert abs((found - want)[blend].mean()) < .1, 'rounded, not cut off'
    assert np.array_equal(found[mask == 0], picture[mask == 0]) and (mask == 0).any()

def test_round_trip_changes_little_and_nothing_outside(rng):
    picture = waves(360, 300)
    before = picture.copy()
    m = matrix(square(face(68, rng)[:, :]*.6, scale=2.), 512)
    paste = Paste(picture, m)
    found = paste(crop(picture, m))
    assert np.abs(found - picture.astype(float)).mean() < .5 and np.array_equal(picture, before)
    assert np.array_equal(paste(crop(picture, m)), found)

def test_own_mask():
    picture, m = waves(200, 200), matrix(Square((100., 100.), 100., 0.), 64)
    new = np.full((64, 64, 3), 9, np.uint8)
    assert np.array_equal(Paste(picture, m, 64, np.zeros((64, 64)))(new), picture)
    assert (Paste(picture, m, 64, np.ones((64, 64)))(new)[60:140, 60:140] == 9).all()

@pytest.mark.parametrize('size', [256, 512, 1024])
def test_feather(size):
    mask = feather(size)
    assert mask.dtype == np.float32 and mask.min() == 0 and mask.max() == 1 and mask[0, 0] == 0
    assert np.array_equal(mask, mask.T) and np.array_equal(mask, mask[::-1])
    assert (mask >= .99).mean() == pytest.approx(.883, abs=.012) and mask[size//2, 0] == pytest.approx(32/size)
    assert (np.diff(mask[size//2, :size//2]) >= 0).all()

# files

def test_pictures_of_every_kind(tmp_path):
    pixels = waves(61, 81)
    for mode, name in (('RGB', 'a.png'), ('RGB', 'a.jpg'), ('L', 'b.png'), ('RGBA', 'c.png'), ('P', 'd.png'), ('CMYK', 'e.jpg')):
        Image.fromarray(pixels).convert(mode).save(tmp_path/name)
        found = read_picture(tmp_path/name)
        assert found.shape == (60, 80, 3) and found.dtype == np.uint8
    assert np.array_equal(read_picture(tmp_path/'a.png', multiple=1), pixels)
    exif = Image.Exif()
    exif[0x112] = 6  # a phone held upright
    Image.fromarray(pixels).save(tmp_path/'f.png', exif=exif)
    assert np.array_equal(read_picture(tmp_path/'f.png', multiple=1), np.rot90(pixels, -1))

def test_sizes():
    assert fit(np.zeros((3000, 20, 3), np.uint8)).shape == (1280, 16, 3)
    assert fit(np.zeros((720, 1281, 3), np.uint8)).shape[1] == 1280
    picture = waves(128, 128)
    assert np.array_equal(fit(picture), picture)

def test_bad_pictures(tmp_path):
    (tmp_path/'a.png').write_bytes(b'not a picture')
    Image.fromarray(waves(200, 200)).save(tmp_path/'b.png')
    (tmp_path/'b.png').write_bytes((tmp_path/'b.png').read_bytes()[:2000])
    Image.new('RGB', (1, 1)).save(tmp_path/'c.png')
    for name, message in (('a.png', 'no picture'), ('b.png', 'no picture'), ('c.png', r'at least 16 pixels, not \(1, 1\)')):
        with pytest.raises(ValueError, match=message) as e: read_picture(tmp_path/name)
        assert name in str(e.value)
    for missing in (tmp_path, tmp_path/'d.png'):
        with pytest.raises(FileNotFoundError, match='no picture at'): read_picture(missing)

@pytest.mark.parametrize('image', [np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3)), None, 'x'])
def test_no_picture(image):
    with pytest.raises(ValueError, match=r'RGB \(h, w, 3\) uint8 is wanted'): crop(image, np.eye(2, 3))

@pytest.mark.parametrize('points, message', [
    (np.zeros((7, 2)), r'n of \[5, 68, 101, 106, 203\], is wanted, not \(7, 2\)'), (np.zeros((5, 3)), 'shape'),
    (np.full((5, 2), np.nan), 'NaN'), (np.ones((68, 2)), 'all lie at'), ([], 'shape'), (np.full((5, 2), np.inf), 'infinity')])
def test_bad_points(points, message):
    with pytest.raises(ValueError, match=message): square(points)

@pytest.mark.parametrize('scale', [0, -1, 21, float('nan')])
def test_bad_scale(scale, rng):
    with pytest.raises(ValueError, match='scale: 0.1 to 20'): square(face(5, rng), scale)

def test_eyes_on_the_mouth_are_upright():
    points = np.array([[0., 0], [10, 0], [5, 3], [0, 0], [10, 0]])
    assert np.array_equal(axes(points), np.eye(2)) and np.isfinite(matrix(square(points))).all()

def test_choices(rng):
    faces = [face(68, rng) + [0, 300], 2*face(5, rng), face(68, rng)*.5]
    for which in CHOICES[:-1]: assert len(choose(faces, which, (800, 800))) == 1
    assert choose(faces, 'largest') == choose(faces, 1) == choose(faces, -2) and choose(faces, 'smallest') == [2]
    assert choose(faces, 'top') == choose(faces, 'left') == [2] and choose(faces, 'all') == [0, 1, 2] and choose([]) == []
    for which, message in ((3, 'face 3 is asked for, there are 3'), ('big', "not 'big'"), ('middle', r'shape: \(h, w\)')):
        with pytest.raises(ValueError, match=message): choose(faces, which)

def test_real_paintings(real_data):
    files = sorted((real_data/'liveportrait').glob('s*.jpg'))
    if not files: pytest.skip('no liveportrait/s*.jpg among the real data')
    for file in files:
        picture = read_picture(file)
        h, w, _ = picture.shape
        assert max(h, w) <= 1280 and not h % 2 and not w % 2
        m = matrix(Square((w/2, h/2), .6*min(h, w), .2))
        assert np.abs(Paste(picture, m)(crop(picture, m)) - picture.astype(float)).mean() < 1
