"""HTML as a tree, by the parser of the standard library; what does not close as it opened is refused."""

import base64
from html.parser import HTMLParser

VOID = {"img", "link", "meta", "source"}


class Node:
    def __init__(self, name, attributes):
        self.name, self.attributes, self.children = name, attributes, []

    def all(self, name="", **wanted):
        """The elements below, in order, of a name and with attributes (`class_` holds the class among others)."""
        for child in self.children:
            if isinstance(child, Node):
                if child.is_a(name, wanted):
                    yield child
                yield from child.all(name, **wanted)

    def is_a(self, name, wanted):
        if name and self.name != name:
            return False
        given = {key.rstrip("_").replace("_", "-"): value for key, value in wanted.items()}
        classes = (self.attributes.get("class") or "").split()
        return all(
            value in classes if key == "class" else self.attributes.get(key) == value for key, value in given.items()
        )

    def one(self, name="", **wanted):
        (found,) = self.all(name, **wanted)
        return found

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open = [Node("", {})]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is given twice"
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse(page):
    reader = _Reader()
    reader.feed(page)
    reader.close()
    (root,) = reader.open
    return root


def pictures(page):
    """The SVG of every figure, light and dark, by the description of what it shows."""
    found = {}
    for figure in page.all("figure"):
        image, dark = figure.one("img"), figure.one("source")
        assert dark.attributes["media"] == "(prefers-color-scheme: dark)"
        sources = (image.attributes["src"], dark.attributes["srcset"])
        assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
        found[image.attributes["alt"]] = [base64.b64decode(source.partition(",")[2]).decode() for source in sources]
    return found


def cells(page, label):
    """The rows of a table by its label, each a list of texts; the names of the columns first."""
    table = page.one("div", aria_label=label).one("table")
    return [[cell.text for cell in row.children if isinstance(cell, Node)] for row in table.all("tr")]
