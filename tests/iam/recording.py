"""The S3 requests that archiver makes, and what a policy says of them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from botocore.client import BaseClient

from tests.iam.calls import Call
from tests.iam.policies import fill_in
from tests.iam.territory import Territory

Record = Callable[[], AbstractContextManager[list[Call]]]
"""Makes context managers that give the S3 requests made in their block, by any thread."""


def recorder(monkeypatch: pytest.MonkeyPatch) -> Record:
    client: Any = BaseClient
    real = client._make_api_call

    @contextmanager
    def recording() -> Iterator[list[Call]]:
        calls: list[Call] = []

        def make(self: BaseClient, operation_name: str, api_params: dict[str, Any]) -> Any:
            calls.append(Call(operation_name, dict(api_params)))
            return real(self, operation_name, api_params)

        with monkeypatch.context() as patch:
            patch.setattr(client, "_make_api_call", make)
            yield calls

    return recording


def refused(territory: Territory, policy: dict[str, Any], calls: list[Call]) -> list[Call]:
    """Those of ``calls`` that ``policy``, filled in, does not allow."""
    assert calls
    filled = fill_in(policy, territory.bucket, territory.prefix)
    return [call for call in calls if not call.allowed_by(filled)]


def operations(calls: list[Call]) -> set[str]:
    return {call.operation for call in calls}
