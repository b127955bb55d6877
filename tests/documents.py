"""HTML pages read back, for tests."""

from collections import Counter
from html.parser import HTMLParser

EMPTY = {"meta", "br", "img", "link", "input", "hr"}
FETCHING = {"src", "href", "srcset", "data", "action", "xlink:href", "poster", "formaction"}


class Document(HTMLParser):
    """What a page has.

    Attributes:
        text: all that is shown.
        styles: the text of style elements.
        foreign: what would be fetched from elsewhere, or run.
    """

    def __init__(self, page):
        super().__init__()
        self.text, self.styles, self.foreign, self._open = "", "", [], []
        self._tags = Counter()
        self.feed(page)
        assert not self._open

    def count(self, tag):
        return self._tags[tag]

    def handle_starttag(self, tag, attrs):
        self._tags[tag] += 1
        if tag not in EMPTY:
            self._open.append(tag)
        if tag in ("script", "link", "iframe", "object", "embed", "base", "img"):
            self.foreign.append(tag)
        for name, value in attrs:
            if name in FETCHING or name.startswith("on") or "url(" in (value or ""):
                self.foreign.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            self.styles += data
            if "url(" in data or "@import" in data:
                self.foreign.append(data)
        else:
            self.text += data
