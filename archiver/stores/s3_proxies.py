"""The forward proxy that the environment names."""

from urllib.parse import urlsplit

from botocore.httpsession import ProxyConfiguration
from botocore.utils import get_environ_proxies

from archiver.errors import ConfigError


def check_proxy(endpoint: str) -> None:
    """Raise ``ConfigError`` unless the proxy for ``endpoint``, if any, has a URL that can be used.

    The libraries below would repeat a malformed one in an error, its password included.
    """
    url = ProxyConfiguration(get_environ_proxies(endpoint)).proxy_url_for(endpoint)
    if url and not _is_usable(url):
        variable = f"{urlsplit(endpoint).scheme.upper()}_PROXY"
        raise ConfigError(
            f"the proxy in {variable}: expected http://[USER:PASSWORD@]HOST[:PORT]",
            hint="Write %XX, its code, for a special character of the password.",
        )


def _is_usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and parts.path in ("", "/") and not parts.query + parts.fragment
    except ValueError:
        return False
