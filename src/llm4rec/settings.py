"""The configuration tree: every section in its place. Each is declared beside the component it belongs to."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from llm4rec.config import Section
from llm4rec.data.ingest import DataConfig
from llm4rec.debias.corrections import DebiasConfig
from llm4rec.diversity import RerankConfig
from llm4rec.encode.fusion import FusionConfig
from llm4rec.encode.image import ImageConfig
from llm4rec.encode.text import TextConfig
from llm4rec.encode.tokens import TokenConfig
from llm4rec.errors import ConfigError
from llm4rec.explain.aspects import ExplainConfig
from llm4rec.generate.semantic_id import GenerateConfig
from llm4rec.model.backbone import COMPACT, BackboneConfig
from llm4rec.model.linear import LinearConfig
from llm4rec.model.past import ServeConfig
from llm4rec.online.options import OnlineConfig
from llm4rec.retrieve.repository import RetrieveConfig
from llm4rec.train.loop import TrainConfig


class EncodeConfig(FusionConfig, TokenConfig):
    """How items become vectors (section `encode`)."""

    text: TextConfig = TextConfig()
    image: ImageConfig = ImageConfig()


class Config(Section):
    """The whole configuration tree."""

    data: DataConfig = DataConfig()
    debias: DebiasConfig = DebiasConfig()
    encode: EncodeConfig = EncodeConfig()
    explain: ExplainConfig = ExplainConfig()
    generate: GenerateConfig = GenerateConfig()
    linear: LinearConfig = LinearConfig()
    model: BackboneConfig = BackboneConfig()
    online: OnlineConfig = OnlineConfig()
    rerank: RerankConfig = RerankConfig()
    retrieve: RetrieveConfig = RetrieveConfig()
    train: TrainConfig = TrainConfig()
    serve: ServeConfig = ServeConfig()

    @model_validator(mode="after")
    def _rate_what_is_trained(self) -> Self:
        if self.generate.mode == "only" and self.model.pointwise:
            raise ValueError(
                "generate.mode = only trains the code head alone, so model.pointwise has to be 0: no rating "
                "would be learnt"
            )
        if self.generate.mode == "only" and self.debias.parity.training:
            raise ValueError(
                "generate.mode = only trains no scores of items, which debias.parity.training needs: leave "
                "one of them out"
            )
        return self

    @model_validator(mode="after")
    def _give_popularity_to_a_bias(self) -> Self:
        if not self.debias.popularity.training:
            return self
        if not self.model.cosine:
            raise ValueError(
                "debias.popularity.training gives popularity to the biases of the items, which plain dot "
                "products do not have: set model.cosine = true, or debias.popularity.training = 0"
            )
        if self.generate.mode == "only":
            raise ValueError(
                "generate.mode = only trains no dense head, so debias.popularity.training has to be 0: its "
                "logits would be given popularity for nothing"
            )
        return self

    def without_memories(self) -> Self:
        """The same with nothing retrieved of what people did.

        Raises:
            ConfigError: where nothing but that is to be retrieved.
        """
        kinds = self.retrieve.kinds
        if kinds is not None:
            kinds = tuple(kind for kind in kinds if kind != "memory")
            if not kinds and self.retrieve.enabled:
                raise ConfigError(
                    'retrieve.kinds=["memory"] retrieves nothing but histories, and the model keeps none.'
                )
        retrieve = self.retrieve.model_copy(update={"kinds": kinds, "memories": 0})
        return self.model_copy(update={"retrieve": retrieve})


def sasrec_config(config: Config) -> Config:
    """SASRec with softmax in this code: ids alone, learnt positions, plain dot products, nothing beside them.

    Ratings and times must be taken from the events as well.
    Source: Kang & McAuley, Self-Attentive Sequential Recommendation, 2018, with the full softmax.
    """
    model = config.model.model_copy(update={"backbone": COMPACT, "positions": "learned", "cosine": False})
    generate = config.generate.model_copy(update={"mode": "off"})
    linear = config.linear.model_copy(update={"items": 0})
    retrieve = config.retrieve.model_copy(update={"enabled": False, "prompt": 0})
    popularity = config.debias.popularity.model_copy(update={"training": 0.0})
    debias = config.debias.model_copy(update={"popularity": popularity})
    explain = config.explain.model_copy(update={"aspects": 0})
    parts = {"model": model, "generate": generate, "linear": linear, "retrieve": retrieve, "debias": debias}
    return config.model_copy(update={**parts, "explain": explain})
