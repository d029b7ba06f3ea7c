"""Pictures that show what a space has learnt: scatter of embeddings, retrieved frames beside their queries, curves."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from io import BytesIO, StringIO
from typing import Literal

import numpy as np

from spfem_dist.emotions import Emotion

#: Colours that stay apart for colour-blind readers (after Okabe and Ito), then greys.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b2a300", "#555555", "#999999")
RIGHT, WRONG, NEUTRAL = (0, 158, 115), (213, 94, 0), (170, 170, 170)

Labels = Sequence[str] | Sequence[float] | np.ndarray


def project(embeddings: np.ndarray, method: Literal["pca", "tsne"] = "pca", seed: int = 0) -> np.ndarray:
    """Embeddings [N, D] in the plane, float [N, 2]; the same input gives the same picture."""
    points = np.asarray(embeddings, dtype=np.float64)
    if points.ndim != 2 or len(points) < 3 or not np.isfinite(points).all():
        raise ValueError(f"embeddings are {points.shape}; expected at least 3 finite rows [N, D]")
    from sklearn.decomposition import PCA

    flat = PCA(n_components=min(2, points.shape[1]), svd_solver="full").fit_transform(points)
    if flat.shape[1] == 1:
        flat = np.concatenate([flat, np.zeros_like(flat)], axis=1)
    flat *= np.where(
        np.take_along_axis(flat, np.abs(flat).argmax(0)[None], axis=0) < 0, -1.0, 1.0
    )  # the sign is free: fix it
    if method == "pca":
        return flat
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(points) - 1) / 3)
    start = flat / (flat[:, 0].std() or 1.0) * 1e-4
    with threadpool_limits(
        1
    ):  # on a busy machine its threads wait for each other a hundred times longer than they work
        return TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(points)


def scatter_picture(
    embeddings: np.ndarray,
    labels: Mapping[str, Labels] | Labels,
    title: str = "",
    method: Literal["pca", "tsne"] = "pca",
    seed: int = 0,
    most: int = 2000,
    size: int = 460,
) -> np.ndarray:
    """One space, one panel for each labelling: uint8 [H, W, 3].

    embeddings: [N, D]. labels: N names (emotions, speakers) or N numbers (mouth opening, phase), or several of these by
    panel title, e.g. `{"emotion": names, "mouth opening": numbers}`. At most `most` points are drawn, evenly chosen.
    """
    panels = dict(labels) if isinstance(labels, Mapping) else {"": labels}
    embeddings = np.asarray(embeddings)
    for name, values in panels.items():
        if len(values) != len(embeddings):
            raise ValueError(f"labelling {name!r} has {len(values)} values for {len(embeddings)} embeddings")
    chosen = np.linspace(0, len(embeddings) - 1, min(most, len(embeddings))).astype(int)
    flat = project(embeddings[chosen], method, seed)
    figure = _figure(size * len(panels) / 100, size / 100)
    for i, (name, values) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), i + 1)
        _scatter(figure, axes, flat, np.asarray(values)[chosen])
        axes.set(xticks=[], yticks=[], title=name)
        axes.spines[:].set_color("#cccccc")
    kind = "PCA" if method == "pca" else "t-SNE"
    figure.suptitle(f"{title} ({kind})" if title else kind, fontsize=11)
    return _pixels(figure)


def retrieval_picture(
    queries: np.ndarray, retrieved: np.ndarray, right: np.ndarray | None = None, side: int = 96, gap: int = 4
) -> np.ndarray:
    """Queries at the left, what each found at the right, best first: uint8 [H, W, 3].

    queries: uint8 [N, H, W, 3]. retrieved: uint8 [N, K, H, W, 3]. right: bool [N, K], framed green or orange.
    """
    queries, retrieved = np.asarray(queries), np.asarray(retrieved)
    if retrieved.ndim != 5 or queries.ndim != 4 or len(queries) != len(retrieved) or queries.dtype != np.uint8:
        raise ValueError(
            f"queries {queries.shape} and retrieved {retrieved.shape}; expected uint8 [N, H, W, 3] and [N, K, H, W, 3]"
        )
    count, best = retrieved.shape[:2]
    cell = side + 2 * gap
    page = np.full((count * (cell + gap) + gap, (best + 1) * (cell + gap) + 4 * gap, 3), 255, np.uint8)
    for row in range(count):
        top = gap + row * (cell + gap)
        _place(page, queries[row], top, gap, side, gap, NEUTRAL)
        for column in range(best):
            colour = NEUTRAL if right is None else RIGHT if right[row][column] else WRONG
            _place(page, retrieved[row, column], top, 4 * gap + (column + 1) * (cell + gap), side, gap, colour)
    return page


def curves_svg(
    series: Mapping[str, Sequence[tuple[float, float]]], width: float = 5.2, height: float = 2.6, log: bool = False
) -> str:
    """Curves over samples seen as an inline SVG element. series: name -> [(samples, value)]."""
    figure = _figure(width, height)
    axes = figure.add_subplot()
    for i, (name, points) in enumerate(series.items()):
        finite = [(x, y) for x, y in points if math.isfinite(y)]
        axes.plot(
            *zip(*finite, strict=True), label=name, color=COLOURS[i % len(COLOURS)], linewidth=1.4
        ) if finite else None
    if log:
        axes.set_yscale("log")
    axes.grid(color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("samples seen", fontsize=8)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False)
    from matplotlib import rc_context

    buffer = StringIO()
    with rc_context({"svg.hashsalt": "spfem", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def intervals_svg(
    marks: Sequence[tuple[float, float, float]],
    low: float = 0.0,
    high: float = 1.0,
    target: float | None = None,
    width: int = 220,
) -> str:
    """Values with their intervals on one axis, one line each, as an inline SVG element. marks: (value, low, high)."""
    rows = [m for m in marks if all(map(math.isfinite, m))]
    low, high = min([low, *(m[1] for m in rows)]), max([high, *(m[2] for m in rows)])
    height = 9 * len(marks) + 7

    def x(value: float) -> float:
        return 4 + (width - 8) * (value - low) / ((high - low) or 1.0)

    parts = [f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{height - 2}" y2="{height - 2}" stroke="#ccc"/>']
    if low < 0:
        parts.append(f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="2" y2="{height - 2}" stroke="#ccc"/>')
    for i, (value, left, right) in enumerate(marks):
        if not all(map(math.isfinite, (value, left, right))):
            continue
        y, colour = 7 + 9 * i, COLOURS[i % len(COLOURS)]
        parts.append(
            f'<line x1="{x(left):.1f}" x2="{x(right):.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3" opacity=".4"/>'
        )
        parts.append(f'<circle cx="{x(value):.1f}" cy="{y}" r="3.2" fill="{colour}"/>')
    if target is not None and low <= target <= high:
        parts.append(
            f'<line x1="{x(target):.1f}" x2="{x(target):.1f}" y1="0" y2="{height}" stroke="#333" stroke-dasharray="2 2"/>'
        )
    return f'<svg width="{width}" height="{height}" role="img">{"".join(parts)}</svg>'


def data_uri(image: np.ndarray) -> str:
    """`image`, uint8 [H, W, 3], as a PNG data URI."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(np.asarray(image, np.uint8)).save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout="constrained")


