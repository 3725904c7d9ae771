"""``archiver init``: a vault, a signing key, a recovery card and a commented configuration."""

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from archiver.catalog.names import check_name, vault_key, vault_prefix
from archiver.config import Config, load_config, parse_config
from archiver.crypto.card import RecoveryCard
from archiver.crypto.identities import read_secret_file, write_secret_file
from archiver.crypto.keys import PublicKey, SecretKey, generate_identity
from archiver.crypto.minisign import SigningKey
from archiver.crypto.recipients import vault_id
from archiver.crypto.vault import create_vault, seal_vault
from archiver.errors import AlreadyExistsError, ConfigError, NotFoundError
from archiver.filesystem import sync_directory
from archiver.operations.config_text import render_new, render_source
from archiver.stores.base import Store
from archiver.stores.destination import Destination, open_store, parse_destination, with_surroundings


@dataclass(frozen=True, slots=True)
class InitRequest:
    """What to set up. Without a ``recipient`` an operator identity is made, and lives on the recovery card alone."""

    config: Path
    destination: str
    source: str
    operator: str
    card: Path
    recipient: PublicKey | None = None
    environments: Mapping[str, Path] | None = None
    media: Path | None = None
    ucotron_config: Path | None = None


@dataclass(frozen=True, slots=True)
class InitResult:
    """What now exists, and where."""

    config: Path
    signing_key: Path
    card: Path
    card_text: str
    vault: str
    vault_key: str


def init(request: InitRequest) -> InitResult:
    """Create everything, or nothing: files that were made are removed again when a later step fails."""
    check_name(request.source, "source")
    check_name(request.operator, "operator")
    for name in request.environments or ():
        check_name(name, "environment")
    destination = with_surroundings(parse_destination(request.destination), os.environ)
    existing = load_config(request.config) if request.config.exists() else None
    if existing is not None:
        _check_fits(existing, request.source, destination)
    signing_path = (existing and existing.signing_key) or request.config.absolute().parent / "archiver-signing.key"
    made: list[Path] = []
    try:
        signer = _signing_key(signing_path, made)
        operator, recipient = _operator(request)
        vault = create_vault()
        card = RecoveryCard(
            destination=destination.display,
            source=request.source,
            vault_recipient=vault.recipient,
            verify_key=signer.verify_key,
            created=datetime.now(UTC),
            identity=operator,
        )
        text = _config_text(request, existing, signing_path, card)
        write_secret_file(request.card, card.render())
        made.append(request.card)
        key = vault_key(request.source, vault_id(str(card.vault_recipient)), request.operator, "age")
        with closing(open_store(destination)) as store:
            _refuse_existing(store, request.source)
            store.create(key, [seal_vault(vault, recipient, request.source)])
        _write_config(request.config, text)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise
    return InitResult(
        request.config, signing_path, request.card, card.render(), vault_id(str(card.vault_recipient)), key
    )


def _operator(request: InitRequest) -> tuple[SecretKey | None, PublicKey]:
    """The operator's recipient, and the identity if it is made here and now."""
    if request.recipient is not None:
        return None, request.recipient
    identity = generate_identity(post_quantum=False)
    return identity, identity.recipient


def _refuse_existing(store: Store, source: str) -> None:
    """A second vault and a second signing key for one source would make each host distrust the other's backups."""
    try:
        if next(store.list(vault_prefix(source)), None) is None:
            return
    except NotFoundError:
        return
    raise AlreadyExistsError(
        f"{store.url} holds a vault of source {source!r} already",
        hint="Choose another --source; or, on a rebuilt host, bring back archiver.toml and its signing key instead.",
    )


def _check_fits(existing: Config, source: str, destination: Destination) -> None:
    if source in existing.sources:
        raise AlreadyExistsError(
            f"{existing.path} has a source {source!r} already",
            hint="Choose another name with --source, or another file with --config.",
        )
    configured = parse_destination(existing.destination, existing.destination_options)
    if configured != destination:
        raise ConfigError(
            f"{existing.path} backs up to {configured.display}, got {destination.display}",
            hint="Keep one configuration file per destination: name another with --config.",
        )


def _signing_key(path: Path, made: list[Path]) -> SigningKey:
    if path.exists():
        return SigningKey.parse(read_secret_file(path))
    signer = SigningKey.generate()
    write_secret_file(path, signer.encode())
    made.append(path)
    return signer


def _config_text(request: InitRequest, existing: Config | None, signing_key: Path, card: RecoveryCard) -> str:
    """A new file, or the one there is with one more source; raises ``ConfigError`` for what cannot be configured so."""
    source = render_source(
        request.source,
        vault=str(card.vault_recipient),
        environments=request.environments,
        media=request.media,
        ucotron_config=request.ucotron_config,
    )
    if existing is not None:
        text = request.config.read_text("utf-8").rstrip("\n") + "\n\n" + source
    else:
        # Beside the file the two can be taken to another host together.
        if signing_key.parent == request.config.absolute().parent:
            signing_key = Path(signing_key.name)
        text = render_new(card.destination, signing_key, str(card.verify_key)) + "\n" + source
    parse_config(text, request.config)
    return text


def _write_config(path: Path, text: str) -> None:
    """The name changes hands only when all is written."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)
    sync_directory(path.absolute().parent)
