"""The configuration tree: four sources in rising precedence, and a sentence for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from llm4rec import config
from llm4rec.errors import ConfigError, InputError
from llm4rec.retrieve.entries import KINDS


class Train(config.Section):
    """Stands in for a section of the package."""

    epochs: int = Field(10, ge=1, description="Passes over the events.")
    learning_rate: float = Field(0.001, gt=0, description="Step size.")
    batch_size: int = Field(64, description="People per step.")
    loss: Literal["full", "sampled"] = Field("full", description="Over what the softmax runs.")
    devices: tuple[str, ...] = Field((), description="Where to compute.")
    shuffle: bool = Field(True, description="Whether the order is drawn anew.")
    betas: tuple[float, float] | None = Field(None, description="Decays of two averages.")


class Data(config.Section):
    """Another one."""

    min_rating: float | None = Field(None, description="Ratings below are left out.")


class Root(config.Section):
    """The tree."""

    train: Train = Train()
    data: Data = Data()


def read(*settings: str, file: Path | None = None, environment: dict[str, str] | None = None) -> Root:
    return config.load(Root, file=file, environment=environment or {}, settings=settings)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text("[train]\nepochs = 2\nbatch_size = 2\nlearning_rate = 0.2\n")
    return file


def test_without_any_source_the_defaults_hold() -> None:
    assert read() == Root()
    assert read().train.epochs == 10


def test_each_source_outranks_the_one_before(toml: Path) -> None:
    environment = {"LLM4REC_TRAIN__EPOCHS": "3", "LLM4REC_TRAIN__BATCH_SIZE": "3"}
    train = read("train.epochs=4", file=toml, environment=environment).train
    assert (train.epochs, train.batch_size, train.learning_rate, train.loss) == (4, 3, 0.2, "full")


def test_the_last_of_two_settings_counts() -> None:
    assert read("train.epochs=4", "train.epochs=5").train.epochs == 5


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM4REC_DATA__MIN_RATING", "3.5")
    assert config.load(Root).data.min_rating == 3.5


def test_variables_of_others_are_let_be() -> None:
    assert (
        read(environment={"LLM4REC_HOME": "/x", "LLM4RECTRAIN__EPOCHS": "3", "TRAIN__EPOCHS": "3"}) == Root()
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("sampled", "sampled"), ('"sampled"', "sampled"), (" sampled ", "sampled")],
)
def test_a_text_needs_no_quotes(text: str, value: str) -> None:
    assert read(f"train.loss={text}").train.loss == value


def test_a_list_is_written_as_in_toml() -> None:
    assert read('train.devices=["cpu", "gpu=1"]').train.devices == ("cpu", "gpu=1")


@given(st.integers(1, 10**6), st.floats(1e-9, 1e3))
def test_numbers_pass_through_settings_unchanged(epochs: int, rate: float) -> None:
    train = read(f"train.epochs={epochs}", f"train.learning_rate={rate!r}").train
    assert (train.epochs, train.learning_rate) == (epochs, rate)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("train.epoch=3", "'train.epoch' is unknown. Did you mean train.epochs"),
        ("trian.epochs=3", "'trian' is unknown. Did you mean"),
        ("xyzzy.quux=3", "`llm4rec fit --help-config` lists all keys"),
        ("train.epochs=0", "'train.epochs' can't be 0: Input should be greater than or equal to 1"),
        ("train.epochs=many", "'train.epochs' can't be 'many'"),
        ("train.epochs=1.5", "'train.epochs' can't be 1.5"),
        ("train.epochs=1e23", "'train.epochs' can't be 1e+23: the largest number it takes is 9,223"),
        ('train.epochs="100000000000000000000000"', "the largest number it takes is 9,223"),
        ("train.epochs=0100000000000000000000000", "the largest number it takes is 9,223"),
        ("train.epochs=true", "'train.epochs' can't be True: it is a truth value"),
        ("train.learning_rate=false", "'train.learning_rate' can't be False: it is a truth"),
        ("data.min_rating=true", "'data.min_rating' can't be True: it is a truth value"),
        ("train.betas=[true, 0.9]", "'train.betas' can't be [True, 0.9]: it is a truth value"),
        ("train.shuffle=1", "'train.shuffle' can't be 1: it is a number, and true or false is needed"),
        ("train.shuffle=0.0", "'train.shuffle' can't be 0.0: it is a number"),
        ("train.learning_rate=inf", "'train.learning_rate' can't be inf: Input should be a finite number"),
        ("data.min_rating=nan", "'data.min_rating' can't be nan: Input should be a finite number"),
        ("train.learning_rate=-1", "'train.learning_rate' can't be -1: Input should be greater than 0"),
        ("train.loss=half", "'train.loss' can't be 'half': Input should be 'full' or 'sampled'"),
        ("train=3", "'train' can't be 3"),
        ("train.epochs", "is not of the form section.key=value"),
        ("=3", "is not of the form section.key=value"),
    ],
)
def test_each_mistake_is_named(setting: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(setting)
    assert sentence in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs.*train\.batch"):
        read("train.epochs=0", "train.batch=3")


def test_a_value_is_no_section() -> None:
    with pytest.raises(ConfigError, match="'epochs' is a value, not a section"):
        read("train.epochs=3", "train.epochs.more=3")


def test_a_setting_can_not_smuggle_in_more_than_its_value() -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs"):
        read("train.epochs=3\nbatch_size = 5")


def test_a_file_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml does not exist"):
        read(file=tmp_path / "absent.toml")
    for content in (b"[train\n", b"\xff\xfe", b"epochs = \n"):
        (tmp_path / "broken.toml").write_bytes(content)
        with pytest.raises(ConfigError, match=r"broken\.toml is not valid TOML"):
            read(file=tmp_path / "broken.toml")
    with pytest.raises(ConfigError, match="can't be read"):
        read(file=tmp_path)


def test_a_file_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[train]\nlearning_rat = 0.1\n")
    with pytest.raises(ConfigError, match=r"Did you mean train\.learning_rate"):
        read(file=tmp_path / "c.toml")


def test_a_section_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Root().train.epochs = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_the_options_are_listed_in_declared_order() -> None:
    assert list(config.options(Root)) == [
        ("train.epochs", "int", "10", "Passes over the events."),
        ("train.learning_rate", "float", "0.001", "Step size."),
        ("train.batch_size", "int", "64", "People per step."),
        ("train.loss", "Literal['full', 'sampled']", "'full'", "Over what the softmax runs."),
        ("train.devices", "tuple[str, ...]", "()", "Where to compute."),
        ("train.shuffle", "bool", "True", "Whether the order is drawn anew."),
        ("train.betas", "tuple[float, float] | None", "None", "Decays of two averages."),
        ("data.min_rating", "float | None", "None", "Ratings below are left out."),
    ]


def test_every_option_of_the_package_says_what_it_means() -> None:
    from llm4rec import Config

    listed = {key: meaning for key, _, _, meaning in config.options(Config)}
    assert [key for key, meaning in listed.items() if not meaning.strip()] == []
    promised = (
        "train.epochs train.learning_rate train.batch_size train.seed model.backbone model.embedding_size"
    )
    assert set(promised.split()) | {"model.layers", "data.min_rating", "data.max_history"} <= listed.keys()


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "linear.ridge=1e-300",
            "'linear.ridge' can't be 1e-300: Input should be greater than or equal to 0.001",
        ),
        ("linear.ridge=true", "'linear.ridge' can't be True: it is a truth value"),
        (
            "train.weight_decay=1e300",
            "'train.weight_decay' can't be 1e+300: Input should be less than or equal",
        ),
        ("train.negatives=1_000_000_000", "'train.negatives' can't be 1000000000: Input should be less than"),
        ("model.pretrained.lora_rank=1_000_000", "lora_rank' can't be 1000000: Input should be less than"),
        ("data.max_history=1e23", "'data.max_history' can't be 1e+23: the largest number it takes is"),
        ("data.rating_range=[true, 5]", "'data.rating_range' can't be [True, 5]: it is a truth value"),
        ("encode.behaviour=1", "'encode.behaviour' can't be 1: it is a number, and true or false"),
        ("model.pointwise=1e300", "'model.pointwise' can't be 1e+300: Input should be less than or equal"),
        ("model.temperature=1e-300", "'model.temperature' can't be 1e-300: Input should be greater than"),
        ("data.max_history=1e9", "'data.max_history' can't be 1000000000.0: Input should be less than"),
        ("generate.share=false", "'generate.share' can't be False: it is a truth value"),
    ],
)
def test_what_no_fit_could_use_is_refused_before_any_work(setting: str, sentence: str) -> None:
    from llm4rec import Config

    with pytest.raises(ConfigError) as caught:
        config.load(Config, environment={}, settings=[setting])
    assert sentence in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "setting",
    [
        "linear.ridge=0.001", "train.weight_decay=1", "train.negatives=100_000", "data.max_history=1e4",
        "data.rating_range=[1, 5]", "encode.behaviour=false", "encode.behaviour=off", "generate.share=1",
    ],
)  # fmt: skip
def test_what_somebody_may_use_is_taken(setting: str) -> None:
    from llm4rec import Config

    assert config.load(Config, environment={}, settings=[setting])


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ("generate.share=0.5", "'generate.share' can't be 0.5: generate.mode = only trains no dense head"),
        ("model.pointwise=0.2", "generate.mode = only trains the code head alone, so model.pointwise has to"),
    ],
)
def test_options_that_don_t_go_together_are_refused(other: str, sentence: str) -> None:
    from llm4rec import Config

    for mode in ("off", "joint"):
        assert config.load(Config, environment={}, settings=[other, f"generate.mode={mode}"])
    with pytest.raises(ConfigError) as caught:
        config.load(Config, environment={}, settings=[other, "generate.mode=only"])
    assert str(caught.value).startswith(("The configuration key " if "share" in other else "") + sentence)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM4REC_CACHE", "~/elsewhere")
    assert config.cache_dir() == Path.home() / "elsewhere"
    monkeypatch.delenv("LLM4REC_CACHE")
    assert config.cache_dir() == Path.home() / ".cache" / "llm4rec"


def test_without_memories_nothing_people_did_is_retrieved() -> None:
    from llm4rec import Config

    retrieve = Config().without_memories().retrieve
    tried = retrieve.tried(kinds=KINDS, clock=True, rated=True).any(axis=1)
    assert [kind for kind, wanted in zip(KINDS, tried, strict=True) if not wanted] == ["memory"]
    with pytest.raises(InputError, match=r"'memory': that needs retrieve\.memories above 0"):
        retrieve.model_copy(update={"kinds": ("memory",)}).tried(kinds=KINDS, clock=True, rated=True)
    asked = 'retrieve.kinds=["memory"]'
    only = config.load(Config, environment={}, settings=[asked])
    with pytest.raises(ConfigError, match="retrieves nothing but histories"):
        only.without_memories()
    off = config.load(Config, environment={}, settings=[asked, "retrieve.enabled=false"])
    assert not off.without_memories().retrieve.enabled
