"""The page itself: what is on it, and what happens when somebody touches it."""

from __future__ import annotations

import base64
import html
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np

from spfem_dist.editing.request import PAINT
from spfem_dist.emotions import SIX, Emotion
from spfem_dist.web.editor import Choice, Editor, Result
from spfem_dist.web.films import Refused
from spfem_dist.web.visits import Gone

#: The slider's end: what goes beyond is no face of the person any more.
_STRONGEST = 3.0
_REFERENCE_ALONE = ""

_HEAD = """
<h1>The same words, another emotion</h1>
<p>Drop a film of one talking person, choose an emotion, and take the edited film. Its sound stays as it is, packet by packet.</p>
"""
_NOTICE = """
<p class="notice"><strong>The result is synthetic media.</strong> Edit only films of yourself or of people who agreed to this very
use, and label the result as edited wherever it is shown; its metadata says so already (“edited by spfem”).</p>
"""
_PRIVACY = """
<p class="privacy">Films are worked on by the machine that serves this page and go nowhere else. They are deleted when you close the
page, after an hour at the latest. Up to {seconds:g} s and {megabytes} MB.</p>
"""
_EMPTY = '<div class="pair empty"><p>Here you will see one frame, before and after, as you move the slider.</p></div>'


def page(editor: Editor, films: list[Path]) -> gr.Blocks:
    """The page of `editor`. films: examples to try."""
    limits = editor.limits
    with gr.Blocks(title="spfem", analytics_enabled=False, fill_width=False) as blocks:
        gr.HTML(_HEAD + _NOTICE, elem_id="head")
        with gr.Row(elem_id="desk"):
            with gr.Column(min_width=300):
                film = gr.Video(
                    label="Film",
                    sources=["upload", "webcam"],
                    include_audio=True,
                    elem_id="film",
                    buttons=[],
                )
                if films:
                    gr.Examples(
                        [[str(path)] for path in films], film, label="Or try a rendered one", cache_examples=False
                    )
                emotion = gr.Radio(
                    [
                        *((name.value, name.value) for name in (*SIX, Emotion.NEUTRAL)),
                        ("as the reference", _REFERENCE_ALONE),
                    ],
                    value=Emotion.HAPPY.value,
                    label="Emotion",
                    elem_id="emotion",
                )
                text = gr.Textbox(
                    label="In words, upon that emotion (or alone, with its last choice)",
                    placeholder="a bitter smile, eyebrows raised",
                    max_length=300,
                    elem_id="text",
                )
                with gr.Accordion("In the manner of another film", open=False, elem_id="manner"):
                    reference = gr.Video(
                        label="Reference: anybody, with the emotion you want",
                        sources=["upload", "webcam"],
                        include_audio=True,
                        elem_id="reference",
                        buttons=[],
                    )
                    manner = gr.HTML(elem_id="manner-said", elem_classes="said")
            with gr.Column(min_width=300):
                preview = gr.HTML(_EMPTY, elem_id="preview")
                moment = gr.Slider(
                    0, 1, 0, step=0.04, label="Frame shown (seconds)", elem_id="moment", visible="hidden"
                )
                strength = gr.Slider(
                    0, _STRONGEST, Choice().usual_strength, step=0.1, label="Strength", elem_id="strength", buttons=[]
                )
                with gr.Accordion("More", open=False):
                    paint = gr.Slider(
                        0, 1, PAINT, step=0.1, label="Lines that the generator paints", elem_id="paint", buttons=[]
                    )
                said = gr.HTML(elem_id="said", elem_classes="said")
                start = gr.Button("Edit", variant="primary", elem_id="start")
                result = gr.HTML(elem_id="result")
        gr.HTML(_PRIVACY.format(seconds=limits.seconds, megabytes=limits.megabytes))
        chosen = [emotion, strength, paint, text]
        quick: dict[str, Any] = {"concurrency_id": "look", "concurrency_limit": 4, "api_visibility": "private"}
        slow: dict[str, Any] = {"concurrency_id": "work", "concurrency_limit": 1, "api_visibility": "private"}

        def shown(request: gr.Request, *choice: Any) -> tuple[Any, Any]:
            def found() -> Any:
                return _pair(editor.preview(_name(request), _choice(*choice)))

            return _told(found, gr.skip())

        def taken(path: str | None, request: gr.Request, *choice: Any) -> tuple[Any, ...]:
            name = _name(request)

            def found() -> tuple[Any, Any]:
                got = editor.take(name, Path(path) if path else None)
                if got is None:
                    return _EMPTY, gr.Slider(visible="hidden")
                length = got.film.facts.duration - 1 / got.film.fps
                slider = gr.Slider(0, max(0.04, round(length, 2)), round(length / 2, 2), visible=True)
                try:
                    editor.look(name, length / 2)
                    return _pair(editor.preview(name, _choice(*choice))), slider
                except Refused:  # no face around this moment: the whole film is looked through now
                    return _EMPTY, slider

            value, message = _told(found, (_EMPTY, gr.Slider(visible="hidden")))
            return *value, message or (_note("Looking for the face …") if path else ""), ""

        def followed(request: gr.Request, *choice: Any, progress=gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
            name = _name(request)
            if editor.visits.of(name).film is None:  # refused, or taken away: what was said stays
                return gr.skip(), gr.skip(), gr.skip()

            def found() -> tuple[Any, Any]:
                seconds = editor.follow(name, lambda share: progress(share, desc="following the face"))
                return _pair(editor.preview(name, _choice(*choice))), gr.Slider(value=round(seconds, 2))

            value, message = _told(found, (_EMPTY, gr.skip()))
            return *value, message

        def looked(seconds: float, request: gr.Request, *choice: Any) -> tuple[Any, Any]:
            name = _name(request)

            def found() -> Any:
                editor.look(name, seconds)
                return _pair(editor.preview(name, _choice(*choice)))

            return _told(found, gr.skip())

        def felt(name: str, _: float, painted: float, words: str, request: gr.Request) -> tuple[Any, Any, Any]:
            usual = Choice(name).usual_strength
            value, message = shown(request, name, usual, painted, words)
            return usual, value, message

        def referred(path: str | None, request: gr.Request, *choice: Any, progress=gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
            name = _name(request)

            def found() -> str:
                if editor.take(name, Path(path) if path else None, "reference") is None:
                    return ""
                editor.take_manner(name, lambda share: progress(share, desc="reading the manner"))
                return _note("Its manner is mixed with the emotion; choose “as the reference” for its manner alone.")

            message, error = _told(found, "")
            if editor.visits.of(name).film is None:
                return error or message, gr.skip()
            return error or message, shown(request, *choice)[0]

        def edited(request: gr.Request, *choice: Any, progress=gr.Progress()) -> tuple[Any, Any]:  # noqa: B008
            progress(0, desc="beginning")
            return _told(
                lambda: _player(
                    editor.edit(_name(request), _choice(*choice), lambda share: progress(share, desc="editing"))
                ),
                "",
            )

        def left(request: gr.Request) -> None:
            editor.visits.end(_name(request))

        film.change(taken, [film, *chosen], [preview, moment, said, result], show_progress="hidden", **quick).then(
            followed, chosen, [preview, moment, said], show_progress_on=said, **slow
        )
        moment.release(looked, [moment, *chosen], [preview, said], show_progress="hidden", **quick)
        live: dict[str, Any] = quick | {"show_progress": "hidden", "trigger_mode": "always_last"}
        emotion.input(felt, chosen, [strength, preview, said], **live)
        text.submit(shown, chosen, [preview, said], **live)
        for slider in (strength, paint):
            slider.input(shown, chosen, [preview, said], **live)
        reference.change(referred, [reference, *chosen], [manner, preview], show_progress_on=manner, **slow)
        start.click(edited, chosen, [result, said], show_progress_on=result, **slow)
        blocks.unload(left)
    return blocks.queue(max_size=64)


def _name(request: gr.Request) -> str:
    return str(request.session_hash)


def _choice(emotion: str, strength: float, paint: float, text: str) -> Choice:
    return Choice(emotion or "", float(strength), float(paint), (text or "").strip())


def _told(work: Callable[[], Any], otherwise: Any) -> tuple[Any, str]:
    """What `work` gives and no message, or `otherwise` and why."""
    try:
        return work(), ""
    except Refused as error:
        return otherwise, _note(str(error), "alert")
    except Gone:
        return otherwise, ""
    except Exception as error:  # a defect: the page goes on, and whoever serves it sees where it came from
        traceback.print_exception(error)
        return otherwise, _note("Something went wrong here. Whoever serves this page sees what it was.", "alert")


def _note(text: str, role: str = "status") -> str:
    return f'<p class="note" role="{role}">{html.escape(text)}</p>'


def _pair(pictures: tuple[np.ndarray, np.ndarray] | None) -> Any:
    if pictures is None:
        return gr.skip()
    figures = "".join(
        f'<figure><img alt="{name}" src="data:image/jpeg;base64,{_jpeg(picture)}"><figcaption>{name}</figcaption></figure>'
        for name, picture in zip(("before", "after"), pictures, strict=True)
    )
    return f'<div class="pair">{figures}</div>'


def _jpeg(picture: np.ndarray) -> str:
    encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return base64.b64encode(encoded.tobytes()).decode()


def _player(made: Result) -> str:
    edited = made.edited
    name = f"edited{edited.out.suffix}"
    sound = f"{edited.packets:,} packets of sound copied as they were" if edited.packets else "no sound"
    facts = [f"{edited.frames:,} frames ({edited.seconds:.1f} s)", sound, *edited.remarks]
    return f"""
<figure class="result">
  <video controls playsinline loop preload="auto" src="{_address(made.side)}" aria-label="source and edit side by side"></video>
  <figcaption><span>source</span><span>edit</span></figcaption>
</figure>
<p><a class="download" download="{name}" href="{_address(edited.out)}">Download the edited film</a></p>
<p class="facts">{html.escape("; ".join(facts))}. Label it as edited wherever you show it.</p>
"""


def _address(path: Path) -> str:
    return f"gradio_api/file={path}"
