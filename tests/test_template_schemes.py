"Template schemes and their records: what the papers say of them, and what wrong input says"
import math
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from faceprivacy.records import load_keys, load_records, save_keys, save_records
from faceprivacy.slerp import GRADES, Slerp
from faceprivacy.template_schemes import (SCHEMES, BioHash, IronMask, MLPHash, Polynomials, PolyProtect, Seeds, digests,
                                          draw_seeds, orthonormal, plane_rotation, record_bytes, scenario_scores, uniforms)

NAMES = list(SCHEMES)


@pytest.fixture
def generator(): return torch.Generator().manual_seed(0)


def unit(*shape, generator): return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


@pytest.mark.parametrize('name', NAMES)
def test_a_scheme_keeps_its_promises(name, generator):
    s, z = SCHEMES[name](64), unit(20, 64, generator=generator)
    keys = s.keys(20, generator)
    record = s.protect(z, keys)
    same, other = s.compare(record, z, keys), s.compare(record, z.roll(1, 0), keys)
    assert same.min() > other.max() and same.shape == (20,)
    every = s.identify(z, record, keys)
    assert torch.allclose(every.diag(), same, atol=1e-4)
    for i in (0, 7): assert torch.allclose(every[i], s.compare(record, z[[i]*20], keys), atol=1e-4)
    assert record_bytes(record) > 0 and s.key_bytes >= 0
    held = [set(s.leak(g, record, keys)) for g in GRADES]
    assert held[0] <= held[1] <= held[2]


@pytest.mark.parametrize('name', [n for n in NAMES if n not in ('plain', 'ironmask')])
def test_a_revoked_key_scores_like_a_stranger(name, generator):
    s, z = SCHEMES[name](64), unit(200, 64, generator=generator)
    old, new = s.keys(200, generator), s.keys(200, generator)
    record = s.protect(z, old)
    renewed, stranger = s.compare(record, z, new), s.compare(record, z.roll(1, 0), new)
    assert abs(renewed.mean() - stranger.mean()) < .5*stranger.std() + .02


@pytest.mark.parametrize('name', NAMES)
def test_the_same_generator_gives_the_same_record(name):
    s, z = SCHEMES[name](64), unit(3, 64, generator=torch.Generator().manual_seed(1))
    a, b = (s.protect(z, s.keys(3, torch.Generator().manual_seed(2))) for _ in range(2))
    for x, y in zip(vars(a).values(), vars(b).values()): assert torch.equal(x, y)
    c = s.protect(z, s.keys(3))  # from secrets
    if name != 'plain': assert not torch.equal(next(iter(vars(a).values())), next(iter(vars(c).values())))


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('spoil, message', [
    (lambda z: z*2, 'length'), (lambda z: z*0, 'length'), (lambda z: z[:, :32], 'z'), (lambda z: z[:2], 'keys|one a key'),
    (lambda z: z.where(z != z[0, 0], torch.nan), 'NaN|finite')])
def test_bad_templates_are_refused(name, spoil, message, generator):
    s, z = SCHEMES[name](64), unit(3, 64, generator=generator)
    if name.startswith('slerp') and message == 'length': pytest.skip('directions only: lengths do not matter')
    with pytest.raises(ValueError, match=message): s.protect(spoil(z), s.keys(3, generator))


def test_bad_keys_are_refused(generator):
    z = unit(3, 64, generator=generator)
    with pytest.raises(ValueError, match='one a key'): BioHash(64).protect(z, draw_seeds(4, generator))
    with pytest.raises(ValueError, match='bytes are wanted'): uniforms(Seeds(torch.zeros(3, 8, dtype=torch.uint8)), 2)
    with pytest.raises(ValueError, match='5 coefficients'):
        PolyProtect(64).protect(z, Polynomials(torch.ones(3, 4).long(), torch.ones(3, 4).long()))
    with pytest.raises(ValueError, match='overlap'): PolyProtect(64, overlap=5)
    with pytest.raises(ValueError, match='reduced QR'): BioHash(64, 65)


@pytest.mark.parametrize('bits, cosine', [(512, .795), (128, .384)])
def test_biohash_inverts_by_one_line(bits, cosine, generator):
    s, z = BioHash(512, bits), unit(30, 512, generator=generator)
    keys = s.keys(30, generator)
    held = s.leak('full', s.protect(z, keys), keys)
    back = torch.einsum('ndl,nl->nd', held['matrix'], 2*held['bits'].float() - 1)
    assert F.cosine_similarity(back, z).mean().item() == pytest.approx(cosine, abs=.02)


def test_biohash_is_the_published_computation(generator):
    s, z = BioHash(32, 20), unit(4, 32, generator=generator)
    keys = s.keys(4, generator)
    for i, x in enumerate(uniforms(keys, 32, 20).double().numpy()):
        y = z[i].double().numpy() @ np.linalg.qr(x)[0]
        assert ((y > y.mean()) == s.protect(z, keys).bits[i].numpy()).mean() >= 19/20  # last bits of float32


def test_mlp_hash_layers_are_semi_orthogonal(generator):
    for w, (a, b) in zip(MLPHash(32, 64, 3).layers(draw_seeds(2, generator)), ((32, 64), (64, 64), (64, 64))):
        assert w.shape == (2, a, b) and torch.allclose(w @ w.mT, torch.eye(a).expand(2, a, a), atol=1e-4)


