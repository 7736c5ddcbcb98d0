"""Ways in which a text file of ours, or of a user, is damaged by a power cut, a copy that broke off, or an accident."""

from collections.abc import Callable

Damage = Callable[[bytes], bytes]

DAMAGES: dict[str, Damage] = {
    "empty": lambda _: b"",
    "null": lambda _: b"null\n",
    "a list": lambda _: b"[]\n",
    "a text": lambda _: b'""\n',
    "a number": lambda _: b"17\n",
    "torn": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "zeros at the end": lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    "not UTF-8": lambda content: b"\xff\xfe" + content,
    "nested": lambda _: b"[" * 100_000,
    "another object": lambda _: b'{"other": 1}\n',
}
NO_JSON = [name for name in DAMAGES if name != "another object"]
EMPTY_FOR_ROWS = ("empty",)
"""A file of rows may have none."""
ODD = (None, [], {}, "", "x", -1, 1e400, True, [None], {"x": 1})
"""Values in place of others."""


def variants(value: object, path: tuple[object, ...] = ()) -> "list[tuple[tuple[object, ...], object]]":
    """Each place in a JSON value, the first of every list, with an odd value there: (place, odd value)."""
    found = [(path, odd) for odd in ODD]
    if isinstance(value, dict):
        found += [one for name, inner in value.items() for one in variants(inner, (*path, name))]
    elif isinstance(value, list) and value:
        found += variants(value[0], (*path, 0))
    return found


def put(value: object, path: tuple[object, ...], odd: object) -> object:
    """A copy with another value at a place."""
    if not path:
        return odd
    head, *rest = path
    if isinstance(value, dict):
        return {name: put(inner, tuple(rest), odd) if name == head else inner for name, inner in value.items()}
    assert isinstance(value, list)
    return [put(inner, tuple(rest), odd) if number == head else inner for number, inner in enumerate(value)]
