"""What the synthetic world shows of itself: items with words, categories, brand and price, and people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from llm4rec.data.catalog import Catalog, Field
from llm4rec.types import Array, Bools, Floats, Ints

# Each aspect's name, then words that go with it.
ASPECTS: dict[str, tuple[str, str, str, str]] = {
    "hiking": ("trail boots", "summit map", "trekking poles", "rain shell"),
    "baking": ("sourdough kit", "cake tin", "rolling pin", "oven thermometer"),
    "astronomy": ("star atlas", "field telescope", "moon lamp", "eyepiece set"),
    "gardening": ("seed box", "pruning shears", "herb planter", "watering can"),
    "jazz": ("vinyl record", "saxophone reeds", "trumpet mute", "swing songbook"),
    "chess": ("tournament board", "opening guide", "chess clock", "endgame workbook"),
    "cycling": ("road saddle", "chain tool", "helmet light", "handlebar bag"),
    "painting": ("watercolour set", "canvas roll", "easel", "sable brush"),
    "coffee": ("espresso grinder", "pour-over kettle", "bean sampler", "milk pitcher"),
    "robotics": ("servo kit", "sensor board", "gearbox set", "soldering station"),
    "sailing": ("deck shoes", "knot rope", "marine chart", "life vest"),
    "horror": ("ghost novel", "vampire film", "haunted puzzle", "zombie comic"),
    "yoga": ("cork mat", "breathing course", "stretch strap", "meditation cushion"),
    "photography": ("camera tripod", "portrait lens", "film scanner", "light meter"),
    "history": ("castle atlas", "museum guide", "roman biography", "antique globe"),
    "fishing": ("fly rod", "lure box", "landing net", "river waders"),
    "knitting": ("merino yarn", "bamboo needles", "sweater pattern", "stitch counter"),
    "football": ("match ball", "goalkeeper gloves", "training cones", "team scarf"),
    "tea": ("green tea sampler", "porcelain teapot", "matcha whisk", "infuser mug"),
    "comedy": ("stand-up special", "sketch collection", "parody novel", "satire calendar"),
    "aquariums": ("reef tank", "coral food", "water filter", "driftwood root"),
    "travel": ("cabin suitcase", "phrase book", "neck pillow", "city guide"),
    "fitness": ("kettlebell", "jump rope", "rowing machine", "training diary"),
    "mystery": ("detective novel", "escape game", "crime series", "cipher book"),
}
MOODS = ("classic", "compact", "bright", "quiet", "sturdy", "playful", "elegant", "rugged", "simple", "bold")
MAKERS = ("Alder", "Birch", "Cedar", "Dune", "Ember", "Fjord", "Grove", "Harbor", "Inlet", "Juniper")
HOUSES = ("& Sons", "Works", "Studio", "Supply", "Union", "Press", "Craft", "House")
REGIONS = ("north", "east", "south", "west", "islands", "capital")
GENDERS = ("female", "male")


def item_ids(n: int) -> list[str]:
    """Outside names of the items."""
    return [f"i{number:06d}" for number in range(n)]


def user_ids(n: int) -> list[str]:
    """Outside names of the people."""
    return [f"u{number:07d}" for number in range(n)]


def items_table(shares: Floats, quality: Floats, missing: float, rng: np.random.Generator) -> Catalog:
    """Items whose texts and categories name their true aspects, the strongest first.

    Titles and categories are always there; descriptions, brands and prices are missing at random. A
    brand is at home in one aspect. log price = 3 + 0.3 · quality + 0.5 · a normal draw.

    Args:
        shares: item_aspects [i, k].
        quality: standard normal [i].
        missing: share of values left out.
        rng: where the draws come from.
    """
    n, n_aspects = shares.shape
    names = list(ASPECTS)[:n_aspects]
    order = np.argsort(-shares, axis=1, kind="stable")[:, :3]
    aspects = [[names[a] for a in row if shares[i, a] > 0] for i, row in enumerate(order)]
    moods, things = rng.integers(len(MOODS), size=n), rng.integers(4, size=n)
    per_aspect = max(1, n // (20 * n_aspects))  # about 20 items to a brand
    brands = [_brand(number) for number in order[:, 0] + n_aspects * rng.integers(per_aspect, size=n)]
    titles = [
        f"{brand} {MOODS[mood]} {ASPECTS[own[0]][thing]} for {own[0]}"
        for brand, mood, thing, own in zip(brands, moods, things, aspects, strict=True)
    ]
    texts = [
        f"A {MOODS[mood]} {ASPECTS[own[0]][thing]} for everyone who loves {' and '.join(own)}. "
        f"Goes well with a {ASPECTS[own[-1]][(thing + 1) % 4]}."
        for mood, thing, own in zip(moods, things, aspects, strict=True)
    ]
    prices = np.exp(3 + 0.3 * quality + 0.5 * rng.standard_normal(n)).round(2)
    gone = rng.random((3, n)) < missing
    table = pl.DataFrame(
        {
            "item_id": item_ids(n),
            "title": titles,
            "description": _gaps(texts, gone[0], None),
            "categories": aspects,
            "brand": _gaps([[brand] for brand in brands], gone[1], []),
            "price": _gaps(prices.tolist(), gone[2], None),
        },
        schema={
            "item_id": pl.String,
            "title": pl.String,
            "description": pl.String,
            "categories": pl.List(pl.String),
            "brand": pl.List(pl.String),
            "price": pl.Float64,
        },
    )
    fields = (
        Field("title", "text"),
        Field("description", "text"),
        Field("categories", "categorical"),
        Field("brand", "categorical"),
        Field("price", "numerical"),
    )
    return Catalog(table, fields)


def people_table(
    genders: Ints, regions: Ints, ages: Floats, missing: float, rng: np.random.Generator
) -> Catalog:
    """People with gender, region and age (years: 40 + 12 · `ages`, within 16 … 90), missing at random."""
    n = len(genders)
    years = np.clip(np.round(40 + 12 * ages), 16, 90)
    gone = rng.random((3, n)) < missing
    table = pl.DataFrame(
        {
            "user_id": user_ids(n),
            "gender": _gaps([[GENDERS[g]] for g in genders], gone[0], []),
            "region": _gaps([[REGIONS[r]] for r in regions], gone[1], []),
            "age": _gaps(years.tolist(), gone[2], None),
        },
        schema={
            "user_id": pl.String,
            "gender": pl.List(pl.String),
            "region": pl.List(pl.String),
            "age": pl.Float64,
        },
    )
    fields = (Field("gender", "categorical"), Field("region", "categorical"), Field("age", "numerical"))
    return Catalog(table, fields, key="user_id")


def _brand(number: int) -> str:
    family, maker = divmod(int(number), len(MAKERS))
    series, house = divmod(family, len(HOUSES))
    return f"{MAKERS[maker]} {HOUSES[house]}" + (f" {series + 1}" if series else "")


def _gaps(values: Sequence[object], gone: Bools | Array, blank: object) -> list[object]:
    return [blank if missing else value for value, missing in zip(values, gone, strict=True)]
