"""Keys that name no source are refused without reading anything."""

import pytest

from sdx import InputError
from sdx.config import BackboneConfig, ParallelConfig
from sdx.options.source import FileSource, Source

REVISION = "0123456789abcdef" * 2 + "01234567"
SET = {"hub_id": "some/set", "revision": REVISION}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": ""}, r"g\.path= is empty; give the path of a file"),
        (
            {"path": "a.jsonl", **SET, "file": "a.jsonl"},
            r"=some/set and g\.path=a\.jsonl; drop .*g\.hub_id=null",
        ),
        ({"hub_id": "some/set", "file": "a.jsonl"}, r"g\.revision=None does not pin .*40 hexadecimal"),
        ({"hub_id": "some/set", "revision": "main", "file": "a.jsonl"}, r"g\.revision=main does not pin"),
        ({"hub_id": "some/set", "revision": REVISION + "0", "file": "a.jsonl"}, "does not pin"),
        (SET, r"g\.hub_id=some/set needs g\.file="),
        ({"revision": REVISION}, r"g\.revision=.* belongs to g\.hub_id"),
        ({"file": "a.jsonl"}, r"g\.file=a\.jsonl belongs to g\.hub_id"),
        ({"path": "a.xlsx"}, r"g\.path=a\.xlsx cannot be read by its ending; convert it to \.jsonl"),
        ({"path": "jsonl"}, "cannot be read by its ending"),
        ({"path": "a.parquet.gz"}, "cannot be read by its ending"),
        ({"path": "a.{language}"}, "cannot be read by its ending"),
        ({**SET, "file": "a.zip"}, r"g\.hub_id=some/set g\.file=a\.zip cannot be read"),
        ({"path": "x/manifest.json"}, r"may not be named manifest\.json; rename it"),
    ],
)
def test_sources_of_files_that_cannot_work(source: dict[str, str], message: str):
    with pytest.raises(InputError, match=message) as error:
        FileSource(**source).check("g", required=False)
    assert "\n" not in str(error.value)


def test_sources_that_can():
    for group, source in (
        ("task.belebele", {}),
        ("corpus", {"path": "~/A.JSONL.GZ"}),
        ("corpus", {"path": "local.parquet", "revision": REVISION, "file": "where/it/is/from.parquet"}),
        ("parallel", {"path": "set.en-th.{language}"}),
        ("parallel", {**SET, "file": "{pair}.tsv"}),
    ):
        FileSource(**source).check(group, required=False)
    Source(**SET).check("translator")
    BackboneConfig("x", asset="a").check("backbone")


@pytest.mark.parametrize(
    ("source", "required", "message"),
    [
        (BackboneConfig("x"), True, "give exactly one of g.asset, g.hub_id and g.path, not none of them; take another"),
        (
            BackboneConfig("x", asset="a", path="b"),
            True,
            "not g.asset=a and g.path=b; drop one, as in g.asset=null",
        ),
        (
            ParallelConfig("x", asset="a", path="b"),
            False,
            "give at most one of g.asset, g.hub_id and g.path, not",
        ),
        (Source(), True, "give exactly one of g.hub_id and g.path, not none"),
        (Source(hub_id="a/b/c", revision=REVISION), True, "g.hub_id=a/b/c names no repository"),
        (BackboneConfig("x", asset="a", revision=REVISION), True, "belongs to g.hub_id"),
    ],
)
def test_there_is_one_source(source: Source, required: bool, message: str):
    with pytest.raises(InputError, match=message):
        source.check("g", "take another", required)
