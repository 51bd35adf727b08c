"""A client of yaml-language-server over its standard input and output, as an editor is.

https://microsoft.github.io/language-server-protocol/specifications/lsp/3.17/specification/; positions count from 0.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from docskit import ROOT

HOME = ROOT / ".nox" / "yaml-language-server"
"""Where `./run editor` installs what tests/editor/package-lock.json names."""
PROGRAM = HOME / "node_modules" / "yaml-language-server" / "bin" / "yaml-language-server"
_SETTINGS = {
    "yaml": {
        "validate": True,
        "hover": True,
        "completion": True,
        # Only what the file itself names: no catalogue from the net.
        "schemaStore": {"enable": False, "url": ""},
    }
}
_DEADLINE, _QUIET = 30.0, 0.3  # seconds


class Editor:
    """An editor with an inventory open."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._server = subprocess.Popen(
            ["node", str(PROGRAM), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
        )
        self._told: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._found: dict[str, list[dict[str, Any]]] = {}
        self._versions: dict[str, int] = {}
        self._number = 0
        threading.Thread(target=self._read, daemon=True).start()
        self.ask(
            "initialize",
            processId=None,
            rootUri=root.as_uri(),
            workspaceFolders=[{"uri": root.as_uri(), "name": "inventory"}],
            capabilities={
                "workspace": {"configuration": True},
                "textDocument": {
                    "hover": {"contentFormat": ["markdown"]},
                    "completion": {"completionItem": {"documentationFormat": ["markdown"]}},
                },
            },
        )
        self._send({"method": "initialized", "params": {}})
        self._send({"method": "workspace/didChangeConfiguration", "params": {"settings": _SETTINGS}})

    def __enter__(self) -> Editor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.kill()
        self._server.communicate()

    def problems(self, file: str, text: str) -> list[dict[str, Any]]:
        """Open a file, or type into it, and return what is marked in it."""
        uri = (self.root / file).as_uri()
        self._found.pop(uri, None)
        self._versions[uri] = self._versions.get(uri, 0) + 1
        if self._versions[uri] == 1:
            document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
            self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        else:
            document = {"uri": uri, "version": self._versions[uri]}
            changes = [{"text": text}]
            self._send(
                {
                    "method": "textDocument/didChange",
                    "params": {"textDocument": document, "contentChanges": changes},
                }
            )
        while uri not in self._found:
            self._take()
        with contextlib.suppress(queue.Empty):  # a file may be judged twice; the last judgement counts
            while True:
                self._take(_QUIET)
        return self._found[uri]

    def hover(self, file: str, line: int, column: int) -> str:
        """Return what is shown under the pointer."""
        told = self.ask("textDocument/hover", **self._at(file, line, column))
        return "" if told is None else str(told["contents"]["value"])

    def completions(self, file: str, line: int, column: int) -> dict[str, str]:
        """Return what is proposed at a place: the words, and what each is said to mean."""
        told = self.ask("textDocument/completion", **self._at(file, line, column))
        items = told["items"] if isinstance(told, dict) else told
        return {item["label"]: _text(item.get("documentation", "")) for item in items}

    def _at(self, file: str, line: int, column: int) -> dict[str, Any]:
        return {
            "textDocument": {"uri": (self.root / file).as_uri()},
            "position": {"line": line, "character": column},
        }

    def ask(self, method: str, **params: Any) -> Any:
        self._number += 1
        number = self._number
        self._send({"id": number, "method": method, "params": params})
        while True:
            message = self._take()
            if message.get("id") == number and "method" not in message:
                assert "error" not in message, message
                return message["result"]

    def _take(self, deadline: float = _DEADLINE) -> dict[str, Any]:
        """Return the server's next message; answer what it asks, and keep what it marks."""
        message = self._told.get(timeout=deadline)
        assert message is not None, "the language server has ended"
        if message.get("method") == "textDocument/publishDiagnostics":
            self._found[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif "method" in message and "id" in message:
            result = None
            if message["method"] == "workspace/configuration":
                result = [_SETTINGS.get(item.get("section", ""), {}) for item in message["params"]["items"]]
            self._send({"id": message["id"], "result": result})
        return message

    def _send(self, message: dict[str, Any]) -> None:
        assert self._server.stdin is not None
        data = json.dumps({"jsonrpc": "2.0"} | message).encode()
        self._server.stdin.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self._server.stdin.flush()

    def _read(self) -> None:
        stream = self._server.stdout
        assert stream is not None
        while True:
            length = 0
            while (line := stream.readline().strip()) or not length:
                if not line:
                    self._told.put(None)
                    return
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            self._told.put(json.loads(stream.read(length)))


def _text(documentation: Any) -> str:
    return documentation["value"] if isinstance(documentation, dict) else str(documentation)
