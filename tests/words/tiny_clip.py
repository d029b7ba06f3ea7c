"""A random CLIP as a folder of files, with a vocabulary of single letters."""

import json
import string

from spfem_dist.nets import clip


def tiny_clip_folder(folder):
    """Write it into `folder`, and return that."""
    clip.tiny_clip().save_pretrained(folder)
    letters = string.ascii_lowercase
    units = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({unit: i for i, unit in enumerate(units)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder
