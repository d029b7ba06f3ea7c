"""How the head is seen: pose, light, background and sensor noise of one recording, none of which knows the emotion."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from spfem_dist.corpora._speech.keys import wander


@dataclass
class Camera:
    """One recording's view. yaw, pitch, roll: radians [T]. shift: [T, 2] and zoom: [T], in crop sides.

    backdrop: uint8 [2S, 2S, 3]. clothes: RGB. light: float32 [S, S, 3], a gain. flicker: [T], a gain. grain: float32
    [S + 32, S + 32, 3] noise in grey levels and its offset in each frame, int [T, 2].
    """

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    shift: np.ndarray
    zoom: np.ndarray
    backdrop: np.ndarray
    clothes: tuple[float, float, float]
    light: np.ndarray
    relief: np.ndarray
    flicker: np.ndarray
    grain: np.ndarray
    grain_at: np.ndarray

    def project(self, points: np.ndarray, size: int) -> np.ndarray:
        """Head coordinates [T, P, 3] to pixels [T, P, 2] of a crop with side `size`: rotation, then weak perspective."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        sin, cos = np.sin(self.yaw)[:, None], np.cos(self.yaw)[:, None]
        x, z = x * cos + z * sin, z * cos - x * sin
        sin, cos = np.sin(self.pitch)[:, None], np.cos(self.pitch)[:, None]
        y = y * cos + z * sin
        sin, cos = np.sin(self.roll)[:, None], np.cos(self.roll)[:, None]
        x, y = x * cos - y * sin, x * sin + y * cos
        scale = 0.335 * self.zoom[:, None]
        return np.stack([0.5 + scale * x + self.shift[:, :1], 0.48 + scale * y + self.shift[:, 1:]], axis=-1) * size

    def expose(self, frame: np.ndarray, step: int) -> np.ndarray:
        """A drawn frame uint8 [S, S, 3] as the sensor of frame `step` records it."""
        size = len(frame)
        row, column = self.grain_at[step]
        turn, zoom = self.roll[step], self.zoom[step] * size
        cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
        x, y = (0.5 + self.shift[step, 0]) * size, (0.48 + self.shift[step, 1]) * size
        side = len(self.relief)
        place = (
            np.array([[cos, -sin, x * side - (cos - sin) * side / 2], [sin, cos, y * side - (sin + cos) * side / 2]])
            / side
        )
        relief = cv2.warpAffine(
            self.relief, place, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        seen = frame * self.light
        seen *= relief
        seen *= self.flicker[step]
        seen += self.grain[row : row + size, column : column + size]
        return cv2.convertScaleAbs(np.maximum(seen, 0, out=seen))


def camera(rng: np.random.Generator, times: np.ndarray, size: int) -> Camera:
    """A view drawn from `rng`: a mean pose, slow movement around it, a backdrop, clothes, a light and its colour."""
    degree = np.pi / 180
    mean = rng.normal(0, 1, 3) * np.array([6.5, 5, 3]) * degree
    direction, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.28)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    slope = np.cos(direction) * axis[None, :] + np.sin(direction) * axis[:, None]
    white = rng.normal(1, 0.035, 3)
    light = (1 + strength * slope)[..., None] * (rng.uniform(0.82, 1.1) * white)
    clothes = rng.uniform(20, 225, 3)
    view = Camera(
        yaw=mean[0] + 4.5 * degree * wander(rng, times, 0.1, 0.5),
        pitch=mean[1] + 3 * degree * wander(rng, times, 0.1, 0.6),
        roll=mean[2] + 2 * degree * wander(rng, times, 0.1, 0.5),
        shift=rng.normal(0, 0.012, 2) + 0.010 * np.stack([wander(rng, times), wander(rng, times)], axis=1),
        zoom=rng.uniform(0.95, 1.04) * (1 + 0.012 * wander(rng, times, 0.1, 0.4)),
        backdrop=_backdrop(rng, 2 * size),
        clothes=(float(clothes[0]), float(clothes[1]), float(clothes[2])),
        light=light.astype(np.float32),
        relief=_relief(direction, size),
        flicker=(1 + 0.01 * rng.standard_normal(len(times))).astype(np.float32),
        grain=np.empty(0, np.float32),
        grain_at=rng.integers(0, 33, (len(times), 2)),
    )
    # The grain is drawn last: it alone needs more numbers for larger frames, and the view must not depend on the size.
    view.grain = rng.uniform(2, 4.5) * rng.standard_normal((size + 32, size + 32, 3), dtype=np.float32)
    return view


def _relief(direction: float, size: int) -> np.ndarray:
    """Shading of a head lit from `direction` (radians): brighter towards the light, darker at the rim; 1 far outside."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    x, y = axis[None, :] / 0.335, axis[:, None] / 0.335 - 0.05
    radius = np.sqrt((x / 1.0) ** 2 + (y / 1.32) ** 2)
    inside = 1 / (1 + np.exp((radius - 1.02) / 0.04))
    towards = (np.cos(direction) * x + np.sin(direction) * y / 1.3) * 0.16
    rim = -0.26 * np.clip(radius, 0, 1) ** 4 + 0.06
    gain = (1 + inside * (towards + rim)).astype(np.float32)
    return np.repeat(gain[..., None], 3, axis=2)


def _backdrop(rng: np.random.Generator, side: int) -> np.ndarray:
    """A blurred room: a coarse random colour field, and a few plain blocks (shelf, door, picture)."""
    coarse = np.clip(
        rng.uniform(50, 200) + 22 * rng.standard_normal(3) + 18 * rng.standard_normal((4, 4, 3)), 0, 255
    ).astype(np.float32)
    field = np.clip(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 4))):
        corner, extent = rng.uniform(0, 1, 2) * side, rng.uniform(0.1, 0.6, 2) * side
        far = corner + extent
        colour = np.clip(rng.uniform(30, 220) + 25 * rng.standard_normal(3), 0, 255).tolist()
        cv2.rectangle(field, (int(corner[0]), int(corner[1])), (int(far[0]), int(far[1])), colour, -1)
    return cv2.GaussianBlur(field, (0, 0), side / 64)
