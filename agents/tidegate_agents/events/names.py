"""Names of the rules of a generation, which an event knows by number only."""

from __future__ import annotations

import collections
import contextlib
import json

from tidegate_agents.files import read_bounded

_MAX_BYTES = 64 << 20
_GENERATIONS_MOST = 64


class PolicyNames:
    """Names of the rules of a generation, read from the supervisor's files when first needed."""

    def __init__(self, directory: int) -> None:
        """Take a descriptor of the directory (`gateway.generation.names`)."""
        self._directory = directory
        self._known: collections.OrderedDict[int, list[str]] = collections.OrderedDict()

    def of(self, generation: int) -> list[str]:
        """Return the policy name of each rule; empty when the generation's file is gone."""
        if generation not in self._known:
            names: list[str] = []
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                data = read_bounded(f"{generation}.json", _MAX_BYTES, dir_fd=self._directory)
                # JSON can name a surrogate, which is no text that a receiver takes.
                names = [str(name).encode("utf-8", "replace").decode() for name in json.loads(data)]
            self._known[generation] = names
            if len(self._known) > _GENERATIONS_MOST:
                self._known.popitem(last=False)
        return self._known[generation]
