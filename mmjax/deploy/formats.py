"""Names of the formats and dtypes of an export. The command line needs them before anything else is imported."""

from mmjax.errors import UserError, did_you_mean

FORMATS = ("stablehlo", "onnx")
"""Formats that hold the computation too, so that no code of the model is needed to run it."""
DYNAMIC = "int8-dynamic"
DTYPES = ("float32", "bfloat16", "float16", "int8", DYNAMIC)
"""Dtypes of the stored weights. The computation is in the dtype of the run. With int8-dynamic, linear layers also round
their input to int8 and multiply integers."""
LIMIT = 1e-5
"""Largest difference between the outputs of an export and those of the model with the same weights."""
LEAST_COSINE = 0.98
"""Least cosine between those outputs for int8-dynamic in ONNX. Its runtime rounds activations in another way than
mmjax: with one scale for a whole array."""


class DeployError(UserError):
  """An export that cannot be written or read. The message names the file or the field, and the remedy."""


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
  """Check an option.

  Args:
    name: name of the option, for the message.
    value: value of the option.
    known: allowed values.
  Raises: DeployError: the value is not one of them.
  """
  if value not in known:
    raise DeployError(f"unknown {name} {value!r}; it is one of {', '.join(known)}.{did_you_mean(value, known)}")
