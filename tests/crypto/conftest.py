"""Other implementations of age."""

import pytest

from tests.age_tools.installation import AgeTools
from tests.age_tools.typage import Typage


@pytest.fixture(scope="session")
def typage(age_tools: AgeTools) -> Typage:
    """npm's age-encryption."""
    return Typage(age_tools)
