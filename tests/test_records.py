"What records must not do: carry keys, open IronMask, or load what does not fit"
import json
import os

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load, save_file

from faceprivacy.records import load_keys, load_records, save_keys, save_records
from faceprivacy.slerp import Slerp
from faceprivacy.template_schemes import SCHEMES, BioHash, PolyProtect

IDS = list('abcd')

def made(name, n=4):
    g = torch.Generator().manual_seed(0)
    s, z = SCHEMES[name](64), F.normalize(torch.randn(n, 64, generator=g), dim=1)
    keys = s.keys(n, g)
    return s, z, keys, s.protect(z, keys)

def stored(name, folder):
    s, z, keys, record = made(name)
    save_records(folder/'r', s, record, 'small', IDS)
    if s.key_bytes: save_keys(folder/'k', s, keys, IDS, record)
    return s, z, keys, record

@pytest.mark.parametrize('name', SCHEMES)
def test_there_and_back(name, tmp_path):
    s, z, keys, record = stored(name, tmp_path)
    back, head = load_records(tmp_path/'r', s, 'small', tmp_path/'k')
    for k, v in vars(record).items(): assert torch.equal(getattr(back, k), v)
    known = load_keys(tmp_path/'k', s, head['key_ids']) if s.key_bytes else keys
    assert torch.equal(s.compare(back, z, known), s.compare(record, z, keys))

@pytest.mark.parametrize('name', SCHEMES)
def test_a_record_file_holds_what_a_template_leak_discloses(name, tmp_path):
    s, _, keys, record = stored(name, tmp_path)
    extra = {'weight'} if name == 'slerp' else set()  # official: the rows' lengths say it anyway
    assert set(load((tmp_path/'r').read_bytes())) - extra == set(s.leak('template', record, keys))

@pytest.mark.parametrize('name', ['plain', 'ironmask'])
def test_schemes_without_keys_store_none(name, tmp_path):
    s, _, keys, _ = made(name)
    with pytest.raises(ValueError, match='no key to keep'): save_keys(tmp_path/'k', s, keys, IDS)
    assert not (tmp_path/'k').exists()

def test_keys_are_no_records_and_records_no_keys(tmp_path):
    s, _, keys, record = made('biohash')
    with pytest.raises(TypeError, match='records are wanted, not Seeds'): save_records(tmp_path/'x', s, keys, 'small', IDS)
    with pytest.raises(TypeError, match='not Bits'): save_keys(tmp_path/'x', s, record, IDS)
    assert not (tmp_path/'x').exists()

def test_hardened_slerp_wants_its_keys(tmp_path):
    s, _, keys, _ = stored('slerp_hardened', tmp_path)
    with pytest.raises(ValueError, match='give keys='): load_records(tmp_path/'r', s)
    with pytest.raises(ValueError, match='give the records'): save_keys(tmp_path/'k', s, keys, IDS)
    other, _, k, record = made('slerp_hardened')
    save_keys(tmp_path/'few', other, k[[0]], IDS[:1], record[[0]])
    with pytest.raises(ValueError, match="no key of \\['b', 'c', 'd'\\]"): load_records(tmp_path/'r', s, keys=tmp_path/'few')

def test_ids_are_different(tmp_path):
    s, _, keys, record = made('biohash')
    with pytest.raises(ValueError, match='stands twice'): save_keys(tmp_path/'k', s, keys, 'aaaa')
    with pytest.raises(ValueError, match='stands twice'): save_records(tmp_path/'k', s, record, 'small', 'aaaa')

@pytest.mark.parametrize('change', [dict(key_ids=None), dict(key_ids=7), dict(key_ids=['a']), dict(key_ids=['a']*4)])
def test_headers_that_do_not_fit(change, tmp_path):
    s, *_ = stored('biohash', tmp_path)
    with safe_open(tmp_path/'r', 'pt') as f: head = json.loads(f.metadata()['faceprivacy']) | change
    save_file(load((tmp_path/'r').read_bytes()), tmp_path/'r', dict(faceprivacy=json.dumps(head)))
    with pytest.raises(ValueError): load_records(tmp_path/'r', s)

@pytest.mark.parametrize('head', ['[1]', '"a"', '7', 'null', '{}', '{"version": 1, "holds": []}'])
def test_headers_that_are_none(head, tmp_path):
    stored('biohash', tmp_path)
    save_file(load((tmp_path/'r').read_bytes()), tmp_path/'r', dict(faceprivacy=head))
    with pytest.raises(ValueError): load_records(tmp_path/'r')

def test_numbers_that_are_none(tmp_path):
    s, _, keys, record = made('polyprotect')
    record.vector[0, 0] = torch.nan
    save_records(tmp_path/'r', s, record, 'small', IDS)
    with pytest.raises(ValueError, match='NaN'): load_records(tmp_path/'r', s)

@pytest.mark.parametrize('mask', [0o000, 0o022, 0o077])
def test_only_the_owner_reads_keys(tmp_path, mask):
    before = os.umask(mask)
    try: stored('biohash', tmp_path)
    finally: os.umask(before)
    assert (tmp_path/'k').stat().st_mode & 0o777 == 0o600

@pytest.mark.parametrize('call, message', [
    (lambda d, s, k: load_records(d/'r', Slerp(64)), 'scheme is BioHash, not Slerp'),
    (lambda d, s, k: load_records(d/'r', BioHash(64, 32)), 'settings is'),
    (lambda d, s, k: load_records(d/'r', s, 'ir50'), 'extractor is small, not ir50'),
    (lambda d, s, k: load_records(d/'k'), 'holds Seeds'),
    (lambda d, s, k: load_keys(d/'r'), 'holds Bits'),
    (lambda d, s, k: load_keys(d/'k', s, ['x', 'a']), "no key of \\['x'\\]"),
    (lambda d, s, k: save_keys(d/'r', s, k, IDS), 'different files'),
    (lambda d, s, k: save_keys(d/'new', s, k, IDS[:2]), 'key_ids: 4 are wanted'),
    (lambda d, s, k: (d/'bad').write_bytes(b'\x80\x04pickle') and load_records(d/'bad'), 'no whole safetensors')])
def test_wrong_files_are_refused(tmp_path, call, message):
    s, _, keys, _ = stored('biohash', tmp_path)
    with pytest.raises(ValueError, match=message): call(tmp_path, s, keys)


def test_another_version_is_refused(tmp_path, monkeypatch):
    stored('biohash', tmp_path)
    monkeypatch.setattr('faceprivacy.records.VERSION', 2)
    with pytest.raises(ValueError, match='version 1, this code reads 2'): load_records(tmp_path/'r')
