"""order.bpmn as a picture, by the layout in the file (BPMN 2.0, chapter "Diagram Interchange"). `python -m` writes it.

BPMN's own signs: a thin circle is a start, a thick one an end, a double one in between; << is compensation, a clock a
timer, a flash an error; a dashed start interrupts nothing; a dotted frame is an event subprocess, a dotted line leads
to what compensates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from saga.engines.camunda import BPMN, SPACES

PICTURE = BPMN.with_suffix(".svg")
MARGIN, LINE = 20, 15  # px
STYLE = (
    "text{font:13px sans-serif;fill:#1d2125;text-anchor:middle}.small{font-size:11px;fill:#4d555d}"
    ".paper{fill:#fff}.frame{fill:#fbfaf7;stroke:#69717a}.event{stroke-dasharray:2 4}"
    ".task,.circle{fill:#fff;stroke:#1d2125}"
    ".beside{stroke-dasharray:4 3}"
    ".undo{fill:#eee6fb;stroke:#7443c4}.end{stroke-width:3.5}.flow{fill:none;stroke:#4d555d}"
    ".association{fill:none;stroke:#7443c4;stroke-dasharray:2 3}.mark{fill:#7443c4}.thin{fill:none;stroke:#1d2125}"
)
ARROW = (
    '<marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 1 9 5 0 9z" fill="#4d555d"/></marker>'
)


@dataclass(frozen=True)
class Box:
    """Where an element is, in px from the top left."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


def render(bpmn: str) -> str:
    """The picture of a BPMN file, as SVG."""
    root = ElementTree.fromstring(bpmn)  # noqa: S314  (our own file)
    elements = {element.get("id"): element for element in root.iter() if element.get("id")}
    boxes = {shape.get("bpmnElement", ""): _box(shape) for shape in root.iterfind(".//bpmndi:BPMNShape", SPACES)}
    parts = [part for name, box in boxes.items() for part in _shape(elements[name], box)]
    for edge in root.iterfind(".//bpmndi:BPMNEdge", SPACES):
        parts.append(_edge(elements[edge.get("bpmnElement")], edge))
    left, top = (min(places) - MARGIN for places in zip(*((box.x, box.y) for box in boxes.values()), strict=True))
    width = max(box.x + box.width for box in boxes.values()) + MARGIN - left
    height = max(box.y + box.height for box in boxes.values()) + MARGIN - top
    area = f'viewBox="{left:g} {top:g} {width:g} {height:g}" width="{width:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {area} role="img">'
    title = f"<title>{escape(root.find('bpmn:process', SPACES).get('name', ''))}</title>"  # type: ignore[union-attr]
    paper = f'<rect class="paper" x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}"/>'
    return "\n".join([head, title, f"<style>{STYLE}</style><defs>{ARROW}</defs>", paper, *parts, "</svg>"]) + "\n"


def _box(shape: Element) -> Box:
    bounds = shape.find("dc:Bounds", SPACES)
    if bounds is None:
        raise ValueError(f"{shape.get('id')} has no bounds")
    return Box(*(float(bounds.get(name, "0")) for name in ("x", "y", "width", "height")))


def _kind(element: Element) -> str:
    return element.tag.partition("}")[2]


def _shape(element: Element, box: Box) -> Iterator[str]:
    kind, name = _kind(element), element.get("name", "")
    if kind == "subProcess":
        dotted = " event" if element.get("triggeredByEvent") else ""
        yield _rect(box, f"frame{dotted}", 8)
        yield _text(name, box.x + box.width / 2, box.y + 20)
    elif kind == "serviceTask":
        undo = element.get("isForCompensation")
        yield _rect(box, "undo" if undo else "task", 10)
        x, y = box.middle
        yield _text(name, x, y + 4)
        if undo:
            yield _compensation(x, box.y + box.height - 11)
    else:
        yield from _event(element, kind, box)
        x, y = box.middle
        yield _text(name, x, y + 34, "small")


def _event(element: Element, kind: str, box: Box) -> Iterator[str]:
    x, y = box.middle
    radius = box.width / 2
    look = " end" if kind == "endEvent" else " beside" if element.get("isInterrupting") == "false" else ""
    yield f'<circle class="circle{look}" cx="{x:g}" cy="{y:g}" r="{radius:g}"/>'
    if kind in {"boundaryEvent", "intermediateThrowEvent"}:
        yield f'<circle class="circle" cx="{x:g}" cy="{y:g}" r="{radius - 4:g}"/>'
    inside = {_kind(child).removesuffix("EventDefinition") for child in element}
    if "compensate" in inside:
        yield _compensation(x, y)
    if "timer" in inside:
        yield f'<circle class="thin" cx="{x:g}" cy="{y:g}" r="11"/>'
        yield f'<path class="thin" d="M{x:g} {y - 8:g}V{y:g}H{x + 6:g}"/>'
    if "error" in inside:
        yield f'<path class="thin" d="M{x - 8:g} {y + 8:g}l4-13 6 8 6-11-4 13-6-8z"/>'


def _compensation(x: float, y: float) -> str:
    return f'<path class="mark" d="M{x - 9:g} {y:g}l8-6v12zM{x - 1:g} {y:g}l8-6v12z"/>'


def _edge(element: Element, edge: Element) -> str:
    kind = "flow" if _kind(element) == "sequenceFlow" else "association"
    points = " ".join(f"{point.get('x')},{point.get('y')}" for point in edge.iterfind("di:waypoint", SPACES))
    return f'<polyline class="{kind}" points="{points}" marker-end="url(#arrow)"/>'


def _rect(box: Box, look: str, corner: int) -> str:
    size = f'width="{box.width:g}" height="{box.height:g}"'
    return f'<rect class="{look}" x="{box.x:g}" y="{box.y:g}" {size} rx="{corner}"/>'


def _text(text: str, x: float, y: float, look: str = "") -> str:
    kind = f' class="{look}"' if look else ""
    return f'<text{kind} x="{x:g}" y="{y:g}">{escape(text)}</text>' if text else ""


if __name__ == "__main__":
    PICTURE.write_text(render(Path(BPMN).read_text()))
