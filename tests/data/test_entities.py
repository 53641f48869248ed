"""Tables of items and people: which column names the rows, and which rows have no usable name."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm4rec.data.entities import read_entities
from llm4rec.errors import InputError


def test_objects_and_lists_among_ids_are_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "i.jsonl"
    file.write_text('{"item_id": ["x"]}\n{"item_id": "[y]"}\n{"item_id": {"z": 1}}\n{"item_id": "w"}\n')
    found, aside, _ = read_entities(str(file), "item", {}, {})
    assert found.ids.to_list() == ["[y]", "w"]
    assert aside.select("row", "column").rows() == [(1, "item_id"), (3, "item_id")]
    assert aside["reason"].str.contains("an object or a list").all()


def test_a_column_that_is_mapped_for_another_table_may_be_absent(tmp_path: Path) -> None:
    file = tmp_path / "i.csv"
    file.write_text("sku,name\na,A\n")
    assert read_entities(str(file), "item", {"item": "product"}, {})[0].ids.to_list() == ["a"]
    assert read_entities(str(file), "item", {"item": "name"}, {}, must_map=True)[0].ids.to_list() == ["A"]
    with pytest.raises(InputError, match=r"has no column 'product' to take as item\. Its columns: sku, name"):
        read_entities(str(file), "item", {"item": "product"}, {}, must_map=True)
