"""Loaders of published attackers, on random networks of the same layout."""
import json
import pickle

import pytest
import torch
import torch.nn.functional as F

from faceprivacy.published_attackers import IDiffFaceUNet, as_prompt, invert_arc2face, load_arc2face, load_idiff_face


def test_the_published_size():
    "The authors' configuration names the number of parameters"
    with torch.device('meta'): assert sum(p.numel() for p in IDiffFaceUNet().parameters()) == 216_341_187


def test_the_empty_context_is_zero():
    torch.manual_seed(0)
    unet = IDiffFaceUNet(16, size=8, width=32, widths=(1, 2), attends=(0, 1), context=32).eval()
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([5])
    with torch.no_grad(): before = unet(x, t, torch.zeros(1, 16))
    torch.nn.init.normal_(unet.context_emb.bias)
    with torch.no_grad(): assert torch.equal(unet(x, t, torch.zeros(1, 16)), before)


def test_a_pickle_that_is_a_program_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self): return print, ('run',)
    (tmp_path/'checkpoints').mkdir()
    (tmp_path/'checkpoints'/'ema_averaged_model.ckpt').write_bytes(pickle.dumps(Evil()))
    (tmp_path/'first_stage_decoder_state_dict.pt').write_bytes(b'')
    with pytest.raises(ValueError, match='nothing else; it is not opened'): load_idiff_face(tmp_path)


def test_another_checkpoint_is_named(tmp_path):
    (tmp_path/'checkpoints').mkdir()
    torch.save(dict(weight=torch.ones(1)), tmp_path/'checkpoints'/'ema_averaged_model.ckpt')
    (tmp_path/'first_stage_decoder_state_dict.pt').write_bytes(b'')
    with pytest.raises(ValueError, match='no entry begins with eps_model'): load_idiff_face(tmp_path)


@pytest.fixture
def arc2face(tmp_path):
    "A folder like Arc2Face's with tiny random networks"
    transformers = pytest.importorskip('transformers')
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    torch.manual_seed(0)
    words = ['photo</w>', 'of</w>', 'a</w>', 'id</w>', 'person</w>', '<|startoftext|>', '<|endoftext|>']
    letters = sorted({c for w in words[:5] for c in w.removesuffix('</w>')})
    merges, vocab = [], letters + [c + '</w>' for c in letters]
    for word in (w.removesuffix('</w>') for w in words[:5]):
        parts = [*word[:-1], word[-1] + '</w>']
        while len(parts) > 1:
            if (pair := f'{parts[0]} {parts[1]}') not in merges: merges.append(pair)
            parts[:2] = [''.join(parts[:2])]
            if parts[0] not in vocab: vocab.append(parts[0])
    vocab += words[5:]
    (tmp_path/'base'/'tokenizer').mkdir(parents=True)
    (tmp_path/'base'/'tokenizer'/'vocab.json').write_text(json.dumps({w: i for i, w in enumerate(vocab)}))
    (tmp_path/'base'/'tokenizer'/'merges.txt').write_text('\n'.join(['#version: 0.2', *merges]) + '\n')
    (tmp_path/'base'/'tokenizer'/'tokenizer_config.json').write_text(json.dumps(dict(
        tokenizer_class='CLIPTokenizer', model_max_length=77, bos_token='<|startoftext|>', eos_token='<|endoftext|>',
        pad_token='<|endoftext|>', unk_token='<|endoftext|>')))
    end = len(vocab) - 1
    transformers.CLIPTextModel(transformers.CLIPTextConfig(
        vocab_size=len(vocab), hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=end - 1, eos_token_id=end, pad_token_id=end)).save_pretrained(tmp_path/'encoder')
    UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), cross_attention_dim=32,
        down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'), up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'),
        layers_per_block=1, attention_head_dim=8).save_pretrained(tmp_path/'arc2face')
    AutoencoderKL(block_out_channels=(32, 64), latent_channels=4, down_block_types=('DownEncoderBlock2D',)*2,
                  up_block_types=('UpDecoderBlock2D',)*2).save_pretrained(tmp_path/'base'/'vae')
    PNDMScheduler(skip_prk_steps=True, steps_offset=1).save_pretrained(tmp_path/'base'/'scheduler')
    return tmp_path


def test_arc2face_draws_from_templates(arc2face):
    pipe = load_arc2face(arc2face)
    pipe.set_progress_bar_config(disable=True)
    z = F.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)))
    prompt = as_prompt(pipe, z)
    assert prompt.shape == (2, 77, 32)
    assert torch.equal(prompt[0, :4], prompt[1, :4]) and not torch.equal(prompt[0, 4:], prompt[1, 4:])
    images = invert_arc2face(pipe, z, steps=2, generator=torch.Generator().manual_seed(0))
    assert images.shape == (2, 3, 16, 16) and images.abs().max() <= 1
    with pytest.raises(ValueError, match='templates of 64 numbers, the encoder takes 32'):
        as_prompt(pipe, F.normalize(torch.ones(1, 64)))


def test_a_missing_part_is_named(tmp_path):
    pytest.importorskip('transformers')
    with pytest.raises(FileNotFoundError, match='lacks arc2face/config.json.*huggingface.co/FoivosPar/Arc2Face'):
        load_arc2face(tmp_path)
