"""``archiver init``: a vault, a signing key, a recovery card and a commented configuration."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from archiver.catalog.names import check_name, vault_key, vault_prefix
from archiver.config import DEFAULT_CLASSES, Config, load_config, parse_config
from archiver.crypto.card import RecoveryCard
from archiver.crypto.identities import read_secret_file, write_secret_file
from archiver.crypto.keys import SecretKey, generate_identity
from archiver.crypto.minisign import SigningKey
from archiver.crypto.recipients import vault_id
from archiver.crypto.trust import TrustedKey
from archiver.crypto.vault import OperatorKey, create_vault, seal_vault, vault_form
from archiver.errors import AlreadyExistsError, ArchiverError, ConfigError, NotFoundError, UsageError
from archiver.filesystem import sync_directory
from archiver.operations.access import configured_keys
from archiver.operations.config_edit import change_config
from archiver.operations.config_text import render_new, render_source
from archiver.operations.operator_keys import opens_with, operator_text, weakness
from archiver.retention.attributes import attribution
from archiver.stores.base import Store
from archiver.stores.destination import Destination, open_store, parse_destination, with_surroundings


class InitRequest(msgspec.Struct, frozen=True):
    """What to set up. Without an ``operator_key`` an identity is made, and lives on the recovery card alone."""

    config: Path
    destination: str
    source: str
    operator: str
    card: Path
    operator_key: OperatorKey | None = None
    post_quantum: bool = False
    """Whether the vault is post-quantum, and so the identity if one is made."""
    environments: Mapping[str, Path] | None = None
    media: Path | None = None
    ucotron_config: Path | None = None


class InitResult(msgspec.Struct, frozen=True):
    """What now exists, and where."""

    config: Path
    signing_key: Path
    card: Path
    card_text: str
    vault: str
    vault_key: str
    operator_key: str
    """As in the configuration."""
    warning: str | None
    """What makes the vault weaker than it was asked to be."""


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
    identity, operator = _operator(request)
    vault = create_vault(post_quantum=request.post_quantum)
    # KMS is asked here, if it is asked at all: nothing is written yet.
    sealed = seal_vault(vault, operator, request.source)
    key = vault_key(request.source, vault_id(str(vault.recipient)), request.operator, vault_form(operator))
    signing_path = (existing and existing.signing_key) or request.config.absolute().parent / "archiver-signing.key"
    with _all_or_nothing() as made:
        with _hinting_at_other_places():
            signer = _signing_key(signing_path, made)
            card = RecoveryCard(
                destination=destination.display,
                source=request.source,
                vault_recipient=vault.recipient,
                verify_keys=_verify_keys(existing, signer),
                created=datetime.now(UTC),
                identity=identity,
                opens_with=(opens_with(operator),),
            )
            section = _section(request, card, operator)
            write_secret_file(request.card, card.render())
            made.append(request.card)
            write = _config_writer(request.config, existing, section, signing_path, signer, card, made)
        classes = DEFAULT_CLASSES if existing is None else existing.classes
        with closing(open_store(destination, attributes=attribution(classes))) as store:
            _refuse_existing(store, request.source)
            store.create(key, [sealed])
        try:
            write()
        except (ArchiverError, OSError) as error:
            reason = error.message if isinstance(error, ArchiverError) else (error.strerror or str(error)).lower()
            raise ConfigError(
                f"{request.config} could not be written: {reason}",
                hint=f"Mend that, and delete {key} from the destination, which no backup needs, before you run init "
                "again.",
            ) from error
    return InitResult(
        config=request.config,
        signing_key=signing_path,
        card=request.card,
        card_text=card.render(),
        vault=vault_id(str(vault.recipient)),
        vault_key=key,
        operator_key=operator_text(operator),
        warning=weakness(vault.recipient, request.operator, operator),
    )


@contextmanager
def _all_or_nothing() -> Iterator[list[Path]]:
    """Gives a list of files; those in it are removed again when the block fails."""
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise


@contextmanager
def _hinting_at_other_places() -> Iterator[None]:
    """Say of a file of this host that cannot be written in the block how it could be."""
    hint = "Run archiver init in a directory that this user may write, or name places there with --config and --card."
    try:
        yield
    except OSError as error:
        raise ArchiverError(
            f"cannot write {error.filename}: {(error.strerror or str(error)).lower()}", hint=hint
        ) from error
    except ArchiverError as error:
        # A key that is there and cannot be read is another matter.
        if isinstance(error.__cause__, OSError) and not isinstance(error, UsageError):
            error.hint = error.hint or hint
        raise


def _operator(request: InitRequest) -> tuple[SecretKey | None, OperatorKey]:
    """The operator's key, and the identity if it is made here and now."""
    if request.operator_key is not None:
        return None, request.operator_key
    identity = generate_identity(post_quantum=request.post_quantum)
    return identity, identity.recipient


def _verify_keys(existing: Config | None, signer: SigningKey) -> tuple[TrustedKey, ...]:
    """What the card is to believe: what the configuration does, and this host's own key."""
    configured = () if existing is None else configured_keys(existing)
    if any(trusted.key == signer.verify_key for trusted in configured):
        return configured
    return (TrustedKey(signer.verify_key), *configured)


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


def _section(request: InitRequest, card: RecoveryCard, operator: OperatorKey) -> str:
    """The source's part of the configuration."""
    return render_source(
        request.source,
        vault=str(card.vault_recipient),
        operators={request.operator: operator_text(operator)},
        environments=request.environments,
        media=request.media,
        ucotron_config=request.ucotron_config,
    )


def _config_writer(
    path: Path,
    existing: Config | None,
    section: str,
    signing_key: Path,
    signer: SigningKey,
    card: RecoveryCard,
    made: list[Path],
) -> Callable[[], None]:
    """Prove that the configuration can be written, a new one or the ``existing`` one with ``section`` at its end; what
    is returned does it. Raises ``ConfigError`` for what cannot be configured so."""
    if existing is not None:

        def append(text: str) -> str:
            return f"{text.rstrip()}\n\n{section}"

        change_config(path, append, rehearse=True)
        return partial(change_config, path, append)
    # Beside the file the two can be taken to another host together.
    if signing_key.parent == path.absolute().parent:
        signing_key = Path(signing_key.name)
    text = render_new(card.destination, signing_key, str(signer.verify_key)) + "\n" + section
    parse_config(text, path)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        made.append(temporary)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())

    def give_name() -> None:
        temporary.replace(path)
        sync_directory(path.absolute().parent)

    return give_name
