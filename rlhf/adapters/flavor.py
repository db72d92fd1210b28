"""What makes a model folder loadable with `mlflow.pyfunc.load_model`; its other files stay what transformers reads."""

from importlib import metadata
from pathlib import Path

LOADER = "rlhf.serving.pyfunc"
"""Where `_load_pyfunc` is; whoever loads the model that way needs this package."""
REQUIREMENTS = ("torch", "transformers", "safetensors")


def describe_flavor(folder: Path) -> None:
    """Write `MLmodel` and `requirements.txt` beside a policy's files."""
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import add_to_model
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "prompt")]),
        outputs=Schema([ColSpec(DataType.string, "response")]),
        params=ParamSchema(
            [
                ParamSpec("temperature", DataType.double, 1.0),
                ParamSpec("max_new_tokens", DataType.long, 64),
                ParamSpec("seed", DataType.long, 0),
            ]
        ),
    )
    model = Model(signature=signature)
    add_to_model(model, loader_module=LOADER)  # type: ignore[no-untyped-call]  # MLflow's own
    model.save(str(folder / "MLmodel"))
    pins = [
        f"rlhf=={metadata.version('rlhf')}",
        *(f"{name}=={metadata.version(name)}" for name in REQUIREMENTS),
    ]
    (folder / "requirements.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
