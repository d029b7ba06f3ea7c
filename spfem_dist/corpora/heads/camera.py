"""How a head is seen: pose, light, background, lens and sensor of one recording, none of which knows the emotion."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from spfem_dist.corpora._speech.keys import wander

_BACKDROP = 256


@dataclass
class View:
    """One recording's view.

    yaw, pitch, roll: radians [T], of the head: to the right of the picture, up, clockwise. shift: [T, 2] and zoom: [T], of the crop, in crop sides.
    distance: of the camera from the head, decimetres. lights: float32 [6, 3] as `raster.shade` reads them. exposure: a gain; white: float32
    [3], a gain of each colour. backdrop: uint8 [B, B, 3] RGB; drift: [T, 2], of its middle, in crop sides. blur: of the lens, in pixels at 128. sensor: deviation of its noise
    in grey levels. quality: JPEG's, or 0 for none. flicker: [T], a gain. grain_at: int [T, 2], where the sensor's noise is taken from.
    """

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    shift: np.ndarray
    zoom: np.ndarray
    distance: float
    lights: np.ndarray
    exposure: float
    white: np.ndarray
    backdrop: np.ndarray
    drift: np.ndarray
    blur: float
    sensor: float
    quality: int
    flicker: np.ndarray
    grain_at: np.ndarray
    grain: np.ndarray

    def rotations(self) -> np.ndarray:
        """The head's rotation in each frame: float32 [T, 3, 3]."""
        zero, one = np.zeros_like(self.yaw), np.ones_like(self.yaw)

        def around(rows: list[list[np.ndarray]]) -> np.ndarray:
            return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        turn = around([[cos, zero, sin], [zero, one, zero], [-sin, zero, cos]])
        sin, cos = np.sin(-self.pitch), np.cos(self.pitch)
        nod = around([[one, zero, zero], [zero, cos, -sin], [zero, sin, cos]])
        sin, cos = np.sin(-self.roll), np.cos(self.roll)
        tilt = around([[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]])
        return (tilt @ nod @ turn).astype(np.float32)

    def behind(self, step: int, size: int) -> np.ndarray:
        """The background of frame `step`: linear RGB, float32 [size, size, 3]."""
        scale = _BACKDROP / (1.6 * size)
        x, y = (0.5 + self.drift[step]) * _BACKDROP - scale * size / 2
        place = np.array([[scale, 0, x], [0, scale, y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        seen = cv2.warpAffine(self.backdrop, place, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT)
        level = seen.astype(np.float32) / 255
        return level * level


def view(rng: np.random.Generator, times: np.ndarray, size: int, brightness: float) -> View:
    """A view drawn from `rng`. brightness: of the skin, linear, which the exposure follows half-way, as cameras do."""
    degree = np.pi / 180
    mean = rng.normal(0, 1, 3) * np.array((9.0, 5.5, 2.0)) * degree
    made = View(
        yaw=mean[0] + 5.0 * degree * wander(rng, times, 0.1, 0.5),
        pitch=mean[1] + 3.0 * degree * wander(rng, times, 0.1, 0.7),
        roll=mean[2] + 1.8 * degree * wander(rng, times, 0.1, 0.5),
        shift=rng.normal(0, 0.010, 2) + 0.005 * np.stack([wander(rng, times), wander(rng, times)], axis=1),
        zoom=rng.uniform(0.94, 1.04) * (1 + 0.008 * wander(rng, times, 0.1, 0.4)),
        distance=float(np.exp(rng.uniform(np.log(6.0), np.log(16.0)))),
        lights=np.zeros((6, 3), np.float32),
        exposure=0.0,
        white=(rng.normal(1, 0.045, 3)).astype(np.float32),
        backdrop=_backdrop(rng),
        drift=rng.uniform(-0.1, 0.1, 2)
        + 0.02 * np.stack([wander(rng, times, 0.05, 0.3), wander(rng, times, 0.05, 0.3)], axis=1),
        blur=float(rng.choice((0.0, rng.uniform(0.3, 0.9)))),
        sensor=float(rng.uniform(0.8, 4.0)),
        quality=int(rng.integers(55, 96)) if rng.uniform() < 0.5 else 0,
        flicker=(1 + 0.006 * rng.standard_normal(len(times))).astype(np.float32),
        grain_at=rng.integers(0, 33, (len(times), 2)),
        grain=np.empty(0, np.float32),
    )
    made.lights = _lights(rng)
    strength = made.lights[1].mean() * 0.55 + made.lights[3].mean() * 0.3 + made.lights[4].mean() * 0.6
    made.exposure = float(0.36 / strength / brightness**0.55 * rng.uniform(0.8, 1.2))
    # The grain is drawn last: it alone needs more numbers for larger frames, and the view must not depend on the size.
    made.grain = rng.standard_normal((size + 32, size + 32, 3), dtype=np.float32)
    return made


def _lights(rng: np.random.Generator) -> np.ndarray:
    """A key light above and beside the camera, a weaker one across, and the light of the room."""

    def towards(azimuth: float, height: float) -> np.ndarray:
        return np.array((np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height)))

    side = rng.choice((-1.0, 1.0))
    azimuth, height = side * np.radians(rng.uniform(8, 68)), np.radians(rng.uniform(8, 52))
    warm = rng.uniform(-0.12, 0.14)
    key = np.array((1 + warm, 1.0, 1 - warm)) * rng.uniform(0.9, 1.6)
    cool = rng.uniform(-0.12, 0.10)
    other = np.array((1 + cool, 1.0, 1 - cool))
    fill = other * rng.uniform(0.05, 0.45)
    room = other * rng.uniform(0.25, 0.75)
    ground = room * rng.uniform(0.35, 0.7) * np.array((1.05, 1.0, 0.93))
    rows = [
        towards(azimuth, height),
        key,
        towards(-side * np.radians(rng.uniform(20, 80)), np.radians(rng.uniform(-10, 25))),
        fill,
        room,
        ground,
    ]
    return np.array(rows, np.float32)


def _backdrop(rng: np.random.Generator) -> np.ndarray:
    """A room out of focus: a coarse field of colour, plain blocks (shelf, door, window), lamps; or a plain wall."""
    base = rng.uniform(25, 215) + 14 * rng.standard_normal(3)
    field = base + 24 * rng.standard_normal((4, 4, 1)) + 9 * rng.standard_normal((4, 4, 3))
    picture = cv2.resize(
        np.clip(field, 0, 255).astype(np.float32), (_BACKDROP, _BACKDROP), interpolation=cv2.INTER_CUBIC
    )
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 8))):
        corner, extent = rng.uniform(-0.1, 1, 2) * _BACKDROP, rng.uniform(0.06, 0.5, 2) * _BACKDROP
        colour = np.clip(rng.uniform(10, 235) + rng.choice((8, 30)) * rng.standard_normal(3), 0, 255).tolist()
        cv2.rectangle(picture, corner.astype(int).tolist(), (corner + extent).astype(int).tolist(), colour, -1)
    for _ in range(int(rng.integers(0, 5))):
        centre = (rng.uniform(0, 1, 2) * _BACKDROP).astype(int).tolist()
        bright = np.clip(rng.uniform(170, 255) + 20 * rng.standard_normal(3), 0, 255).tolist()
        cv2.circle(picture, centre, int(rng.uniform(3, 16)), bright, -1)
    return cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(1.5, 9)))
