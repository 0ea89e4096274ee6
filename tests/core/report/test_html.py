"""Whatever text the data hold, the page shows it as text."""

from html.parser import HTMLParser

import pytest

from pipeline.core.report import html

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "&lt;b&gt; & <b>",
    "=cmd|' /C calc'!A0",
    "two\nlines",
    "\u202eright to left\u202c",
    "<td>a whole cell</td>",
    "</style></svg>",
)
MAKERS = {
    "paragraph": html.paragraph,
    "bullets": lambda text: html.bullets([text]),
    "table": lambda text: html.html_table([text, "b"], [[text, text]], caption=text),
    "figure": lambda text: html.figure("", text, text),
    "legend": lambda text: html.legend([("c-ce", text)]),
    "source": lambda text: html.source(text, text),
    "page": lambda text: html.page(text, "", [("a", text, "")], notice=text),
}


class Seen(HTMLParser):
    """Tags, the names of attributes, and the text of a piece of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text(maker, text):
    plain = Seen(MAKERS[maker]("plain"))
    found = Seen(MAKERS[maker](text))
    assert found.tags == plain.tags and found.attributes == plain.attributes
    assert text in found.text
