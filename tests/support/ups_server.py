"""A worklist server for tests: one page of UPS-RS, strict about states and Transaction UIDs."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .archive_faults import Reply

STATE, TRANSACTION, LABEL, INPUTS, PERFORMED, PROGRESS = (
    "00741000", "00081195", "00741202", "00404021", "00741216", "00741002",
)  # fmt: skip


def element(vr: str, *values: object) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


class UpsServer:
    """Its workitems by UID, and what was refused."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.refused: list[str] = []
        self.lose_answers = 0
        """So many state changes are made, and their answers lost."""

    def add(self, uid: str, *slides: tuple[str, str], label: str = "STAMP") -> None:
        """A scheduled workitem with (study, series) as its input."""
        inputs = [{"0020000D": element("UI", study), "0020000E": element("UI", series)} for study, series in slides]
        self.items[uid] = {
            "00080018": element("UI", uid),
            STATE: element("CS", "SCHEDULED"),
            LABEL: element("LO", label),
            INPUTS: element("SQ", *inputs),
        }

    def state(self, uid: str) -> str:
        return str(self.items[uid][STATE]["Value"][0])

    def reply(self, method: str, target: str, body: bytes) -> Reply:
        """The answer to a request below /workitems."""
        address = urlsplit(target)
        parts = address.path.strip("/").split("/")
        said = json.loads(body) if body else {}
        if method == "GET" and len(parts) == 1:
            asked = parse_qs(address.query)
            rows = [
                item
                for item in self.items.values()
                if all(item[tag]["Value"][0] == asked[tag][0] for tag in (STATE, LABEL) if tag in asked)
            ]
            return self._json(rows[int(asked["offset"][0]) :])
        item = self.items.get(parts[1])
        if item is None:
            return 404, {}, b""
        if method == "GET":
            return self._json([{tag: value for tag, value in item.items() if tag != TRANSACTION}])
        given = said.get(TRANSACTION, {}).get("Value", [""])[0]
        owner = item.get(TRANSACTION, {}).get("Value", [None])[0]
        state = self.state(parts[1])
        if method == "POST":
            if unquote(address.query) != owner or given != owner or state != "IN PROGRESS":
                return self._refuse(f"update of {state}", 409)
            item.update({tag: value for tag, value in said.items() if tag != TRANSACTION})
            return 200, {}, b""
        wanted = said[STATE]["Value"][0]
        if wanted == state and given == owner and wanted in ("COMPLETED", "CANCELED"):
            return 410, {"Warning": '299 ups: "The UPS is already in the requested state"'}, b""
        allowed = {"IN PROGRESS": state == "SCHEDULED"}.get(wanted, state == "IN PROGRESS" and given == owner)
        if wanted == "COMPLETED" and PERFORMED not in item:
            allowed = False  # the final state asks for what was performed
        if not allowed:
            return self._refuse(f"{state} to {wanted}", 409)
        item[STATE], item[TRANSACTION] = element("CS", wanted), element("UI", given)
        if self.lose_answers:
            self.lose_answers -= 1
            return 503, {}, b""
        return 200, {}, b""

    def _refuse(self, what: str, code: int) -> Reply:
        self.refused.append(what)
        return code, {}, b""

    def _json(self, rows: object) -> Reply:
        return 200, {"Content-Type": "application/dicom+json"}, json.dumps(rows).encode()