def _pixels(figure) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _scatter(figure, axes, flat: np.ndarray, values: np.ndarray) -> None:
    if np.issubdtype(values.dtype, np.number):
        dots = axes.scatter(*flat.T, c=values, s=9, cmap="viridis", linewidths=0)
        figure.colorbar(dots, ax=axes, shrink=0.7)
        return
    names = _in_order({str(value) for value in values})
    for i, name in enumerate(names):
        mine = flat[values.astype(str) == name]
        axes.scatter(*mine.T, s=9, color=COLOURS[i % len(COLOURS)], label=name, linewidths=0)
    if len(names) <= len(COLOURS):
        axes.legend(fontsize=7, markerscale=1.6, loc="best", framealpha=0.7)


def _in_order(names: set[str]) -> list[str]:
    """Emotions in the project's order, so that each keeps its colour from picture to picture; other names sorted."""
    emotions = [e.value for e in Emotion]
    return [e for e in emotions if e in names] if names <= set(emotions) else sorted(names)


def _place(
    page: np.ndarray, frame: np.ndarray, top: int, left: int, side: int, border: int, colour: tuple[int, int, int]
) -> None:
    import cv2

    full = side + 2 * border
    page[top : top + full, left : left + full] = colour
    way = cv2.INTER_AREA if frame.shape[0] > side else cv2.INTER_CUBIC
    page[top + border : top + border + side, left + border : left + border + side] = cv2.resize(
        frame, (side, side), interpolation=way
    )
