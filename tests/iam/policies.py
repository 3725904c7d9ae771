"""The policies of docs/iam/, and what AWS would decide by one of them. Pure.

This evaluator knows just enough of AWS's rules for the policies here, and raises ``ValueError`` for whatever it does
not know: a policy that outgrew it must not pass. tests/iam/test_seaweed.py compares it with a real store.
"""

import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[2] / "docs" / "iam"
ROLES = ("backup-host", "restore-host", "auditor", "administrator")
BUCKET = "EXAMPLE-BUCKET"
PREFIX = "EXAMPLE-PREFIX"

Policy = dict[str, Any]


@dataclass(frozen=True)
class Authorization:
    """What a caller must be allowed to do: ``action`` on ``resource`` (an ARN) in a request that AWS describes by
    ``context``, from condition keys to values."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


def load_policy(role: str) -> Policy:
    """The policy as it stands in docs/iam/, placeholders and all."""
    policy: Policy = json.loads((DIRECTORY / f"{role}.json").read_text("utf-8"))
    return policy


def fill_in(value: Any, bucket: str, prefix: str) -> Any:
    """``value``, made of what JSON knows, with the placeholders replaced in every text."""
    match value:
        case str():
            return value.replace(BUCKET, bucket).replace(PREFIX, prefix)
        case Mapping():
            return {name: fill_in(inner, bucket, prefix) for name, inner in value.items()}
        case list():
            return [fill_in(inner, bucket, prefix) for inner in value]
        case _:
            return value


def with_contents(auditor: Policy) -> Policy:
    """The auditor's policy with the one addition that docs/iam/README.md offers: the contents lists, as ciphertext."""
    changed = copy.deepcopy(auditor)
    _statement(changed, "ReadPublicFiles")["Resource"].append(
        f"arn:aws:s3:::{BUCKET}/{PREFIX}/*/data/*.contents.jsonl.zst.age"
    )
    return changed


def without_condition_keys(policy: Policy) -> Policy:
    """The policy of who creates, for a store that does not know s3:if-none-match and s3:ObjectCreationOperation, as
    docs/iam/README.md describes it: one condition less, and overwriting is no longer refused."""
    changed = copy.deepcopy(policy)
    for statement in changed["Statement"]:
        if statement["Sid"] == "SendParts":
            del statement["Condition"]
    return changed


def without_prefix(policy: Policy) -> Policy:
    """``policy`` for a destination that is a whole bucket, as docs/iam/README.md describes it."""
    changed: Policy = json.loads(json.dumps(policy).replace(f"{PREFIX}/", ""))
    del _statement(changed, "ListPrefix")["Condition"]
    return changed


def _statement(policy: Policy, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(statement for statement in policy["Statement"] if statement["Sid"] == name)
    return found


def allows(policy: Policy, authorization: Authorization) -> bool:
    """Whether some statement allows it and none denies it."""
    effects = {statement["Effect"] for statement in policy["Statement"] if _applies(statement, authorization)}
    return effects == {"Allow"}


def _applies(statement: Mapping[str, Any], authorization: Authorization) -> bool:
    if statement.keys() - {"Sid", "Condition"} != {"Effect", "Action", "Resource"}:
        raise ValueError(f"cannot evaluate the statement {statement}")
    if statement["Effect"] not in ("Allow", "Deny"):
        raise ValueError(f"unknown effect {statement['Effect']!r}")
    actions, resources = _texts(statement["Action"]), _texts(statement["Resource"])
    if not _matches_any(actions, authorization.action, flags=re.IGNORECASE):
        return False
    if not _matches_any(resources, authorization.resource):
        return False
    context = {key.lower(): value for key, value in authorization.context.items()}
    return all(
        _holds(operator, context.get(key.lower()), _texts(values))
        for operator, keys in statement.get("Condition", {}).items()
        for key, values in keys.items()
    )


def _holds(operator: str, value: str | None, expected: list[str]) -> bool:
    match operator:
        case "Null":
            return str(value is None).lower() in expected
        case "Bool":
            return value is not None and value.lower() in expected
        case "NumericGreaterThan":
            return value is not None and any(float(value) > float(least) for least in expected)
        case "StringEquals":
            return value in expected
        case "StringLike":
            return value is not None and _matches_any(expected, value)
        case _:
            raise ValueError(f"unknown condition operator {operator!r}")


def _texts(value: object) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"expected a text or a list of them, got {value!r}")
    return texts


def _matches_any(patterns: Iterable[str], text: str, *, flags: int = 0) -> bool:
    """Whether ``*`` (anything, slashes too) and ``?`` (any one character) of one pattern make it ``text``."""
    return any(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text, flags | re.DOTALL)
        for pattern in patterns
    )
