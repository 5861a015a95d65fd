import pytest

from fanout_client.errors import AssetInvalidError
from fanout_client.subject import subject_of


@pytest.mark.parametrize(
    ("template", "asset", "item", "subject"),
    [
        ("{key}.{id}", "PLC-17", "*", "PLC-17.*"),
        ("{key}.{id}", "line.PLC", ">", "line.PLC.>"),
        ("plants.a-{key}.{id}.{key}", "Ä", "temp", "plants.a-Ä.temp.Ä"),
        ("{key}.{id}", "{id}", "x", "{id}.x"),
    ],
)
def test_a_template_is_filled(template: str, asset: str, item: str, subject: str) -> None:
    assert subject_of(template, asset, item) == subject


@pytest.mark.parametrize(
    ("template", "asset", "item"),
    [
        ("{key}.{id}", "", "*"),
        ("{key}.{id}", "*", "*"),
        ("{key}.{id}", "a b", "*"),
        ("{key}.{id}", "a..b", "*"),
        ("{key}.{id}", "a\r\nb", "*"),
        ("{key}.{id}", "a", "b.*"),
        ("{key}.{id}", "a" * 4_000, "*"),
        ("{id}.{key}", "a", ">"),
        ("{key}.x-{id}", "a", "*"),
    ],
)
def test_what_makes_no_subject_is_refused(template: str, asset: str, item: str) -> None:
    with pytest.raises(AssetInvalidError):
        subject_of(template, asset, item)
