"""A generator as an MLflow model from code: this file is the model's script, the weights beside it are safetensors, no pickle.

`mlflow.pyfunc.load_model("models:/NAME@champion").predict({"source": ["talk.mp4"], "emotion": ["happy"], "out": ["edited.mp4"]})`
edits clips as `spfem edit` does.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from spfem_dist.editing.job import run
from spfem_dist.editing.request import EditRequest
from spfem_dist.generators.load import load_generator

PATHS = ("source", "out", "reference", "preview", "landmarks", "reference_landmarks")

# MLflow asks every subclass for type hints, past any filter; a row's optional columns are in the signature instead.
with warnings.catch_warnings(record=True):

    class GeneratorModel(PythonModel):
        """A row for each clip: source and out, emotion or reference (or both), and what else `spfem edit` takes; paths of this machine.

        Returns a row for each: out, frames, seconds, remarks. Raises ValueError or OSError that names the clip and the fix.
        """

        def load_context(self, context):
            self.place = context.artifacts["generator"]
            self.generator = load_generator(self.place)

        def predict(self, context, model_input, params=None):
            frame = pd.DataFrame(model_input)
            columns = [
                name for name in frame if isinstance(frame[name].iloc[0], list)
            ]  # MLflow makes one row of a dict
            rows = frame.explode(columns) if columns else frame
            return pd.DataFrame([self.edited(row) for row in rows.to_dict("records")])

        def edited(self, row):
            given = {key: value for key, value in row.items() if value is not None and value == value and value != ""}
            given |= {key: Path(given[key]) for key in PATHS if key in given}
            # Whoever asks a model for a clip wants it made now, whatever lies there from before.
            request = EditRequest(**given, generator=str(self.place), overwrite=True)
            (done,) = run(request, lambda location: self.generator).edited
            return {
                "out": str(done.out),
                "frames": done.frames,
                "seconds": done.seconds,
                "remarks": "; ".join(done.remarks),
            }


mlflow.models.set_model(GeneratorModel())
