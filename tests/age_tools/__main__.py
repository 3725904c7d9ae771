"""Install what the tests of the age format need, before any test waits for it: python -m tests.age_tools"""

import sys

from tests.age_tools.installation import AgeToolsError, install


def main() -> int:
    try:
        install()
    except AgeToolsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
