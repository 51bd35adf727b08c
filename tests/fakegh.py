"""`gh api` over a file: the few calls of GitHub's API that a workflow makes, and an error for any other.

The state, JSON in $FAKE_GITHUB: `pulls` (as the API gives them, with `files`), `artifacts` (with `zip`, base64),
`comments` by pull request, `calls`, and `then`: a state that takes this one's place after so many calls.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import urllib.parse
from pathlib import Path
from typing import Any

STATE = Path(os.environ["FAKE_GITHUB"])
REPOSITORY = "repos/my-org/fleet/"


def fail(why: str) -> Any:
    sys.exit(f"gh: {why}")


def main(words: list[str]) -> bytes:
    state = json.loads(STATE.read_text())
    assert os.environ["GH_TOKEN"] == "the token"
    assert words.pop(0) == "api"
    path, _, query = words.pop(0).partition("?")
    assert path.startswith(REPOSITORY), path
    asked = dict(urllib.parse.parse_qsl(query))
    method, paged, sent = "GET", False, None
    while words:
        word = words.pop(0)
        if word == "--method":
            method = words.pop(0)
        elif word == "-f":
            name, _, value = words.pop(0).partition("=")
            asked[name] = value
        elif word == "--input":
            assert words.pop(0) == "-"
            sent = json.load(sys.stdin)
        else:
            assert word in ("--paginate", "--slurp"), word
            paged = True
    state["calls"].append([method, path.removeprefix(REPOSITORY)])
    after = state.get("then", {}).get(str(len(state["calls"])))
    answer = route(state, method, path.removeprefix(REPOSITORY), asked, sent)
    STATE.write_text(json.dumps(state | (after or {})))
    if isinstance(answer, bytes):
        return answer
    assert isinstance(answer, list) == paged, "a list comes in pages, and nothing else does"
    pages = [answer[at : at + 2] for at in range(0, len(answer), 2)] or [[]] if paged else answer
    return json.dumps(pages).encode()


def route(state: Any, method: str, path: str, asked: dict[str, str], sent: Any) -> Any:
    if (method, path) == ("GET", "pulls"):
        assert asked["state"] == "open"
        return [one for one in state["pulls"] if one["label"] == asked["head"]]
    if match := re.fullmatch(r"pulls/(\d+)(/files)?", path):
        (pull,) = (one for one in state["pulls"] if one["number"] == int(match[1]))
        return pull["files"] if match[2] else {"changed_files": pull["changed_files"]}
    if match := re.fullmatch(r"actions/runs/77/artifacts", path):
        return {"artifacts": [one for one in state["artifacts"] if one["name"] == asked["name"]]}
    if match := re.fullmatch(r"actions/artifacts/(\d+)/zip", path):
        (found,) = (one for one in state["artifacts"] if one["id"] == int(match[1]))
        return base64.b64decode(found["zip"])
    if match := re.fullmatch(r"issues/(\d+)/comments", path):
        comments = state["comments"].setdefault(match[1], [])
        if method == "GET":
            return comments
        assert method == "POST"
        comments.append({"id": 1000 + len(comments), "user": {"login": "github-actions[bot]"}, **sent})
        return {}
    if match := re.fullmatch(r"issues/comments/(\d+)", path):
        assert method == "PATCH"
        (one,) = (c for all_ in state["comments"].values() for c in all_ if c["id"] == int(match[1]))
        one.update(sent)
        return {}
    return fail(f"{method} {path}: no such call")


if __name__ == "__main__":
    sys.stdout.buffer.write(main(sys.argv[1:]))
