"""Options of learning while serving (section `online`)."""

from __future__ import annotations

from pydantic import Field as Option

from llm4rec.config import Section
from llm4rec.online.momentum import Importance


class OnlineConfig(Section):
    """How a served model learns from the event log (section `online`)."""

    train: bool = Option(
        default=True, description="Train on what comes; without, it is remembered and nothing is trained."
    )
    batch_size: int = Option(
        default=32, ge=1, le=10_000, description="Positions of the event log that make one step [events]."
    )
    learning_rate: float = Option(default=0.05, gt=0, le=100, description="Step size η₀ of equation (28).")
    momentum: float = Option(default=0.9, ge=0, lt=1, description="μ of equation (26).")
    averaging: float = Option(
        default=0.95,
        ge=0,
        lt=1,
        description="Decay per step of the average of the weights that is served; 0 = the newest weights.",
    )
    fraction: float = Option(
        default=0.5, gt=0, le=1, description="Share ρ of the trained numbers that a step changes."
    )
    importance: Importance = Option(
        default="gradient",
        description="What makes a number important: its gradient squared, or gradient times value.",
    )
    consolidation: float = Option(
        default=10.0, ge=0, le=1e9, description="λ of equation (33): how far what mattered is held back."
    )
    fisher_decay: float = Option(
        default=0.995, gt=0, lt=1, description="Share of the Fisher information kept per new example."
    )
    fisher_every: int = Option(default=4, ge=1, description="Steps per new example of it [steps].")
    fisher_examples: int = Option(
        default=200, ge=1, le=100_000, description="Examples that it is first made of [events]."
    )
    history: int = Option(
        default=32, ge=1, description="The most events that a step reads before one it learns [events]."
    )
    replay: int = Option(
        default=16, ge=0, le=10_000, description="Earlier events that are learnt again per step [events]."
    )
    reservoir: int = Option(
        default=2_000, ge=1, le=1_000_000, description="Earlier events that are kept for it [events]."
    )
    reliability: bool = Option(
        default=True, description="Weigh feedback by how far its kind and its person can be trusted."
    )
    doubt: float = Option(
        default=0.5,
        ge=0,
        le=2,
        description="How far above the last place of all, as a lead, an item has to stand for its event to "
        "count wholly; 0 = wherever it stands.",
    )
    independence: float = Option(
        default=1.0,
        ge=0,
        le=1,
        description="How far events of one person in one step count as one: 0 not at all, 1 wholly.",
    )
    period: int = Option(
        default=32,
        ge=1,
        description="Steps after which it is judged whether what was learnt is kept, and θ* moves [steps].",
    )
    holdout: float = Option(
        default=0.05,
        ge=0,
        lt=1,
        description="Share of the events that are never trained on but judge the others.",
    )
    judges: int = Option(
        default=256, ge=8, le=100_000, description="The newest of those that judge, and as many old ones."
    )
    tolerance: float = Option(
        default=0.02,
        ge=0,
        le=1,
        description="How much worse old events may be foreseen than before learning began [share of nats].",
    )
    versions: int = Option(
        default=5, ge=0, le=1_000, description="Earlier states of a model that are kept to go back to."
    )
    surprise: float = Option(
        default=0.002, gt=0, lt=1, description="δ of ADWIN, which watches the loss: its false alarms."
    )
    loosening: float = Option(
        default=0.5, ge=0, le=1, description="Share of the Fisher information kept where it finds drift."
    )
