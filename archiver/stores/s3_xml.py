"""A small XML document as a tree that remembers where each element lies, so that it can be edited in place. Pure."""

from datetime import UTC, datetime
from typing import Any
from xml.parsers import expat

import msgspec

from archiver.errors import FormatError

Meaning = tuple[str, object]
"""An element's name, and its text or, in a fixed order, the meanings of what it contains."""
_DEEPEST = 32


class Element(msgspec.Struct):
    """Names are without their namespace; positions are in bytes."""

    name: str
    prefixed: bool = False
    """Whether the name has the prefix of a namespace."""
    start: int = 0
    inner_end: int = 0
    """Where its end tag begins; of an element that is a single tag ``end``."""
    end: int = 0
    text: str = ""
    children: list["Element"] = msgspec.field(default_factory=list)

    def child(self, name: str) -> "Element | None":
        """The first one of that name."""
        return next((element for element in self.children if element.name == name), None)

    def child_text(self, name: str) -> str:
        """Empty where there is no such child."""
        found = self.child(name)
        return "" if found is None else found.text.strip()

    def meaning(self, words: frozenset[str]) -> Meaning | None:
        """None for what says nothing: what is empty or false. Only the text of the elements ``words`` is compared as it
        is; ``07`` is ``7``, and a time is one in whatever form."""
        found = [meaning for element in self.children if (meaning := element.meaning(words)) is not None]
        if found:
            return self.name, tuple(sorted(found, key=repr))
        text = self.text.strip()
        if self.name in words:
            return (self.name, text) if text else None
        value = _value(text)
        return None if value in ("", "false") else (self.name, value)


def parse_xml(data: bytes) -> Element:
    """The root of ``data``, which is UTF-8; raises ``FormatError``."""
    parser = expat.ParserCreate("utf-8", " ")
    parser.buffer_text = True
    # Tells apart an element that has the namespace by default from one that has a prefix.
    parser.namespace_prefixes = True
    top = Element("")
    open_elements = [top]

    def start(name: str, _: dict[str, Any]) -> None:
        if len(open_elements) > _DEEPEST:
            raise FormatError(f"XML is nested more than {_DEEPEST} levels deep")
        # A space stands between namespace, name and prefix.
        parts = name.split(" ")
        element = Element(parts[min(1, len(parts) - 1)], len(parts) > 2, parser.CurrentByteIndex)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_: str) -> None:
        element = open_elements.pop()
        element.inner_end = element.end = parser.CurrentByteIndex
        # A single tag, such as <Rule/>, has been passed already.
        if element.children or element.text or not data.endswith(b"/>", element.start, element.inner_end):
            element.end = data.index(b">", element.inner_end) + 1

    def characters(text: str) -> None:
        open_elements[-1].text += text

    def doctype(*_: object) -> None:
        raise FormatError("XML has a document type, which S3's has not")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = characters, doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise FormatError(f"malformed XML: {error}") from None
    return top.children[0]


def _value(text: str) -> str:
    if text.isascii() and text.isdigit():
        return str(int(text))
    if text.lower() in ("true", "false"):
        return text.lower()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).astimezone(UTC).isoformat()
