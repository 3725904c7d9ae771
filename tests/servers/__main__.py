"""Install what the test servers need, before any test waits for it: python -m tests.servers"""

import sys

from tests.servers import aws_cli, localstack, seaweed, seaweed_lifecycle
from tests.servers.process import ServerError


def main() -> int:
    try:
        localstack.install()
        seaweed.install()
        seaweed_lifecycle.install_client()
        aws_cli.install()
    except ServerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
