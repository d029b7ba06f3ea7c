"""The settings of the jobs: what each network learns with. `config` has the run that they are parts of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A part of a Run: unknown fields are refused, values are checked again on assignment."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Optimizer(Section):
    """Optimiser and learning-rate schedule of one trainable network."""

    name: Literal["adam", "adamw", "sgd"] = Field("adam", description="Update rule.")
    lr: Annotated[float, Field(gt=0)] = Field(1e-3, description="Peak learning rate.")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Adam's running-average factors.")
    eps: Annotated[float, Field(gt=0)] = Field(1e-8, description="Adam's term in the denominator.")
    momentum: float = Field(0.0, description="SGD momentum.")
    weight_decay: float = Field(0.0, description="Weight decay (decoupled for adamw).")
    warmup_steps: Natural = Field(0, description="Steps of linear warm-up.")
    schedule: Literal["constant", "cosine", "multistep"] = Field("cosine", description="Shape after the warm-up.")
    milestones: tuple[int, ...] = Field((), description="Steps at which multistep multiplies the rate by 0.1.")
    clip: Annotated[float, Field(ge=0)] = Field(1.0, description="Largest gradient norm; 0 leaves gradients alone.")


class JobSettings(Section):
    """What the training loop asks of every job."""

    enabled: bool = Field(True, description="Train this job in the run.")
    form: Literal["clean", "released"] = Field(
        "clean", description="clean is the corrected method; released computes what the published code does."
    )
    steps: Positive = Field(600, description="Optimiser steps.")
    global_batch: Positive = Field(
        12, description="Samples (utterance groups) for each optimiser step, over all workers: the run's constant."
    )
    micro_batch: Positive | None = Field(
        None, description="Largest number of samples that a worker holds at once; empty means its whole share."
    )
    optimizer: Optimizer = Field(default_factory=Optimizer)


class PriorSettings(JobSettings):
    """What CCRL and CERL settings have in common."""

    network: Literal["small", "paper"] = Field(
        "small", description="small trains on a laptop; paper has the published sizes and needs their weights."
    )
    crop: Share = Field(0.75, description="Side of the square that is used, as a share of the frame's side.")
    crop_row: Share = Field(
        0.6, description="Row of that square's centre, as a share of the frame's height; below 0.5 is up."
    )
    shift: Share = Field(
        0.03, description="Largest random shift of the crop in training, as a share of the frame's side."
    )
    colour_jitter: Share = Field(0.1, description="Strength of the colour jitter, as a share of full range.")


class CCRL(PriorSettings):
    """Contrastive content representation learning, guided by speech (CDRL, CCRL)."""

    steps: Positive = Field(700, description="Optimiser steps.")
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(lr=3e-3, warmup_steps=20))
    embedding: Positive = Field(128, description="Width of the content embedding (small network).")
    temperature: Annotated[float, Field(gt=0)] = Field(0.07, description="Temperature of the audio-visual contrast.")
    image_temperature: Annotated[float, Field(gt=0)] = Field(0.1, description="Temperature of the image-only contrast.")
    image_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of the image-only contrast.")
    sync_weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Weight of the image-to-speech synchrony contrast."
    )
    same_speech_weight: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Weight of the contrast in which every candidate is given the query's speech, as stage 2 does."
    )
    wrong_speech: bool = Field(True, description="Use the right image under the wrong speech as a negative.")
    speech_dropout: Share = Field(0.3, description="Share of frames whose speech is hidden during training.")
    spatial_bias: Annotated[float, Field(ge=0)] = Field(
        1.5,
        description="Standard deviation of the attention's spatial bias at the start; with 0 it begins as an average.",
    )
    heads: Positive = Field(8, description="Attention heads: queries that the speech puts to the face.")
    erase_emotion: bool = Field(
        True,
        description="Take out of the finished embedding what a linear classifier could know of the emotion (LEACE).",
    )


class CERL(PriorSettings):
    """Contrastive emotion representation learning with learned emotion priors (CDRL, CERL)."""

    steps: Positive = Field(900, description="Optimiser steps.")
    global_batch: Positive = Field(
        4, description="Samples (utterance groups) for each optimiser step, over all workers: the run's constant."
    )
    optimizer: Optimizer = Field(default_factory=lambda: Optimizer(lr=1e-3, warmup_steps=20))
    embedding: Positive = Field(128, description="Width of the emotion embedding (small network).")
    descriptors: str = Field(
        "",
        description="Descriptions of the emotions in CERL's prompts (released form): empty for ours, 'authors' for the weights "
        "entry cdrl-descriptors, or a JSON file {emotion name: text}.",
    )
    temperature: Annotated[float, Field(gt=0)] = Field(0.07, description="Temperature of the image-to-prior contrast.")
    mouth_mixing: Share = Field(1.0, description="Share of images whose mouth is taken from another frame.")
    mouth_source: Literal["sample", "recording"] = Field(
        "sample",
        description="Where that mouth comes from: any recording of the sample, or another moment of the same one.",
    )
    consistency_weight: Annotated[float, Field(ge=0)] = Field(
        4.0, description="Weight of the agreement between an image and its mouth-mixed twin."
    )


class Guidance(Section):
    """What the frozen priors tell the generator."""

    content: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Weight of the content prior: source and generated face under the source's speech."
    )
    emotion: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Weight of the emotion prior: reference and generated face under the target's prior."
    )
    placement: Literal["clean", "released"] = Field(
        "clean",
        description="clean: both priors judge edited frames and guide manipulator and renderer; released: emotion guides the "
        "manipulator alone, content the renderer alone, and that on reconstructed frames.",
    )


class NED(JobSettings):
    """Neural Emotion Director: a manipulator of expression coefficients and a renderer of faces."""

    network: Literal["small", "paper"] = Field(
        "small", description="small trains on a laptop; paper has the published widths, for 256 pixels."
    )
    steps: Positive = Field(400, description="Optimiser steps.")
    global_batch: Positive = Field(
        16, description="Samples (pairs of windows) for each optimiser step, over all workers: the run's constant."
    )
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=2e-3, betas=(0.5, 0.99), warmup_steps=20), description="Of the renderer."
    )
    renderer_critic: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=1e-3, betas=(0.5, 0.99), warmup_steps=20),
        description="Of the discriminator of pictures.",
    )
    manipulator: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=2e-3, betas=(0.0, 0.99), warmup_steps=20),
        description="Of the manipulator with its style encoder and mapping network.",
    )
    manipulator_critic: Optimizer = Field(
        default_factory=lambda: Optimizer(lr=5e-4, betas=(0.0, 0.99)), description="Of the discriminator of windows."
    )
    guidance: Guidance = Field(default_factory=Guidance)
    pair_weight: Annotated[float, Field(ge=0)] = Field(
        20.0,
        description="Weight of the distance to the time-warped recording of the same words in the target emotion, where there is one.",
    )
    cycle_weight: Annotated[float, Field(ge=0)] = Field(0.1, description="Weight of the way back to the source window.")
    style_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of finding the style in what it made.")
    mouth_weight: Annotated[float, Field(ge=0)] = Field(
        0.1, description="Weight of the jaw's correlation with the source's."
    )
    jaw_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="Weight of the jaw's distance to the source's.")
    window_adversarial_weight: Annotated[float, Field(ge=0)] = Field(
        0.02, description="Weight of the discriminator of windows."
    )
    picture_weight: Annotated[float, Field(ge=0)] = Field(10.0, description="Weight of the reconstruction's L1 error.")
    picture_adversarial_weight: Annotated[float, Field(ge=0)] = Field(
        0.1, description="Weight of the discriminator of pictures."
    )
    feature_weight: Annotated[float, Field(ge=0)] = Field(
        0.5, description="Weight of matching the discriminator's features on reconstructed pictures."
    )
    perceptual_weight: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Weight of VGG-19's distance on frames redrawn within a recording (published: 10); needs the weights vgg19-imagenet.",
    )
    tone_weight: Annotated[float, Field(ge=0)] = Field(
        10.0, description="Weight of keeping light and skin tone of edited faces."
    )
    r1_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Weight of the gradient penalty R1 on both discriminators' real samples; 0 leaves it out."
    )
    speakers: Positive = Field(
        256, description="Speakers of the training part from which the face model learns, at most."
    )
    clips_per_speaker: Positive = Field(
        64, description="Recordings of each speaker from which the face model learns, at most."
    )

    @model_validator(mode="after")
    def _clean_form(self) -> NED:
        if self.form == "released":
            raise ValueError(
                "ned.form released cannot be trained: it wants FLAME and DECA, whose files need a licence; its networks and losses are in "
                "generators/ned/manipulator.py and renderer.py. Leave --ned.form clean (--ned.guidance.placement released guides where the "
                "published code does)"
            )
        return self
