"""At their published sizes the nets have the names and shapes of the libraries that made the checkpoints, without memory."""

import pytest
import torch
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel, SwinConfig, SwinModel

from serving.build.nets import bert, biomedclip, clip, medclip, resnet, siglip, swin
from serving.build.nets.clip_layout import from_hugging_face
from serving.build.nets.fit import differences

META = torch.device("meta")


def below(prefix, state):
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def test_swin_tiny():
    with META:
        sizes = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7, "image_size": 224}
        theirs = swin.published(SwinModel(SwinConfig(**sizes)).state_dict())
        config = swin.SwinConfig.of(theirs, "", medclip.LAYOUT, 224)
        assert config == swin.SwinConfig(224, 4, 96, 7, (2, 2, 6, 2), (3, 6, 12, 24))
        net = swin.Swin(config)
    assert not differences(net.state_dict(), theirs)
    assert net.out_width == 768


@pytest.mark.parametrize(("vocabulary", "name"), [(28_996, "Bio-ClinicalBERT"), (30_522, "PubMedBERT")])
def test_bert_base(vocabulary, name):
    with META:
        theirs = BertModel(BertConfig(vocab_size=vocabulary), add_pooling_layer=False).state_dict()
        config = bert.BertConfig.of(theirs, "", name)
        assert config == bert.BertConfig(vocabulary, 512, 2, 768, 3072, 12, 12)
        assert not differences(bert.Bert(config).state_dict(), theirs)


def test_medsiglip():
    text = {"vocab_size": 32_000, "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
    text |= {"num_attention_heads": 16, "max_position_embeddings": 64, "projection_size": 1152}
    vision = {key: text[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")}
    vision |= {"image_size": 448, "patch_size": 14}
    with META:
        theirs = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).state_dict()
        image = siglip.ImageTower(1152, 14, 1024, 27, 4304)
        words = siglip.TextTower(32_000, 64, 1152, 27, 4304, 1152)
    assert not differences(image.state_dict(), below("vision_model.", theirs))
    assert not differences(words.state_dict(), below("text_model.", theirs))
    assert (image.head.heads, words.encoder["layers"][0].heads) == (16, 16)
    assert all(sum(p.numel() for p in net.parameters()) * 4 < 2**31 for net in (image, words)), "one file of ONNX holds a tower"


def test_resnet_50():
    published = {
        "conv1.weight": (64, 3, 7, 7),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.conv2.weight": (64, 64, 3, 3),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn3.running_var": (1024,),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "layer4.2.bn3.num_batches_tracked": (),
        "fc.weight": (512, 2048),
    }
    with META:
        state = resnet.ResNet(resnet.ResNetConfig(64, (3, 4, 6, 3), 512)).state_dict()
        assert resnet.ResNetConfig.of(state, "", medclip.LAYOUT) == resnet.ResNetConfig(64, (3, 4, 6, 3), 512)
    assert {key: tuple(state[key].shape) for key in published} == published
    assert "fc.bias" not in state
    # torchvision's ResNet-50 has 320 tensors, its last layer's bias among them.
    assert len(state) == 319


def test_clip_vit_b_32_and_chexzero():
    published = {
        "positional_embedding": (77, 512),
        "text_projection": (512, 512),
        "token_embedding.weight": (49408, 512),
        "visual.class_embedding": (768,),
        "visual.positional_embedding": (50, 768),
        "visual.proj": (768, 512),
        "visual.conv1.weight": (768, 3, 32, 32),
        "visual.ln_pre.weight": (768,),
        "visual.transformer.resblocks.0.attn.in_proj_weight": (2304, 768),
        "visual.transformer.resblocks.11.attn.out_proj.weight": (768, 768),
        "visual.transformer.resblocks.0.ln_1.weight": (768,),
        "visual.transformer.resblocks.0.mlp.c_fc.weight": (3072, 768),
        "transformer.resblocks.0.attn.in_proj_weight": (1536, 512),
        "ln_final.weight": (512,),
        "logit_scale": (),
    }
    with META:
        theirs = CLIPModel(CLIPConfig()).state_dict()
        converted = from_hugging_face(theirs)
        config = clip.ClipConfig.from_state_dict(converted)
        towers = {f"visual.{key}": value for key, value in clip.ImageEncoder(config).state_dict().items()}
        towers |= clip.TextEncoder(config).state_dict()
    assert len(theirs) == 398
    assert len(converted) == 302
    assert {key: tuple(converted[key].shape) for key in published} == published
    assert not differences({**towers, "logit_scale": converted["logit_scale"]}, converted)


def test_biomedclip():
    published = {
        "trunk.cls_token": (1, 1, 768),
        "trunk.pos_embed": (1, 197, 768),
        "trunk.patch_embed.proj.weight": (768, 3, 16, 16),
        "trunk.blocks.11.attn.qkv.weight": (2304, 768),
        "trunk.blocks.0.attn.proj.weight": (768, 768),
        "trunk.blocks.0.norm1.weight": (768,),
        "trunk.blocks.0.mlp.fc1.weight": (3072, 768),
        "trunk.norm.weight": (768,),
        "head.proj.weight": (512, 768),
    }
    with META:
        image = biomedclip.ImageTower(biomedclip.Trunk(768, 16, 197, 12, 3072), 768, 512).state_dict()
        config = bert.BertConfig(30_522, 512, 2, 768, 3072, 12, 12)
        text = biomedclip.TextTower(config, 640, 512).state_dict()
    assert {key: tuple(image[key].shape) for key in published} == published
    # timm's ViT has 152 tensors with its head, whose weight and bias are one projection without a bias here.
    assert len(image) == 151
    assert {key: tuple(value.shape) for key, value in below("proj.", text).items()} == {
        "0.weight": (640, 768),
        "2.weight": (512, 640),
    }
