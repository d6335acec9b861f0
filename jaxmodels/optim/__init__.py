"""Optimizers by plain calls: schedules, averages of parameters, and which parameters train."""

from jaxmodels.optim.averaging import Averaging, EmaState, schedule_free_adamw, schedule_free_sgd, with_ema
from jaxmodels.optim.cautious import cautious, cautious_adam, cautious_lion
from jaxmodels.optim.normuon import normuon
from jaxmodels.optim.optimizers import (
    TABLES,
    VECTORS,
    Mask,
    Rate,
    RateState,
    adafactor,
    adagrad,
    adam,
    adamw,
    everything,
    lion,
    matrices,
    muon,
    rmsprop,
    scale_by_rate,
    sgd,
)
from jaxmodels.optim.partial import SpikeState, frozen, layerwise, only, scaled, skip_spikes
from jaxmodels.optim.schedules import (
    constant,
    steps_at,
    warmup_cosine,
    warmup_linear,
    warmup_rsqrt,
    warmup_stable_decay,
)
from jaxmodels.optim.shampoo import shampoo
from jaxmodels.optim.soap import soap

__all__ = [
    "TABLES",
    "VECTORS",
    "Averaging",
    "EmaState",
    "Mask",
    "Rate",
    "RateState",
    "SpikeState",
    "adafactor",
    "adagrad",
    "adam",
    "adamw",
    "cautious",
    "cautious_adam",
    "cautious_lion",
    "constant",
    "everything",
    "frozen",
    "layerwise",
    "lion",
    "matrices",
    "muon",
    "normuon",
    "only",
    "rmsprop",
    "scale_by_rate",
    "scaled",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "sgd",
    "shampoo",
    "skip_spikes",
    "soap",
    "steps_at",
    "warmup_cosine",
    "warmup_linear",
    "warmup_rsqrt",
    "warmup_stable_decay",
    "with_ema",
]
