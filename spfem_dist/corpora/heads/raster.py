"""Triangles to pixels: a z-buffer and deferred shading, compiled by numba for one core.

A frame is drawn in three passes over buffers of the supersampled picture: `rasterise` finds the nearest triangle of every pixel, `shade`
lights what was found, and the caller shrinks the result, which is the anti-aliasing. Nothing here draws random numbers or uses
reassociated arithmetic (numba's fastmath is off), so that equal input gives equal bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Columns of the material table that `shade` reads.
SPECULAR, SHARPNESS, WRAP, BUMPED, GLOW = range(5)

_compiled = njit(cache=True, nogil=True, error_model="numpy")


@_compiled
def rasterise(points, faces, two_sided, cut, uv, alpha, depth, face, share):
    """Find the nearest face of every pixel.

    points: float32 [N, 3], x and y in pixels of the buffers, and nearness (larger is nearer). faces: int32 [F, 3]. two_sided: bool [F];
    the others are seen from the side on which their corners run counter-clockwise on the screen. cut: bool [F], whether a face is
    missing where `alpha` (uint8 [A, A], under the face's `uv`, float32 [N, 2] in 0..1) is below 128. depth: float32 [H, W],
    -inf where nothing was drawn yet. face: int32 [H, W], -1 likewise. share: float32 [H, W, 2], the weights of
    the face's second and third corner. The last three are written. uv is interpolated in the picture's plane, without the
    perspective within a triangle, which is less than a pixel for a head.
    """
    height, width = depth.shape
    side = alpha.shape[0]
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = points[a, 0], points[a, 1], points[a, 2]
        bx, by, bz = points[b, 0], points[b, 1], points[b, 2]
        cx, cy, cz = points[c, 0], points[c, 1], points[c, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0 or (area > 0 and not two_sided[f]):
            continue
        x0 = max(0, int(np.ceil(min(ax, bx, cx) - np.float32(0.5))))
        x1 = min(width - 1, int(np.floor(max(ax, bx, cx) - np.float32(0.5))))
        y0 = max(0, int(np.ceil(min(ay, by, cy) - np.float32(0.5))))
        y1 = min(height - 1, int(np.floor(max(ay, by, cy) - np.float32(0.5))))
        inverse = np.float32(1) / area
        # Both weights change by a constant from pixel to pixel.
        b_dx, b_dy = (cy - ay) * inverse, -(cx - ax) * inverse
        c_dx, c_dy = -(by - ay) * inverse, (bx - ax) * inverse
        for y in range(y0, y1 + 1):
            py = np.float32(y) + np.float32(0.5) - ay
            for x in range(x0, x1 + 1):
                px = np.float32(x) + np.float32(0.5) - ax
                wb = px * b_dx + py * b_dy
                wc = px * c_dx + py * c_dy
                wa = np.float32(1) - wb - wc
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                near = wa * az + wb * bz + wc * cz
                if near <= depth[y, x]:
                    continue
                if cut[f]:
                    u = wa * uv[a, 0] + wb * uv[b, 0] + wc * uv[c, 0]
                    v = wa * uv[a, 1] + wb * uv[b, 1] + wc * uv[c, 1]
                    column = min(side - 1, max(0, int(u * np.float32(side))))
                    row = min(side - 1, max(0, int(v * np.float32(side))))
                    if alpha[row, column] < 128:
                        continue
                depth[y, x] = near
                face[y, x] = f
                share[y, x, 0] = wb
                share[y, x, 1] = wc


@_compiled
def _corner(side, u, v):
    """The upper left one of the four texels around (u, v) in 0..1, and the shares of its right and lower neighbours."""
    last = np.float32(side - 1.001)
    x = min(max(u * np.float32(side) - np.float32(0.5), np.float32(0)), last)
    y = min(max(v * np.float32(side) - np.float32(0.5), np.float32(0)), last)
    column, row = int(x), int(y)
    return row, column, y - np.float32(row), x - np.float32(column)


@_compiled
def _between(picture, row, column, down, across, channel):
    """One channel of a picture between four texels, as `_corner` gives them."""
    one = np.float32(1)
    top = (
        np.float32(picture[row, column, channel]) * (one - across)
        + np.float32(picture[row, column + 1, channel]) * across
    )
    low = (
        np.float32(picture[row + 1, column, channel]) * (one - across)
        + np.float32(picture[row + 1, column + 1, channel]) * across
    )
    return top * (one - down) + low * down


@_compiled
def _lit(shadow, x, y, near):
    """How much of the light reaches a point: 0 to 1, of the 4 x 4 texels of the shadow map around it, those at the edge by nearness."""
    side = shadow.shape[0]
    x = min(max(x - np.float32(0.5), np.float32(1)), np.float32(side - 3.001))
    y = min(max(y - np.float32(0.5), np.float32(1)), np.float32(side - 3.001))
    column, row = int(x), int(y)
    x -= np.float32(column)
    y -= np.float32(row)
    total = np.float32(0)
    for i in range(-1, 3):
        down = np.float32(1) - y if i == -1 else y if i == 2 else np.float32(1)
        for j in range(-1, 3):
            across = np.float32(1) - x if j == -1 else x if j == 2 else np.float32(1)
            if near >= shadow[row + i, column + j]:
                total += down * across
    return total / np.float32(9)


@_compiled
def shade(
    face,
    share,
    faces,
    materials,
    table,
    position,
    normal,
    uv,
    occlusion,
    atlas,
    relief,
    tangents,
    eye,
    lights,
    shadow,
    in_light,
    out,
):
    """Light every pixel that has a face.

    face, share: as `rasterise` wrote them. faces: int32 [F, 3]. materials: uint8 [F], rows of table: float32 [M, 5], whose columns are
    SPECULAR (strength), SHARPNESS (the highlight's exponent is 2 to this), WRAP (how far light reaches round an edge, as it
    does under skin), BUMPED (whether `relief` bends its normals) and GLOW (light that it has of its own).
    position, normal: float32 [N, 3], world; the camera is at `eye` [3]. uv: float32 [N, 2] in 0..1 of atlas and relief.
    occlusion: float32 [N], open share of the sky. atlas: uint8 [A, A, 4], square roots of linear RGB, and gloss. relief:
    float32 [R, R, 3], on the atlas's upper left quarter: darkening, and the slopes of the surface along u and v. tangents: float32 [2, 3], what u's direction is at the
    face's middle, and the up vector. lights: float32 [6, 3]: direction to the key light, its colour, direction to the fill light, its
    colour, sky's and ground's colour. shadow: float32 [D, D], nearness to the key light, or [0, 0] for none; in_light: float32 [N, 3], each
    vertex there (x and y in texels, nearness). out: float32 [H, W, 3], linear light, written where there is a face.
    """
    height, width = face.shape
    one, none = np.float32(1), np.float32(0)
    up = tangents[1]
    for y in range(height):
        for x in range(width):
            f = face[y, x]
            if f < 0:
                continue
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            wb, wc = share[y, x, 0], share[y, x, 1]
            wa = one - wb - wc
            u = wa * uv[a, 0] + wb * uv[b, 0] + wc * uv[c, 0]
            v = wa * uv[a, 1] + wb * uv[b, 1] + wc * uv[c, 1]
            open_sky = wa * occlusion[a] + wb * occlusion[b] + wc * occlusion[c]
            nx = wa * normal[a, 0] + wb * normal[b, 0] + wc * normal[c, 0]
            ny = wa * normal[a, 1] + wb * normal[b, 1] + wc * normal[c, 1]
            nz = wa * normal[a, 2] + wb * normal[b, 2] + wc * normal[c, 2]
            vx = eye[0] - (wa * position[a, 0] + wb * position[b, 0] + wc * position[c, 0])
            vy = eye[1] - (wa * position[a, 1] + wb * position[b, 1] + wc * position[c, 1])
            vz = eye[2] - (wa * position[a, 2] + wb * position[b, 2] + wc * position[c, 2])
            length = one / np.sqrt(vx * vx + vy * vy + vz * vz)
            vx, vy, vz = vx * length, vy * length, vz * length
            if nx * vx + ny * vy + nz * vz < 0:  # the back of a surface with two sides
                nx, ny, nz = -nx, -ny, -nz
            m = materials[f]
            dark = one
            if table[m, BUMPED] > 0:
                i, j, down, across = _corner(relief.shape[0], u + u, v + v)
                dark = one - _between(relief, i, j, down, across, 0)
                du = _between(relief, i, j, down, across, 1) * table[m, BUMPED]
                dv = _between(relief, i, j, down, across, 2) * table[m, BUMPED]
                # The direction of u on the surface: across `up` and the normal.
                tx, ty, tz = up[1] * nz - up[2] * ny, up[2] * nx - up[0] * nz, up[0] * ny - up[1] * nx
                nx -= du * tx - dv * up[0]
                ny -= du * ty - dv * up[1]
                nz -= du * tz - dv * up[2]
            length = one / max(np.sqrt(nx * nx + ny * ny + nz * nz), np.float32(1e-6))
            nx, ny, nz = nx * length, ny * length, nz * length

            key = nx * lights[0, 0] + ny * lights[0, 1] + nz * lights[0, 2]
            fill = nx * lights[2, 0] + ny * lights[2, 1] + nz * lights[2, 2]
            reach = one
            if shadow.shape[0] > 0:
                lx = wa * in_light[a, 0] + wb * in_light[b, 0] + wc * in_light[c, 0]
                ly = wa * in_light[a, 1] + wb * in_light[b, 1] + wc * in_light[c, 1]
                lz = wa * in_light[a, 2] + wb * in_light[b, 2] + wc * in_light[c, 2]
                # A slanted surface leaves its texel's depth sooner, hence the larger tolerance.
                slack = np.float32(0.03) + np.float32(0.06) * (one - max(key, none))
                reach = _lit(shadow, lx, ly, lz + slack)
            facing = max(nx * vx + ny * vy + nz * vz, none)
            hx, hy, hz = lights[0, 0] + vx, lights[0, 1] + vy, lights[0, 2] + vz
            length = one / np.sqrt(hx * hx + hy * hy + hz * hz)
            shine = max((nx * hx + ny * hy + nz * hz) * length, none)
            for _ in range(int(table[m, SHARPNESS])):
                shine = shine * shine
            edge = (one - facing) * (one - facing)
            edge = edge * edge
            i, j, down, across = _corner(atlas.shape[0], u, v)
            gloss = table[m, SPECULAR] * _between(atlas, i, j, down, across, 3) * np.float32(1 / 255)
            shine = gloss * (shine * reach * max(key, none) + np.float32(0.25) * edge * open_sky)
            overhead = np.float32(0.5) + np.float32(0.5) * ny
            for channel in range(3):
                # Red travels farthest under skin.
                wrap = table[m, WRAP] * (one - np.float32(0.4) * np.float32(channel))
                direct = max(key + wrap, none) / (one + wrap)
                soft = reach + (one - reach) * wrap * np.float32(0.5)
                side = max(fill + wrap, none) / (one + wrap)
                sky = lights[5, channel] + (lights[4, channel] - lights[5, channel]) * overhead
                light = direct * soft * lights[1, channel] * (np.float32(0.4) + np.float32(0.6) * open_sky)
                light += (side * lights[3, channel] + sky) * open_sky
                root = _between(atlas, i, j, down, across, channel) * np.float32(1 / 255)
                colour = root * root * dark
                out[y, x, channel] = colour * (light + table[m, GLOW]) + shine * lights[1, channel]


@_compiled
def vertex_normals(position, faces, out):
    """The normals of the vertices, float32 [N, 3] written to `out`: the faces' around each weighted by their areas, of unit length."""
    out[:] = 0
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ex, ey, ez = position[b, 0] - position[a, 0], position[b, 1] - position[a, 1], position[b, 2] - position[a, 2]
        gx, gy, gz = position[c, 0] - position[a, 0], position[c, 1] - position[a, 1], position[c, 2] - position[a, 2]
        nx, ny, nz = ey * gz - ez * gy, ez * gx - ex * gz, ex * gy - ey * gx
        for corner in (a, b, c):
            out[corner, 0] += nx
            out[corner, 1] += ny
            out[corner, 2] += nz
    for n in range(out.shape[0]):
        length = np.sqrt(out[n, 0] * out[n, 0] + out[n, 1] * out[n, 1] + out[n, 2] * out[n, 2])
        if length > 0:
            for k in range(3):
                out[n, k] /= length
