"""The recommender: composes the rooms; reads as the architecture.

history → backbone over fused item vectors → time of asking → dense head → linear part → what is retrieved
→ prior → top n.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import polars as pl
import torch

from llm4rec import (
    answering,
    asking,
    correcting,
    explaining,
    fitting,
    keeping,
    lifecycle,
    observing,
    refitting,
)
from llm4rec.data.catalog import Catalog
from llm4rec.data.events import EventLog
from llm4rec.data.legal import Legal, legal_for, legal_items
from llm4rec.data.queries import list_length
from llm4rec.data.remarks import Manner, Remarks
from llm4rec.data.split import Cases
from llm4rec.encode.text import TextEncoder, reopen_encoder
from llm4rec.errors import InputError
from llm4rec.explain import languages
from llm4rec.explain.kept import Kept, digest
from llm4rec.explain.language_model import open_language_model
from llm4rec.explain.rewording import Rewriter
from llm4rec.explain.verify import Names
from llm4rec.fitted import Fitted
from llm4rec.model.past import ServeConfig
from llm4rec.settings import Config
from llm4rec.types import (
    Evidence,
    Explanation,
    Feedback,
    Floats,
    Ints,
    Preference,
    Progress,
    Query,
    Ranking,
    Rankings,
    silent,
)

if TYPE_CHECKING:
    from llm4rec.store.eventlog import FeedbackLog

__all__ = ["Config", "Recommender", "ServeConfig"]


class Recommender:
    """A fitted model that answers; made by `fit` or `load`, and satisfies the `Recommends` protocol."""

    def __init__(self, fitted: Fitted) -> None:
        self.fitted = fitted
        self.catalog = fitted.catalog
        self.config = fitted.config
        serve = fitted.scorer.serve
        self.reasons = Kept(0 if serve is None else serve.reasons)

    @classmethod
    def fit(  # noqa: PLR0913  # all that a fit can be given
        cls,
        events: EventLog,
        catalog: Catalog,
        config: Config | None = None,
        *,
        people: Catalog | None = None,
        valid: Cases | None = None,
        histories: EventLog | None = None,
        remarks: Mapping[Manner, Remarks] | None = None,
        checkpoints: Path | None = None,
        resume: bool = False,
        progress: Progress = silent,
    ) -> Self:
        """Train on `events`.

        Args:
            events: what people did; its items are dense numbers of `catalog`.
            catalog: the items.
            config: options, the defaults where None.
            people: features of the people, found by name; fields in `data.protected` are left out.
            valid: cases that choose the epoch. Where there are none, the last event of up to
                `train.validation_people` people is kept from training for it.
            histories: what known people did, kept so that they can be asked for by name; `events` where
                None. Give it where `events` are the training part of more.
            remarks: reviews and tags of the items, to be retrieved from. What was said after a moment is not
                retrieved for it; where there are no times, only what is said of the events' items by those
                who took them.
            checkpoints: a directory for unfinished work; None keeps none.
            resume: take up the unfinished work in `checkpoints` instead of starting anew.
            progress: told of every step.

        Raises:
            InputError: where there is nothing to learn from.
            ArtefactError: where the unfinished work belongs to other data or another configuration.
            ConfigError: where popularity is to be taken out twice.
            TrainingError: where the loss stops being finite, or `linear.ridge` is too small.
        """
        return cls(
            fitting.fit(
                events,
                catalog,
                config or Config(),
                people=people,
                valid=valid,
                histories=histories,
                remarks=remarks,
                checkpoints=checkpoints,
                resume=resume,
                progress=progress,
            )
        )

    def rank(self, histories: EventLog, n: int, *, keep_seen: bool = False) -> Rankings:
        """The best n items for each history [b]; rows are known people where `user_ids` names them."""
        found = self.recommend_many(histories, None, n, keep_seen=keep_seen)
        lacking = ((0, 0), (0, n - found.items.shape[1]))
        return Rankings(
            np.pad(found.items, lacking, constant_values=-1),
            np.pad(found.scores, lacking, constant_values=-np.inf),
        )

    def recommend_many(
        self, histories: EventLog, exclude: EventLog | None, n: int, *, keep_seen: bool = False
    ) -> Rankings:
        """As `rank`, leaving out also the items of the same row of `exclude`.

        What a named person refused (see `observe`) is left out, seen items kept or not.
        Lists are no longer than the catalogue, whatever `n`. Item -1 of a history, one the catalogue does not
        know, is passed over.

        Raises:
            InputError: where n is no whole number, or below 1.
        """
        n = list_length(n, len(self.catalog))
        histories = histories.select(histories.items >= 0)
        items = np.full((histories.n_users, n), -1, dtype=np.int64)
        scores = np.full((histories.n_users, n), -np.inf, dtype=np.float32)
        refused = self.fitted.refusals.of(histories.user_ids, self.catalog)
        unwanted = [log for log in (None if keep_seen else histories, exclude, refused) if log is not None]
        for rows, chosen in answering.chunks(self.fitted, histories):
            left_out = [log.histories(rows, log.lengths[rows]) for log in unwanted]
            legal = legal_items(self.catalog, len(rows), left_out)
            best = answering.answer(self.fitted, chosen, legal, n)
            items[rows], scores[rows] = best.items, best.scores
        return Rankings(items, scores)

    def recommend(self, query: Query, n: int = 10) -> Ranking:
        """The best n items for one query; fewer where fewer are legal.

        A history that is not given is looked up by the user's name; one that is given takes its place, also
        where the catalogue knows none of it: what it does not know is passed over. An empty history is
        answered from popularity, the person's features and the time. A wish multiplies p(i | history) by
        p(i | wish) ∝ exp(cos(wish, text of i) / 0.05); for it every item is scored, whatever the size of
        the catalogue. So it is for what a person wants more or less of, see `correct`.

        Raises:
            InputError: where n is no whole number or below 1, a wish is made and the items have no text,
                `where` names what is no categorical field, `more` or `less` no aspect or both the same, or
                where names or the wish are no texts, or times or ratings do not run along the history or
                can't be.
        """
        n = list_length(n, len(self.catalog))
        history = asking.history(self.fitted, query)
        legal = self._legal(query, history)
        best = answering.answer(
            correcting.for_query(self.fitted, query), history, legal, n, self._wish(query)
        )
        found = best.items[0] >= 0
        ids = self.catalog.ids[best.items[0][found]].to_list()
        return Ranking(tuple(ids), tuple(best.scores[0][found].tolist()))

    def explain(self, query: Query, item_id: str, language: str = "en") -> Explanation:
        """Why one item would be recommended to a query, equations (24) and (25).

        Contributions are what the score would lose, to first order.

        Raises:
            InputError: as `explain_each`.
        """
        return self.explain_each(query, [item_id], language)[0]

    def explain_each(
        self, query: Query, item_ids: Sequence[str], language: str = "en"
    ) -> tuple[Explanation, ...]:
        """As `explain`, of several items: the history is read once for all of them.

        Raises:
            InputError: as `recommend`, and where the catalogue has no item of a name or there are no forms of
                words in the language.
        """
        history, items = asking.history(self.fitted, query), asking.numbers(self.catalog, item_ids)
        return tuple(self._reasons(history, items, language, query))

    def explain_many(
        self, histories: EventLog, rankings: Rankings, language: str = "en"
    ) -> list[Explanation]:
        """Why each item of `rankings` [b, n] was recommended after each history [b].

        They follow one another row by row; where a list is shorter than n there are fewer.

        Raises:
            InputError: where there are no forms of words in the language.
        """
        languages.language(language)  # also where there are no rows
        told = list[Explanation]()
        for row, items in enumerate(rankings.items):
            history = histories.histories(np.array([row]), histories.lengths[[row]])
            told += self._reasons(history.select(history.items >= 0), items[items >= 0], language, Query())
        return told

    def rewriter(self, language_model: str) -> Rewriter:
        """What puts reasons into a language model's words, where they can be vouched for.

        Args:
            language_model: `smollm2`, a GGUF file, a model directory, `backbone` for the one this model is
                built on, or the URL of an OpenAI-compatible endpoint with the name of its model after #.

        Raises:
            InputError: where there is no such model, or it can't be read.
            DownloadError: where SmolLM2 can't be had from the package index.
            MissingPackageError: where a package that runs it is not installed.
        """
        model = open_language_model(language_model, self.config.model.backbone)
        return Rewriter(model, Names.of(self.catalog))

    def _reasons(self, history: EventLog, items: Ints, language: str, query: Query) -> list[Explanation]:
        """Why each item [n] would be recommended after one history; what is kept is not made again."""
        words, fitted = languages.language(language), correcting.for_query(self.fitted, query)
        return self.reasons.of(
            digest(history, query.text, language, json.dumps([query.more, query.less])),
            items,
            lambda some: explaining.explain(fitted, history, some, self._wish(query), words),
        )

    def contrast(
        self, query: Query, item_id: str, other_id: str, language: str = "en"
    ) -> tuple[str, tuple[Evidence, ...]]:
        """Why one item rather than another: a sentence, and what speaks more for the one than for the other.

        Contributions are differences (nats), above 0 where they speak for `item_id`.

        Raises:
            InputError: as `explain`, or where both are the same.
        """
        item, other = asking.numbers(self.catalog, [item_id, other_id]).tolist()
        if item == other:
            raise InputError(f"The item {item_id!r} can't be compared with itself: name another.")
        words, fitted = languages.language(language), correcting.for_query(self.fitted, query)
        return explaining.contrast(
            fitted, asking.history(fitted, query), item, other, self._wish(query), words
        )

    def profile(self, query: Query, n: int = 5) -> tuple[Preference, ...]:
        """What a query's person is expected to choose more of than others do, equation (19), and why.

        What they said they want more or less of is told too, beside the n; `correct` changes it.

        Raises:
            InputError: as `recommend`, where the model has no aspects (`explain.aspects`), or where n is no
                whole number or below 1.
        """
        n = list_length(n, self.config.explain.aspects)
        fitted = correcting.for_query(self.fitted, query)
        return explaining.profile(fitted, asking.history(fitted, query), n)

    def standings(self, query: Query, item_id: str, without: Sequence[str] = ()) -> list[explaining.Standing]:
        """Where an item stands: as things are, then if each of some items were not in the history.

        Everything is read and scored again for each. What may come back stays what it was: an item that is
        taken out of the history does not enter the list.

        Raises:
            InputError: as `explain`.
        """
        history, wish = asking.history(self.fitted, query), self._wish(query)
        (item,), out = asking.numbers(self.catalog, [item_id]).tolist(), asking.numbers(self.catalog, without)
        listed = self._legal(query, history).row(0)
        fitted = correcting.for_query(self.fitted, query)
        now = explaining.standings(fitted, history, listed, item, wish)
        return now + explaining.standings(fitted, explaining.without(history, out), listed, item, wish)

    @property
    def item_vectors(self) -> Floats:
        """Fused item vectors z [i, d]."""
        return self.fitted.scorer.vectors.numpy()

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities fused, in the order of `modality_weights`."""
        return self.fitted.scorer.network.fusion.modalities

    @property
    def hears_time(self) -> bool:
        """Whether the time of asking changes answers.

        It does where validation gained by it as context, and where it says what is remembered.
        """
        told = (self.fitted.memories, *self.fitted.remarks.values())
        dated = any(each is not None and each.times is not None for each in told)
        return bool(self.fitted.about["training"]["context_kept"]) or dated or self.fitted.relevance.ages

    @property
    def meta(self) -> dict[str, Any]:
        """How the model came about: its training by stage and epoch, seconds, encoder, notes."""
        return dict(self.fitted.about)

    def modality_weights(self, items: Ints) -> Floats | None:
        """α [i, m] of equation (6): how much each modality of an item weighs; rows sum to 1.

        None where validation kept the plain sum: no weights take part in its vectors.
        """
        if not self.fitted.scorer.network.fusion.attend:
            return None
        scorer, index = self.fitted.scorer, torch.from_numpy(items)
        with torch.inference_mode():
            tokens = {modality: tokens.take(index) for modality, tokens in scorer.items.items()}
            fused = scorer.network.fuse(tokens, weights=True)
        assert fused.weights is not None  # asked for above
        return fused.weights.numpy()

    def openness(self, histories: EventLog) -> Floats:
        """How open the gate of equation (12) is for each history [b], from 0 to 1.

        It is 0 where validation did not keep attention to what is retrieved.
        """
        condition, scorer = self.fitted.condition, self.fitted.scorer
        if condition is None:
            return np.zeros(histories.n_users, dtype=np.float32)
        histories = histories.select(histories.items >= 0)
        with torch.inference_mode():
            states = scorer.states(histories, self.fitted.person_rows(histories))
            return condition.openness(states).abs().numpy()

    def known_history(self, user: str) -> EventLog | None:
        """What a person known from training did, or None for anyone else.

        Raises:
            InputError: where the name is no text.
        """
        return asking.known_history(self.fitted, user)

    def known_histories(self, users: pl.Series) -> EventLog:
        """What each of the named people did, a row each; it is empty for those not known from training."""
        return asking.known_histories(self.fitted, users)

    def rate(self, query: Query, item_ids: Sequence[str]) -> Floats:
        """r̂(u, i): the ratings [n] the query's person would give, in the units of the training ratings.

        Raises:
            InputError: where the model has no rating head (`model.pointwise`), or an item is unknown.
        """
        items = asking.numbers(self.catalog, item_ids)
        history = asking.history(self.fitted, query)
        return self.fitted.scorer.ratings(history, self.fitted.person_rows(history), items)[0]

    def upsert_items(
        self, items: pl.DataFrame | Catalog, *, note: Callable[[str], None] = lifecycle.quiet
    ) -> Self:
        """The same model with items that are new or have changed, read from their content without training.

        A new item gets the next dense number, its vector from its content alone (nobody has touched it), a
        semantic id that is free, and half an event in the prior. An item that is there keeps its number, its
        semantic id and what people's behaviour taught of it; columns the table lacks stay as they are. A
        retired one comes back.

        Args:
            items: rows with `item_id` and columns of the model's catalogue.
            note: told what was passed over, in sentences.

        Raises:
            InputError: naming row and column of a value of the wrong kind; or where the encoder that the
                model reads texts or images with is not on this machine.
        """
        return type(self)(lifecycle.upsert(self.fitted, items, note))

    def retire_items(self, item_ids: Sequence[str]) -> Self:
        """The same model with items that are never recommended again; histories still read them.

        Their ids and numbers are given to nobody else; `upsert_items` brings one back.

        Raises:
            InputError: where the catalogue has no item of a name.
        """
        return type(self)(lifecycle.retire(self.fitted, item_ids))

    def count_new_items(self, events: EventLog) -> Self:
        """The same model, knowing how often the items that training has not seen were taken in `events`.

        Nothing is trained: beside what an item's content promises, its score tells how much more or less
        often it was taken since its first event. What earlier counts said is replaced, so `events` are all
        since training, in the numbers of the catalogue; of items it has seen they say nothing here.

        Raises:
            InputError: where they are no events of this catalogue, or have no times.
        """
        return type(self)(lifecycle.count(self.fitted, events))

    def remember(self, events: EventLog) -> Self:
        """The same model, remembering further events of people it knows or does not.

        They become part of the histories that are asked for by name, memories to others where retrieval uses
        such, and recent popularity is counted anew with them. Nothing is trained. Each call adds to what is
        known already, so no event should be given twice. A model without histories remembers nothing.

        Raises:
            InputError: where they are no events of this catalogue, or have times and those known have none,
                or the other way round.
        """
        return type(self)(lifecycle.remember(self.fitted, events))

    def observe(self, feedback: Feedback) -> Self:
        """The same model, knowing one more event, which changes the next answer to its person.

        Positive feedback (`observing.POSITIVE`, and ratings from `data.min_rating` on) on an item of the
        catalogue is remembered as by `remember`. After a `dislike`, and a rating below `data.min_rating`, the
        item is left out for its person wherever they are named, until positive feedback of theirs on it. Any
        other leaves the model as it is, and so does all where no histories are kept. Nothing is trained, and
        no position in an event log moves: what is observed here is not to be learnt from a log as well.

        Raises:
            InputError: where it can be no event.
        """
        return type(self)(observing.observe(self.fitted, feedback))

    def learn(
        self,
        log: FeedbackLog,
        *,
        after: int | None = None,
        progress: Progress = silent,
        each: Callable[[Self], None] | None = None,
    ) -> tuple[Self, observing.Learnt]:
        """The same model with the feedback that came to an event log since it last learnt from it.

        It is remembered and heeded as by `observe`, and the place up to which the log was read goes with the
        model: a model that is saved has both or neither.

        Args:
            log: the event log.
            after: the position up to which the model knows the log already, where it has not learnt from it
                before; all of it is new where None.
            progress: told of every page.
            each: given the model from time to time, as it is by then (`observing.TRAINED`); one that is saved
                there goes on from there to the same end.

        Raises:
            InputError: where the model has learnt from another log or has read further than `after`, the log
                is behind the model, or the model keeps no histories.
            EventLogError: where the log can't be read.
        """
        given = None if each is None else lambda found: each(type(self)(found))
        fitted, told = observing.learn(self.fitted, log, after, progress, given)
        return type(self)(fitted), told

    def refit(
        self,
        *,
        warm: bool = True,
        checkpoints: Path | None = None,
        resume: bool = False,
        progress: Progress = silent,
    ) -> Self:
        """A model fitted anew on everything that this one remembers, with its items, people and options.

        Its place in the event log and what people corrected go with it; what it learnt on the way is learnt
        anew by the fit, and `learn` goes on from there.

        Args:
            warm: begin with the weights of the last fit, and read items and events as that did; else as if it
                were the first. Events that came since, or were held out then, choose the epoch: of no others
                is it known that these weights have not seen them.
            checkpoints: as in `fit`.
            resume: as in `fit`.
            progress: told of every step.

        Raises:
            InputError: where the model keeps no histories; where it is to begin warm with a pretrained
                backbone, or nothing could choose the epoch.
            ArtefactError: where the unfinished work belongs to other data or another configuration.
            TrainingError: where the loss stops being finite.
        """
        found = refitting.refit(
            self.fitted, warm=warm, checkpoints=checkpoints, resume=resume, progress=progress
        )
        return type(self)(found)

    def correct(
        self,
        user: str,
        *,
        more: Sequence[tuple[str, str]] = (),
        less: Sequence[tuple[str, str]] = (),
        undo: Sequence[tuple[str, str]] = (),
    ) -> Self:
        """The same model, knowing what a person says they want more or less of, whoever it knows them to be.

        What is said is feedback by equation (31), whose reliability is `explain.correction`: with it the
        shares of a profile are others, and scores change by equation (20), from the next answer on. Ratings
        (`rate`) do not. Nothing is trained. What is said of an aspect replaces what was said of it before.

        Args:
            user: their user_id.
            more: pairs of a field and a value of which they want more, such as ("genre", "Comedy").
            less: those of which they want less.
            undo: those of which they take back what they said; where they said nothing, nothing changes.

        Raises:
            InputError: where the name is no text or empty, the model has no such aspect, or two different
                things are said of one.
        """
        return type(self)(correcting.correct(self.fitted, user, more, less, undo))

    def forget_user(self, user: str) -> Self:
        """The same model without a person's history, features, wishes, and what others were told of it.

        What it was taught by them since is taken back: weights go back to where learning began, and the next
        `learn` trains anew. What the fit and counts made of it is in numbers that name nobody; it is gone
        with the next fit on data without the person. A name the model does not know changes nothing.

        Raises:
            InputError: where the name is no text.
        """
        return type(self)(lifecycle.forget_user(self.fitted, user))

    def adjusted(self, *, popularity: float | None = None, diversity: float | None = None) -> Self:
        """The same model with other strengths of what is done to its scores and lists; None leaves one.

        Args:
            popularity: `debias.popularity.strength`, from 0 to 1.
            diversity: `rerank.diversity`, from 0 to 1.

        Raises:
            ConfigError: where a strength is no number from 0 to 1.
        """
        return type(self)(lifecycle.adjust(self.fitted, popularity, diversity))

    def save(
        self,
        path: Path | str,
        *,
        histories: bool = True,
        by: str = "save",
        keep: int = 0,
        unfinished: bool = False,
    ) -> None:
        """Write the artefact.

        Args:
            path: the directory to make, or to replace where it holds a model.
            histories: whether known people's histories go with it, so that they can be asked for by name.
            by: what made it as it is, for the list of its versions.
            keep: how many of the models that were there are kept as earlier versions of this one.
            unfinished: whether what made it is still at work: what that saves next takes the place and the
                number of this version.

        Raises:
            ArtefactError: where something else is in the way, or the disk refuses.
        """
        keeping.write(self.fitted, Path(path), histories=histories, by=by, keep=keep, unfinished=unfinished)

    @classmethod
    def load(cls, path: Path | str, *, serve: ServeConfig | None = None) -> Self:
        """Read an artefact; needs neither training data nor a network connection.

        `serve` says how a pretrained backbone is to answer here; the model's own configuration where None.
        Where a writer replaces it meanwhile, it is read from the beginning again, a few times.

        Raises:
            ArtefactError: where it is missing, incomplete, altered, of a newer format, or replaced each time.
        """
        return cls(keeping.read(Path(path), serve))

    def _legal(self, query: Query, history: EventLog) -> Legal:
        """What may come back to a query with its history of one row."""
        refused = self.fitted.refusals.of(history.user_ids, self.catalog).items
        return legal_for(self.catalog, query, history, refused)

    def _wish(self, query: Query) -> Floats | None:
        """Log p(i | wish) [1, i]; None where none is made."""
        if query.text is None or not query.text.strip():
            return None
        return answering.log_wish(self.fitted, query.text, lambda: self._reader)

    @cached_property
    def _reader(self) -> TextEncoder:
        """The encoder that made the items' vectors, opened when the first wish comes."""
        return reopen_encoder(self.config.encode.text, self.fitted.about["text_encoder"])