def test_polyprotect_sizes_and_trend(generator):
    assert [PolyProtect(512, 7, o).length for o in range(7)] == [74, 86, 102, 128, 170, 254, 506]
    who, who_not = unit(300, 128, generator=generator), unit(300, 128, generator=generator)
    probe = F.normalize(who + .6*who_not, dim=1)
    def apart(overlap):
        s, g = PolyProtect(128, overlap=overlap), torch.Generator().manual_seed(1)
        keys = s.keys(300, g)
        record = s.protect(who, keys)
        mated, other = s.compare(record, probe, keys), s.compare(record, probe.roll(1, 0), keys)
        return (mated.mean() - other.mean())/other.std()
    assert apart(0) < apart(2) < apart(4), 'more overlap, more of the person'


def test_ironmask_turns_a_template_to_its_codeword(generator):
    s, z = IronMask(512), unit(5, 512, generator=generator)
    record = s.protect(z, s.keys(5, generator))
    y = (record.rotation @ z[..., None])[..., 0]
    assert torch.allclose(y, s.decode(y), atol=1e-5) and torch.equal(digests(s.decode(y)), record.digest)
    assert ((s.decode(y) != 0).sum(1) == 16).all()
    eye = record.rotation @ record.rotation.mT
    assert torch.allclose(eye, torch.eye(512).expand_as(eye), atol=1e-4)
    assert s.key_space == pytest.approx(115.4, abs=.1)


def test_plane_rotation_is_one(generator):
    t, c = (unit(6, 24, generator=generator).double() for _ in range(2))
    R = plane_rotation(t, c)
    assert torch.allclose((R @ t[..., None])[..., 0], c, atol=1e-6)
    assert torch.allclose(torch.linalg.det(R), torch.ones(6).double(), atol=1e-5)
    other = unit(6, 24, generator=generator).double()
    basis = torch.linalg.qr(torch.stack([t, c], -1)).Q
    off = other - (basis @ (basis.mT @ other[..., None]))[..., 0]
    assert torch.allclose((R @ off[..., None])[..., 0], off, atol=1e-6)


def test_orthonormal_is_qr(generator):
    x = torch.randn(70, 8, 5, generator=generator)
    q, r = orthonormal(x)
    assert torch.allclose(q @ r, x, atol=1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_scenarios(name, generator):
    z = unit(40, 64, generator=generator)
    data = dict(z=torch.cat([z, F.normalize(z + .4*unit(40, 64, generator=generator), dim=1)]),
                person=torch.arange(40).repeat(2), left=torch.arange(40).repeat(2),
                right=torch.cat([torch.arange(40, 80), torch.arange(40, 80).roll(1)]))
    data |= dict(mated=torch.arange(80) < 40, fold=torch.arange(80) % 10)
    kept, stolen = (scenario_scores(SCHEMES[name](64), data, s, torch.Generator().manual_seed(3)) for s in (False, True))
    assert np.allclose(kept.score[kept.mated], stolen.score[stolen.mated], atol=1e-5), 'mated pairs have one key'
    assert kept.score[kept.mated].mean() > kept.score[~kept.mated].mean()


# records

@pytest.fixture
def stored(tmp_path, generator):
    s, z = BioHash(64), unit(3, 64, generator=generator)
    keys = s.keys(3, generator)
    save_records(tmp_path/'r', s, s.protect(z, keys), 'small', 'abc')
    save_keys(tmp_path/'k', s, keys, 'abc')
    return tmp_path, s, keys


def test_records_and_keys_come_back(stored):
    folder, s, keys = stored
    record, head = load_records(folder/'r', s, 'small')
    assert head['key_ids'] == list('abc') and record.bits.dtype == torch.bool
    assert torch.equal(load_keys(folder/'k', s, 'ca').seed, keys.seed[[2, 0]])
    assert os.stat(folder/'k').st_mode & 0o777 == 0o600
    assert b'seed' not in (folder/'r').read_bytes()


@pytest.mark.parametrize('call, message', [
    (lambda d, s, k: load_records(d/'r', Slerp(64)), 'scheme is BioHash, not Slerp'),
    (lambda d, s, k: load_records(d/'r', BioHash(64, 32)), 'settings is'),
    (lambda d, s, k: load_records(d/'r', s, 'ir50'), 'extractor is small, not ir50'),
    (lambda d, s, k: load_records(d/'k'), 'holds Seeds'),
    (lambda d, s, k: load_keys(d/'r'), 'holds Bits'),
    (lambda d, s, k: load_keys(d/'k', s, 'xa'), "no key of \\['x'\\]"),
    (lambda d, s, k: save_keys(d/'r', s, k, 'abc'), 'different files'),
    (lambda d, s, k: save_keys(d/'new', s, k, 'ab'), 'key_ids: 3 are wanted'),
    (lambda d, s, k: (d/'bad').write_bytes(b'\x80\x04pickle') and load_records(d/'bad'), 'no whole safetensors')])
def test_wrong_files_are_refused(stored, call, message):
    with pytest.raises(ValueError, match=message): call(*stored)


def test_another_version_is_refused(stored, monkeypatch):
    folder, s, keys = stored
    monkeypatch.setattr('faceprivacy.records.VERSION', 2)
    with pytest.raises(ValueError, match='version 1, this code reads 2'): load_records(folder/'r')
