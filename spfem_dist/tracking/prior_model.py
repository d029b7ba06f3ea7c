"""A prior as an MLflow model from code: this file is the model's script, the weights beside it are safetensors, no pickle.

`mlflow.pyfunc.load_model("models:/NAME@candidate").predict({"frames": ..., "speech": ...})` gives embeddings.
"""

from __future__ import annotations

import warnings
from typing import Any

import mlflow
import torch
from mlflow.pyfunc import PythonModel

from spfem_dist.priors.prior import load_prior

# MLflow asks every subclass for type hints, past any filter; the hints it knows have no tensors, and the signature has.
with warnings.catch_warnings(record=True):

    class PriorModel(PythonModel):
        """frames: uint8 [N, 3, S, S] RGB; speech: float32 [N, W, F], for priors that listen. Returns [N, D], unit norm."""

        def load_context(self, context):
            self.prior: Any
            self.prior, self.config = load_prior(context.artifacts["prior"])

        def predict(self, context, model_input, params=None):
            frames = torch.as_tensor(model_input["frames"])
            speech = torch.as_tensor(model_input["speech"]).float() if "speech" in model_input else None
            with torch.inference_mode():
                return self.prior.embed(frames, speech).cpu().numpy()


mlflow.models.set_model(PriorModel())
