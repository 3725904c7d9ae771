"""The way to an endpoint, and the forward proxy on it that the environment names."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from botocore.httpsession import ProxyConfiguration
from botocore.utils import get_environ_proxies

from archiver.errors import ConfigError


def check_proxy(endpoint: str) -> None:
    """Raise ``ConfigError`` unless the proxy for ``endpoint``, if any, has a URL that can be used.

    The libraries below would repeat a malformed one in an error, its password included.
    """
    url = _proxy_for(endpoint)
    if url and not _is_usable(url):
        variable = f"{urlsplit(endpoint).scheme.upper()}_PROXY"
        raise ConfigError(
            f"the proxy in {variable}: expected http://[USER:PASSWORD@]HOST[:PORT]",
            hint="Write %XX, its code, for a special character of the password.",
        )


def is_private_way(endpoint: str) -> bool:
    """Whether nobody can alter what passes to ``endpoint``: because of TLS, or because it does not leave this host."""
    parts = urlsplit(endpoint)
    return parts.scheme == "https" or (_is_here(parts.hostname or "") and not _proxy_for(endpoint))


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _proxy_for(endpoint: str) -> str | None:
    url: str | None = ProxyConfiguration(get_environ_proxies(endpoint)).proxy_url_for(endpoint)
    return url


def _is_usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and parts.path in ("", "/") and not parts.query + parts.fragment
    except ValueError:
        return False
