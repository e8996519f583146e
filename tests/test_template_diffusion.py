"""Diffusion from templates: schedules, guidance, starts, checkpoints, folders, bad input."""
import shutil

import pytest
import torch
import torch.nn.functional as F

from faceprivacy.template_diffusion import (
    SCHEDULERS, PatchCodec, TemplateDenoiser, TemplateDiffusionPipeline, clean, diffusion_loss, fit_codec,
    fit_ridge, new_pipeline, noise_schedule, train_codec, train_diffusion, wander)


def generator(seed=0): return torch.Generator().manual_seed(seed)


@pytest.fixture(scope='module')
def data():
    "Smooth random pictures and templates"
    x = F.interpolate(torch.rand(48, 3, 8, 8, generator=generator()), size=32, mode='bilinear')*2 - 1
    return x, F.normalize(torch.randn(48, 16, generator=generator(1)))


@pytest.fixture
def pipe(data):
    torch.manual_seed(0)
    return new_pipeline(*data, channels=8, width=16, depth=2)


@pytest.mark.parametrize('size, patch', [(32, 8), (32, 4), (112, 8)])
def test_the_codec_is_a_projection(size, patch):
    x = torch.rand(6, 3, size, size, generator=generator())*2 - 1
    codec = fit_codec(x, 12, patch)
    latents = codec.encode(x)
    assert latents.shape == (6, 12, size//patch, size//patch)
    assert torch.allclose(codec.encode(codec.plain(latents)), latents, atol=1e-3)
    assert latents.square().mean().sqrt() == pytest.approx(1, abs=.1)


def test_uint8_and_floats_fit_the_same_codec(data):
    bytes_ = ((data[0] + 1)*127.5).round().byte()
    assert torch.allclose(fit_codec(bytes_, 4).scale, fit_codec(bytes_.float()/127.5 - 1, 4).scale)


@pytest.mark.parametrize('name', SCHEDULERS)
def test_a_perfect_denoiser_is_led_to_the_picture(pipe, data, name):
    truth = pipe.encode(data[0][:4])
    pipe.use(name)
    def velocity(latents, t, z, hint, guidance):
        a = pipe.scheduler.alphas_cumprod[int(t)]
        noise = (latents - a.sqrt()*truth)/(1 - a).sqrt()
        return a.sqrt()*noise - (1 - a).sqrt()*truth
    object.__setattr__(pipe, 'guided', velocity)
    found = pipe.sample(data[1][:4], steps=10, generator=generator())
    assert torch.allclose(found, truth, atol=1e-4)


def test_velocity_and_clean_are_inverse():
    schedule, t = noise_schedule(), torch.arange(0, 1000, 111)
    x, e = (torch.randn(len(t), 2, 4, 4, generator=generator(i)) for i in range(2))
    found = clean(schedule, schedule.add_noise(x, e, t), schedule.get_velocity(x, e, t), t)
    assert torch.allclose(found, x, atol=1e-4)


def test_an_untrained_network_draws_around_the_hint(pipe, data):
    z = data[1][:1].expand(64, -1)
    found = pipe.use('ddim').sample(z, guidance=1, generator=generator())
    assert (found.mean(0) - pipe.denoiser.hint(z)[0]).abs().mean() < .2
    assert found.std(0).mean() == pytest.approx(1, abs=.2)


def test_guidance_of_one_asks_once_and_is_the_limit(pipe, data):
    z = data[1][:3]
    latents, t, hint = torch.randn(3, 8, 4, 4, generator=generator()), torch.tensor(500), pipe.denoiser.hint(z)
    with torch.no_grad():
        one, near = (pipe.guided(latents, t, z, hint, g) for g in (1, 1 + 1e-6))
    assert torch.allclose(one, near, atol=1e-4)


def test_the_start_is_kept_as_far_as_the_strength_says(pipe, data):
    start = pipe.encode(data[0][:4])
    def far(strength): return (pipe.sample(data[1][:4], start=start, strength=strength, generator=generator()) - start).norm()
    assert far(.05) < far(.4) < far(1.)


def test_the_best_of_n_is_at_least_as_good(pipe, data):
    def scorer(x, z): return x.flatten(1).mean(1)
    z = data[1][:6]
    one = pipe(z, generator=generator()).images
    four = pipe(z, candidates=4, scorer=scorer, generator=generator()).images
    assert (scorer(four, z) >= scorer(one, z) - 1e-6).all()


def test_steering_goes_where_the_scorer_points(pipe, data):
    def scorer(x, z): return x.flatten(1).mean(1)
    z = data[1][:6]
    plain, steered = (pipe(z, pull=p, scorer=scorer, generator=generator()).images for p in (0., 20.))
    assert (scorer(steered, z) > scorer(plain, z)).all()


def test_the_same_generator_draws_the_same(pipe, data):
    a, b, c = (pipe.invert(data[1][:2], generator=generator(s), steps=3) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_wandering_ends_at_the_times_it_says(pipe, data):
    z = data[1][:8]
    for seed in range(4):
        x, t = wander(pipe.denoiser, noise_schedule(), z, pipe.denoiser.hint(z), generator(seed))
        assert x.isfinite().all() and t.min() >= 0 and t.max() < 1000 and not x.requires_grad


def test_the_identity_is_learned(pipe, data):
    "A scorer that wants bright pictures gets them"
    def scorer(x, z): return x.flatten(1).mean(1)
    before = pipe(data[1], generator=generator(), guidance=1).images.mean()
    train_diffusion(pipe, *data, steps=40, scorer=scorer, batch=8, identity=3.)
    assert pipe(data[1], generator=generator(), guidance=1).images.mean() > before + .1


def test_a_killed_training_goes_on_to_the_same_weights(data, tmp_path):
    def make(): torch.manual_seed(0); return new_pipeline(*data, channels=8, width=16, depth=2)
    def fragile(left):
        def scorer(x, z):
            nonlocal left
            left -= 1
            if left < 0: raise KeyboardInterrupt
            return x.flatten(1).mean(1)
        return scorer
    whole, resumed = make(), make()
    history = train_diffusion(whole, *data, steps=7, scorer=fragile(99), batch=4)
    with pytest.raises(KeyboardInterrupt):
        train_diffusion(make(), *data, steps=7, scorer=fragile(5), batch=4, checkpoint=tmp_path/'c', every=2)
    assert [f.name for f in (tmp_path/'c').iterdir()] == ['after_0000004']
    (tmp_path/'c'/'new.tmp').mkdir()  # as after a kill while a checkpoint was being written
    again = train_diffusion(resumed, *data, steps=7, scorer=fragile(99), batch=4, checkpoint=tmp_path/'c', every=2)
    assert again == history
    for a, b in zip(whole.denoiser.parameters(), resumed.denoiser.parameters()): assert torch.equal(a, b)


def test_mending_brings_the_codec_closer(data):
    torch.manual_seed(0)
    codec = fit_codec(data[0], 6)
    before = F.l1_loss(codec.decode(codec.encode(data[0])), data[0]).item()
    train_codec(codec, *data, steps=60, batch=8, noise=0.)
    with torch.no_grad(): assert F.l1_loss(codec.decode(codec.encode(data[0])), data[0]) < before


def test_a_saved_pipeline_is_json_and_safetensors_and_draws_the_same(pipe, data, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert {f.suffix for f in tmp_path.rglob('*') if f.is_file()} == {'.json', '.safetensors'}
    loaded = TemplateDiffusionPipeline.from_pretrained(tmp_path)
    a, b = (p(data[1][:3], steps=4, generator=generator()).images for p in (pipe, loaded))
    assert torch.equal(a, b)
    assert isinstance(loaded.codec, PatchCodec) and isinstance(loaded.denoiser, TemplateDenoiser)


def test_a_folder_without_weights_is_refused(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    shutil.rmtree(tmp_path/'denoiser')
    with pytest.raises((OSError, ValueError), match='config.json|denoiser'): TemplateDiffusionPipeline.from_pretrained(tmp_path)


def test_ridge_finds_a_linear_map():
    z = F.normalize(torch.randn(400, 5, generator=generator()))
    truth = torch.randn(6, 3, generator=generator(1))
    assert torch.allclose(fit_ridge(z, z @ truth[:-1] + truth[-1], 0.), truth, atol=1e-3)


@pytest.mark.parametrize('change, message', [
    (dict(z=torch.ones(2, 16)), 'has length 4, not 1: normalise'),
    (dict(z=torch.full((2, 16), torch.nan)), 'NaN'),
    (dict(z=torch.ones(2, 4)/2), 'templates of 4 numbers, this pipeline wants 16'),
    (dict(z=torch.ones(16)/4), r'shape \(b, d\) is wanted'),
    (dict(hint=torch.zeros(2, 8, 3, 3)), r'hint: latents \(2, 8, 4, 4\) are wanted'),
    (dict(start=torch.zeros(1, 8, 4, 4)), 'start: latents'),
    (dict(steps=0), 'steps: 1 to 1000 is wanted, not 0'),
    (dict(candidates=3), 'scorer: one is wanted'), (dict(pull=2.), 'scorer: one is wanted')])
def test_bad_input_is_named(pipe, data, change, message):
    with pytest.raises(ValueError, match=message): pipe(**(dict(z=data[1][:2]) | change))


def test_bad_training_input_is_named(pipe, data):
    with pytest.raises(ValueError, match='48 images and 47 templates'): new_pipeline(data[0], data[1][:-1])
    with pytest.raises(ValueError, match="scheduler 'euler' is unknown: choose from ddpm, ddim, dpm"): pipe.use('euler')
    with pytest.raises(ValueError, match='values in'): pipe.encode(9*data[0])


def test_the_loss_is_a_function_of_its_generator(pipe, data):
    def value(seed): return diffusion_loss(pipe.denoiser.eval(), pipe.codec, noise_schedule(), *data, None, generator(seed)).item()
    assert value(0) == value(0) != value(1)
