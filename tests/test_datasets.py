"""Bad files of every kind, and the real LFW where it is at hand."""
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from faceprivacy.alignment import crop_face, detect
from faceprivacy.datasets import Faces, open_faces, open_rec, pack_people, save_faces, set_aside, write_faces
from faceprivacy.formats import (MAGIC, Blobs, Records, Zip, decode, encode, frame, pack, read_bin, unframe,
                                 unpack, write_bin, write_records)
from faceprivacy.pairs import Pairs, draw_pairs

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (112, 112, 3), dtype=np.uint8)
JPEG = encode(PIXELS)


# Images and archives

@pytest.mark.parametrize('data', [b'', b'text', JPEG[:100], JPEG[:len(JPEG)//2], b'\xff\xd8' + bytes(500)])
def test_damaged_image_is_named(data):
    with pytest.raises(ValueError, match='ann/1.jpg: not a whole image'): decode(data, 'ann/1.jpg')


def test_huge_image_is_not_decoded():
    head = b'P6 100000 100000 255\n'
    with pytest.raises(ValueError, match='not a whole image'): decode(head + bytes(99), 'bomb')
    png = b'\x89PNG\r\n\x1a\n' + struct.pack('>I4sIIBBBBB', 13, b'IHDR', 60000, 60000, 8, 2, 0, 0, 0) + bytes(4)
    with pytest.raises(ValueError, match='not a whole image'): decode(png, 'bomb')


@pytest.mark.parametrize('name', ['../x.jpg', 'a/../../x.jpg', '/etc/x.jpg', '..\\x.jpg', 'C:\\x.jpg', 'C:/x.jpg'])
def test_zip_that_leads_out_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path/'a.zip', 'w') as z: z.writestr('ok/1.jpg', JPEG), z.writestr(name, JPEG)
    with pytest.raises(ValueError, match='a.zip: entry .* leads out of the archive'): Zip(tmp_path/'a.zip')


def test_damaged_zips(tmp_path):
    with zipfile.ZipFile(tmp_path/'a.zip', 'w') as z: z.writestr('ann/1.jpg', JPEG)
    whole = (tmp_path/'a.zip').read_bytes()
    (tmp_path/'cut.zip').write_bytes(whole[:-30])
    with pytest.raises(ValueError, match='cut.zip: not a whole zip'): Zip(tmp_path/'cut.zip')
    (tmp_path/'bits.zip').write_bytes(whole.replace(JPEG[200:220], bytes(20)))
    with pytest.raises(ValueError, match='bits.zip: entry .*1.jpg.* is damaged'): Zip(tmp_path/'bits.zip')[0]


# RecordIO

def naive_frame(data):
    "The writer of dmlc-core, word by word"
    out, begin, magic = b'', 0, struct.pack('<I', MAGIC)
    for i in range(0, len(data)//4*4, 4):
        if data[i:i + 4] == magic:
            out += magic + struct.pack('<I', (2 if begin else 1) << 29 | i - begin) + data[begin:i]
            begin = i + 4
    last = magic + struct.pack('<I', (3 if begin else 0) << 29 | len(data) - begin) + data[begin:]
    return out + last + bytes(-len(data) % 4)


def test_frame_equals_the_official_loop():
    word = struct.pack('<I', MAGIC)
    for _ in range(3000):
        pieces = [word, word[:1], word[1:], word[:3], b'', b'ab', bytes(RNG.integers(0, 9))]
        data = b''.join(pieces[k] for k in RNG.integers(0, 7, RNG.integers(0, 14)))
        assert frame(data) == naive_frame(data)
        assert unframe(frame(data) + b'rest', 0) == (data, len(frame(data)))


@pytest.fixture
def train(tmp_path):
    write_faces(tmp_path/'train.rec', [(np.stack([PIXELS]*6), torch.arange(3).repeat_interleave(2))], 6, 3)
    return tmp_path/'train.rec'


def test_rec_cut_anywhere(train):
    data, index = train.read_bytes(), train.with_suffix('.idx').read_text()
    for size in RNG.integers(1, len(data), 40):
        train.write_bytes(data[:size])
        with pytest.raises(ValueError, match='train.(rec|idx).*(cut|no record)'): Records(train)
    train.write_bytes(b'')
    with pytest.raises(ValueError, match='train.idx: key 0 .* has 0 bytes'): Records(train)
    assert index


@pytest.mark.parametrize('text, message', [
    ('', 'is empty'), ('0\t0\n0\t40\n', 'key 0 stands there twice'), ('0\tzero\n', 'not lines of key, offset'),
    ('0\t0\n1\n', 'not lines of key, offset'), ('0\t2\n', 'key 0 is at byte 2'), ('0\t-4\n', 'key 0 is at byte -4'),
    ('0\t99999999\n', 'key 0 is at byte 99999999'), ('0\t8\n', 'no record begins at byte 8')])
def test_bad_index(train, text, message):
    train.with_suffix('.idx').write_text(text)
    with pytest.raises(ValueError, match=message): Records(train)


def test_record_in_the_middle_is_overwritten(train):
    data, records = bytearray(train.read_bytes()), Records(train)
    at = records.offsets[3]
    data[at:at + 4] = bytes(4)
    train.write_bytes(data)
    with pytest.raises(ValueError, match=r'train.rec\[3\]: no record begins'): open_rec(train)[2]


def test_missing_index_names_the_cure(train):
    train.with_suffix('.idx').unlink()
    with pytest.raises(FileNotFoundError, match='write_index'): Records(train)


def test_meta_records_are_not_images(train):
    faces = open_rec(train)
    assert (len(faces), faces.person.tolist()) == (6, [0, 0, 1, 1, 2, 2])
    assert len(Records(train)) == 1 + 6 + 3


def test_meta_record_that_lies(tmp_path):
    with write_records(tmp_path/'a.rec') as write: write(0, pack(b'', [9, 9])), write(1, pack(JPEG, 0, 1))
    with pytest.raises(ValueError, match='announces 8 images, 1 are there'): open_rec(tmp_path)


def test_label_arrays_and_sets_without_meta(tmp_path):
    with write_records(tmp_path/'a.rec') as write:
        for k in range(4): write(k, pack(JPEG, [5 + k//2, 1., 2.] if k % 2 else 5 + k//2, k))
    assert open_rec(tmp_path).person.tolist() == [5, 5, 6, 6]


def test_dcface_and_cvlface_layouts(tmp_path):
    for name, rows in dict(file=['0\tb/1.jpg', '1\ta/2.jpg', '2\tb/3.jpg'], train=['1\tx/2.jpg\t7', '0\tx/1.jpg\t8']).items():
        (tmp_path/name).mkdir()
        with write_records(tmp_path/name/f'{name}.rec') as write:
            for k in range(3): write(k, pack(encode(PIXELS//(k + 1)), 0, k))
        (tmp_path/name/('list.txt' if name == 'file' else 'train.tsv')).write_text('\n'.join(rows))
    dcface, cvlface = open_rec(tmp_path/'file'), open_rec(tmp_path/'train')
    assert (dcface.person.tolist(), dcface.name(1)) == ([1, 0, 1], 'a/2.jpg')
    assert (cvlface.person.tolist(), cvlface.names) == ([0, 1], ['x/2.jpg', 'x/1.jpg'])
    assert (cvlface.pixels(0) == decode(encode(PIXELS//2))).all()
    (tmp_path/'file'/'list.txt').write_text('7\ta/1.jpg\n')
    with pytest.raises(ValueError, match='list.txt: key 7 is not in file.rec'): open_rec(tmp_path/'file')


def test_writer_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match='announced were 5 of 3'):
        write_faces(tmp_path/'a.rec', [(np.stack([PIXELS]*2), [0, 1])], 5, 3)
    with pytest.raises(ValueError, match='person 0: not in a row'):
        write_faces(tmp_path/'a.rec', [(np.stack([PIXELS]*3), [0, 1, 0])], 3, 2)
    with pytest.raises(ValueError, match='ends in .rec'):
        with write_records(tmp_path/'a.dat'): pass
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match='exact to 2'): pack(b'', 2**24 + 1)
    with pytest.raises(ValueError, match='too few for its header'): unpack(struct.pack('<IfQQ', 9, 0, 0, 0))


# .bin

class Call:
    "Pickles as a call of `f(*args)`"
    def __init__(self, f, *args): self.call = f, args
    def __reduce__(self): return self.call


def calls(target):
    import builtins
    import os
    import subprocess
    yield Call(os.system, f'touch {target}')
    yield Call(subprocess.Popen, ['touch', str(target)])
    yield Call(builtins.eval, f"open({str(target)!r}, 'w')")
    yield Call(builtins.exec, f"open({str(target)!r}, 'w')")
    yield Call(builtins.getattr, np, 'save')
    yield Call(np.memmap, str(target), 'u1', 'w+', 0, (4,))


@pytest.mark.parametrize('protocol', range(6))
def test_hostile_pickles_run_nothing(tmp_path, protocol):
    for call in calls(tmp_path/'harm'):
        for value in (call, ([call, JPEG], [True]), ([JPEG, JPEG], [call]), ([JPEG, JPEG], call)):
            try: data = pickle.dumps(value, protocol)
            except (pickle.PicklingError, TypeError): continue
            (tmp_path/'a.bin').write_bytes(data)
            with pytest.raises(ValueError, match='a.bin: not a verification .bin .it asks for'): read_bin(tmp_path/'a.bin')
    assert not (tmp_path/'harm').exists()


@pytest.mark.parametrize('value, message', [
    (([JPEG], [True]), '1 images, 1 pairs, not two each'), (([], []), '0 images, 0 pairs'), (([JPEG]*4, [True]), '4 images'),
    (([JPEG, 'text'], [True]), 'an image is a str'), (([JPEG, {}], [True]), 'an image is a dict'),
    (([JPEG]*2, [2]), 'issame holds 2'), (([JPEG]*2, [None]), 'issame holds None'), (([JPEG]*2, 1), 'not iterable'),
    (([JPEG, np.ones(3)], [True]), 'array of <f8'), (([JPEG, np.array([[], 1], object)], [True]), r'array of \|O8'),
    ([1, 2, 3], 'too many values'), (7, 'not iterable'), (([JPEG, np.ones(3, '>i4')], [True]), 'array of >i4')])
def test_other_pickles_are_refused(tmp_path, value, message):
    (tmp_path/'a.bin').write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match=message): read_bin(tmp_path/'a.bin')


def test_cut_and_scrambled_pickles(tmp_path):
    data = pickle.dumps(([np.frombuffer(JPEG, 'u1')]*2 + [JPEG[:50]]*2, [True, np.bool_(False)]))
    for k in range(300):
        bad = bytearray(data[:RNG.integers(0, len(data))] if k % 2 else data)
        for at in RNG.integers(0, len(data), 3 if k % 2 == 0 else 0): bad[at] = RNG.integers(256)
        (tmp_path/'a.bin').write_bytes(bad)
        try: read_bin(tmp_path/'a.bin')
        except ValueError as e: assert 'a.bin' in str(e)


def test_pickles_that_would_fill_the_memory(tmp_path):
    for data in (b'\x80\x02]r\xff\xff\xff\x7f.', b'\x80\x04\x8e' + struct.pack('<Q', 2**40) + b'x.', b'(' * 100_000 + b'.'):
        (tmp_path/'a.bin').write_bytes(data)
        with pytest.raises(ValueError, match='a.bin: not a verification .bin'): read_bin(tmp_path/'a.bin')


def test_python_2_pickle(tmp_path):
    "Protocol 2 with byte strings as Python 2 wrote them: SHORT_BINSTRING"
    item = b'U' + bytes([20]) + JPEG[:20]
    (tmp_path/'a.bin').write_bytes(b'\x80\x02](' + item + item + b'e](\x88e\x86.')
    assert read_bin(tmp_path/'a.bin') == ([JPEG[:20]]*2, [True])


# Pairs

@pytest.mark.parametrize('text, message', [
    ('\n', 'line 1: folds and pairs'), ('ten 300\n', 'line 1: folds and pairs'), ('1 1\nA 1 2\n', '1 x 2 x 1 pairs are announced, 1 are there'),
    ('1 1\nA 1 2\nA 1 2\n', 'line 3: 4 fields'), ('1 1\nA 1 B 1\nA 1 B 1\n', 'line 2: 3 fields'),
    ('1 1\nA one 2\nA 1 B 1\n', 'line 2: 3 fields'), ('1 1\nA 1 9\nA 1 B 1\n', 'line 2: no image A_0009'),
    ('1 1\nA 1 2\n\nA 1 B 1\n', 'are announced, 3 are there'), ('A 1 2\nA 1 B 7\n', 'line 2: no image B_0007')])
def test_bad_pairs_txt(tmp_path, text, message):
    (tmp_path/'pairs.txt').write_text(text)
    with pytest.raises(ValueError, match='pairs.txt.*' + f'({message})'):
        Pairs.from_lfw(tmp_path/'pairs.txt', ['A/A_0001.jpg', 'A/A_0002.jpg', 'B/B_0001.jpg'])


@pytest.mark.parametrize('text, message', [
    ('', 'holds no pairs'), ('a/1.jpg\n', "line 1: no image ''"), ('a/1.jpg;b/9.jpg\n', "line 1: no image 'b/9.jpg'"),
    ('a/1.jpg;b/1.jpg;yes\n', "label 0 or 1, not 'yes'")])
def test_bad_list(tmp_path, text, message):
    (tmp_path/'list.txt').write_text(text)
    with pytest.raises(ValueError, match=message): Pairs.from_list(tmp_path/'list.txt', ['a/1.jpg', 'b/1.jpg'])


def test_lists_with_any_separator(tmp_path):
    for mark in ';\t, ':
        (tmp_path/'list.txt').write_text(f'a/1.png{mark}b/1.png{mark}1\r\n')
        assert Pairs.from_list(tmp_path/'list.txt', ['a/1.jpg', 'b/1.jpg']).mated.tolist() == [True]


def test_drawn_pairs_repeat_and_refuse():
    who = torch.arange(40).repeat_interleave(5)
    a, b = (draw_pairs(who, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert (a.left == b.left).all() and a.mated.sum() == (~a.mated).sum() and len(a.fold.unique()) == 10
    with pytest.raises(ValueError, match='folds: at least 1'): draw_pairs(who, 0)
    with pytest.raises(ValueError, match='fold 0: has 0 mated'): draw_pairs(torch.arange(40))
    with pytest.raises(ValueError, match='999 each are wanted'): draw_pairs(who, per_fold=999)
    with pytest.raises(ValueError, match='0 non-mated'): draw_pairs(who, group=who)


# Faces and folders of faces

def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='is not there'): open_faces('lfw', tmp_path/'nowhere')
    with pytest.raises(ValueError, match='folder: is empty, name'): open_faces('lfw', '')
    with pytest.raises(ValueError, match='is none of lfw, folder, rec, bin'): open_faces('mnist', tmp_path)
    with pytest.raises(ValueError, match='no images in it'): open_faces('folder', tmp_path)
    with pytest.raises(ValueError, match='0 .rec files in it'): open_faces('rec', tmp_path)


def test_faces_check_their_labels():
    with pytest.raises(ValueError, match='person: 2 for 1 images'): Faces(Blobs([JPEG], ['a']), [0, 1])
    faces = Faces(Blobs([JPEG], ['a']), [0])
    with pytest.raises(IndexError, match='image 1 of 1'): faces[1]
    with pytest.raises(ValueError, match='test_people: 2 to 1'): set_aside(faces, 1)
    faces.dtype = torch.uint8
    assert (faces[0][0].permute(1, 2, 0).numpy() == decode(JPEG)).all()


def test_changed_files_are_noticed(tmp_path):
    for p in 'abcd':
        (tmp_path/'raw'/p).mkdir(parents=True)
        for k in range(3): (tmp_path/'raw'/p/f'{k}.jpg').write_bytes(JPEG)
    faces = set_aside(open_faces('folder', tmp_path/'raw'), 2, folds=1)
    save_faces(tmp_path/'out', faces, 'folder')
    again = open_faces(tmp_path/'out', tmp_path/'raw')
    assert (again.pairs.left == faces.pairs.left).all() and len(again.test) == 6
    assert str(tmp_path) not in (tmp_path/'out'/'source.json').read_text()
    (tmp_path/'raw'/'a'/'3.jpg').write_bytes(JPEG)
    with pytest.raises(ValueError, match='not the files that'): open_faces(tmp_path/'out', tmp_path/'raw')


def test_workers_open_their_own_files(tmp_path, train):
    with zipfile.ZipFile(tmp_path/'a.zip', 'w') as z:
        for k in range(6): z.writestr(f'{k//2}/{k}.jpg', encode(PIXELS))
    for faces in (open_rec(train), open_faces('folder', tmp_path/'a.zip')):
        loader = torch.utils.data.DataLoader(faces, 2, num_workers=2, multiprocessing_context='fork')
        assert torch.cat([x for x, _ in loader]).equal(faces.images(range(6)))
        assert pickle.loads(pickle.dumps(faces)).images(range(6)).equal(faces.images(range(6)))  # as spawn does


def test_people_repeat_byte_for_byte(tmp_path):
    for name in 'ab': pack_people(tmp_path/name, people=2, test_people=4, shots=2, folds=2)
    for file in (tmp_path/'a').iterdir(): assert file.read_bytes() == (tmp_path/'b'/file.name).read_bytes()
    assert {f.name for f in (tmp_path/'a').iterdir()} == {
        'faces.rec', 'faces.idx', 'faces.safetensors', 'pairs.safetensors', 'source.json'}
    faces = open_faces(tmp_path/'a')
    assert len(faces) == 12 and len(faces.train) == 4 and len(faces.test.pairs) == 8


# Detection

@pytest.fixture
def detector(tmp_path):
    "A network with the nine outputs of insightface's SCRFD, that finds one face where the image is red"
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    nodes, constants, outputs = [], [], []
    def constant(name, x): constants.append(numpy_helper.from_array(np.asarray(x, np.float32), name))
    nodes.append(helper.make_node('ReduceMean', ['input.1'], ['mean'], axes=[0, 2, 3], keepdims=0))
    constant('blue_green_red', [[.5], [0], [-.5]])
    nodes.append(helper.make_node('MatMul', ['mean', 'blue_green_red'], ['redness']))
    for kind, width in (('score', 1), ('box', 4), ('points', 10)):
        for stride in (8, 16, 32):
            rows, name = (640//stride)**2*2, f'{kind}{stride}'
            value = np.zeros((rows, width), np.float32)
            if stride == 32: value[400] = dict(score=1, box=3, points=np.arange(10)/5)[kind]
            constant(name + 'c', value)
            nodes.append(helper.make_node('Mul', [name + 'c', 'redness'], [name]) if kind == 'score'
                         else helper.make_node('Identity', [name + 'c'], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, width]))
    shape = [1, 3, 'h', 'w']
    graph = helper.make_graph(nodes, 'scrfd', [helper.make_tensor_value_info('input.1', TensorProto.FLOAT, shape)],
                              outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 11)])
    model.ir_version = 8
    onnx.save(model, tmp_path/'det.onnx')
    return tmp_path


def test_detector_gets_the_colours_it_expects(detector):
    "insightface hands its network RGB, channel 0 red; ours weighs channel 0 up and channel 2 down"
    red, blue = (np.full((640, 640, 3), c, np.uint8) for c in ([255, 0, 0], [0, 0, 255]))
    face, = detect(red, detector)
    x, y = 32*(200 % 20), 32*(200//20)
    assert face['box'] == pytest.approx([x - 96, y - 96, x + 96, y + 96])
    assert face['points'][4] == pytest.approx([x + 32*8/5, y + 32*9/5])
    assert detect(blue, detector) == []
    assert crop_face(blue, detector).shape == (112, 112, 3)


def test_folder_without_a_detector(tmp_path, real_data):
    with pytest.raises(FileNotFoundError, match='Nothing is downloaded'): detect(PIXELS, tmp_path)
    with pytest.raises(ValueError, match='knows none of its .onnx as a detector'): detect(PIXELS, real_data/'models')


# The real LFW

@pytest.fixture(scope='module')
def lfw(real_data): return open_faces('lfw', real_data/'lfw')


def test_lfw_counts(lfw):
    assert (len(lfw), len(lfw.person.unique()), len(lfw.pairs)) == (13233, 5749, 6000)
    assert lfw.pairs.fold.bincount().tolist() == [600]*10 and lfw.pairs.mated.sum() == 3000
    assert (lfw.person[lfw.pairs.left] == lfw.person[lfw.pairs.right]).equal(lfw.pairs.mated)
    assert lfw.group.unique(return_counts=True)[1].tolist() == [9, 2961, 10263]
    assert (len(lfw.test), len(lfw.test.person.unique())) == (7701, 4281)
    assert not set(lfw.test.person.tolist()) & set(lfw.person[lfw.split == 0].tolist())


def test_lfw_decodes(lfw):
    x = lfw.images(RNG.integers(0, len(lfw), 64))
    assert x.shape == (64, 3, 112, 112) and -.6 < x.mean() < .2 and x.std() > .3


def test_lfw_views_and_round_trips(lfw, real_data, tmp_path):
    names = [s.split('/')[-1] for s in lfw.names]
    assert [len(Pairs.from_lfw(real_data/'lfw'/f'pairsDev{s}.txt', names)) for s in ('Train', 'Test')] == [2200, 1000]
    save_faces(tmp_path/'faces', lfw, 'lfw')
    assert str(real_data) not in (tmp_path/'faces'/'source.json').read_text()
    again = open_faces(tmp_path/'faces', real_data/'lfw')
    assert again.pairs.left.equal(lfw.pairs.left) and again.split.equal(lfw.split)
    few = lfw.test.subset(range(300))
    write_bin(tmp_path/'lfw.bin', [lfw.jpeg(int(i)) for k in range(20) for i in (lfw.pairs.left[k], lfw.pairs.right[k])],
              lfw.pairs.mated[:20].tolist())
    held = open_faces('bin', tmp_path/'lfw.bin')
    assert held.images([3]).equal(lfw.images([lfw.pairs.right[1]])) and len(few) == 300
