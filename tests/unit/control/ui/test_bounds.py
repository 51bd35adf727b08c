"""Pages tell of a hundred problems, and how many more there are."""

from __future__ import annotations

import re
from pathlib import Path

import controlkit
from apikit import Api
from bench import fleet
from tidegate_control import problems

MANY = 2 * problems.MOST
_ROW = '<li class="problem">'


def _broken(count: int, begin: int = 0) -> str:
    return "".join(f"g{number}: {{members: [nobody{number}]}}\n" for number in range(begin, begin + count))


def test_the_page_of_problems_tells_a_hundred_and_counts_the_rest(tmp_path: Path) -> None:
    api = Api(controlkit.bare(tmp_path, {**controlkit.example(), "groups/broken.yaml": _broken(MANY)}))
    total = len(api.inventory.snapshot().checked.diagnostics)
    page = api.page("/problems").text
    assert page.count('<th scope="row">') == problems.MOST
    assert f"and {total - problems.MOST} more" in page


def test_a_form_tells_a_hundred_and_counts_the_rest(tmp_path: Path) -> None:
    members = "".join(f"c{number}\n" for number in range(MANY))
    api = Api(controlkit.bare(tmp_path))
    form = {"name": "many", "members": members, "step": "plan"}
    answer = api.page("/new/groups", form)
    assert answer.status_code == 422
    assert answer.text.count(_ROW) == problems.MOST
    assert f"and {MANY - problems.MOST} more" in answer.text


def test_a_plan_tells_a_hundred_new_warnings_and_counts_the_rest(tmp_path: Path) -> None:
    policy = "p{0}: {{from: [group:engineers], to: [10.20.9.{0}/32], action: allow, ports: [any]}}\n"
    many = "".join(policy.format(number) for number in range(MANY))
    api = Api(controlkit.bare(tmp_path, {**controlkit.example(), "policies/many.yaml": many}))
    assert not api.inventory.snapshot().has_errors
    form = {"name": "none", "from": "all-clients", "to": "10.20.9.0/24", "action": "deny", "ports": "any"}
    answer = api.page("/new/policies", {**form, "file": "policies/many.yaml", "step": "plan"})
    assert answer.status_code == 200
    assert answer.text.count(_ROW) == problems.MOST
    assert re.search(r"and [0-9]+ more</p>\s*</div>", answer.text)


def test_what_is_wrong_with_the_object_itself_is_told_before_the_rest(tmp_path: Path) -> None:
    client = 'm{0}: {{public_key: "{1}", addresses: [10.64.9.{0}/32], gateways: [fra1]}}\n'
    many = "".join(client.format(number, fleet.key(str(number))) for number in range(1, MANY))
    api = Api(controlkit.bare(tmp_path, {**controlkit.example(), "clients/many.yaml": many}))
    assert not api.inventory.snapshot().has_errors
    form = {"fleet": "example", "prefixes": "10.99.0.0/16\nnonsense", "base": api.inventory.head()}
    answer = api.page("/overlay/edit", {**form, "step": "plan"})
    assert answer.status_code == 422
    assert answer.text.count(_ROW) == problems.MOST
    assert 'id="problem-prefixes"' in answer.text
