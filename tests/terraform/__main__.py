"""Install what the scan of terraform/ needs, before a test waits for it: python -m tests.terraform"""

import sys

from tests.servers.process import ServerError
from tests.terraform import checkov


def main() -> int:
    try:
        checkov.install()
    except ServerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
