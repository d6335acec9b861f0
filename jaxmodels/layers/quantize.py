"""Training with the products of a model's blocks in 8 bits, by the library qwix.

Parameters keep their type; the operands of a product are scaled by their largest value and rounded, so that
8-bit matrix units can be used. With "float8" the gradient's products are in float8 too, with "int8" they are
unchanged. Embedding and head are not quantised.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import flax.linen as nn

from jaxmodels import choices

Products = Literal["float", "int8", "float8"]

M = TypeVar("M", bound=nn.Module)

_TYPES: dict[str, dict[str, Any]] = {
    "int8": {"weight_qtype": "int8", "act_qtype": "int8"},
    "float8": {"weight_qtype": "float8_e4m3fn", "act_qtype": "float8_e4m3fn", "bwd_qtype": "float8_e4m3fn"},
}


def quantized(
    model: M, products: Products, *, blocks: str = ".*blocks.*", methods: tuple[str, ...] = ("hidden",)
) -> M:
    """The model with its products in that type; "float" gives the model itself.

    blocks: a regular expression for the paths of the quantised modules. methods: the model's methods that a
    task calls. Raises ImportError without qwix.
    """
    choices.check("quantized", "products", products, Products)
    if products == "float":
        return model
    try:
        import qwix
    except ImportError as error:
        raise ImportError("products in 8 bits need qwix; pip install 'jaxmodels[quant]'") from error
    rule = qwix.QtRule(module_path=blocks, **_TYPES[products])
    return qwix.quantize_model(model, qwix.QtProvider([rule]), methods=("__call__", *methods))
