"""archiver.toml: what a good one means, and one exact line for each way to get it wrong."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from archiver.catalog.names import RESERVED_CLASSES
from archiver.config import (
    UCOTRON_ENVIRONMENTS,
    Compression,
    Config,
    PinLimits,
    RetentionClass,
    Tuning,
    find_config,
    load_config,
    parse_config,
    usable_processors,
)
from archiver.errors import ConfigError

PATH = Path("/etc/archiver/archiver.toml")
HEAD = '[destination]\nurl = "file:///backups"\n'
SOURCE = HEAD + '[source.prod]\nvault = "age1x"\n'
REVOKED = HEAD + '[signing]\ntrusted = ["RW+"]\n[signing.revoked]\n"RW+" = '
ENVIRONMENT = SOURCE + 'environments.graph = "/g"\n'


def parse(text: str) -> Config:
    return parse_config(text, PATH)


def test_a_full_configuration() -> None:
    config = parse(
        'state_directory = "state"\n'
        '[destination]\nurl = "s3://bucket/prefix"\nregion = "eu-central-1"\npath_style = true\n'
        '[source.prod]\nvault = "age1x"\nmedia = "/srv/media"\nexclude = ["*.tmp", "cache/**"]\n'
        'environments = { vector = "../data/vector", graph = "/srv/graph" }\n'
        '[source.other]\nvault = "age1y"\nucotron_config = "/etc/ucotron/ucotron.toml"\nworking_directory = "/srv"\n'
        "[class.daily]\nkeep = 10\n"
        '[class.yearly]\nkeep = 3650\nlease = 30\nevery = "year"\nstorage_class = "DEEP_ARCHIVE"\n'
        '[signing]\nkey = "~/sign.key"\ntrusted = ["RWx", "RWy"]\n'
        '[tuning]\ncompression = 9\nworkers = 4\nframe_size = 65536\nspool = "2G"\nlimit_upload = "20M"\n'
        "limit_download = 100000\n"
        "[pin]\nheadroom = 30\nseconds = 60\nattempts = 5\npause = 0\n"
    )
    prod, other = config.sources["prod"], config.sources["other"]
    assert config.destination == "s3://bucket/prefix"
    assert config.destination_options == {"path_style": True, "region": "eu-central-1"}
    assert prod.environments == {"vector": Path("/etc/data/vector"), "graph": Path("/srv/graph")}
    assert (prod.media, prod.exclude, prod.ucotron_config) == (Path("/srv/media"), ("*.tmp", "cache/**"), None)
    assert (other.ucotron_config, other.working_directory) == (Path("/etc/ucotron/ucotron.toml"), Path("/srv"))
    assert config.classes == {
        "daily": RetentionClass(10, 7),
        "monthly": RetentionClass(400, 35, "month"),
        "yearly": RetentionClass(3650, 30, "year", "DEEP_ARCHIVE"),
    }
    assert config.signing_key == Path(os.environ["HOME"]) / "sign.key"
    assert config.trusted == ("RWx", "RWy")
    assert config.state_directory == Path("/etc/archiver/state")
    assert config.tuning == Tuning(9, 4, 65536, 2 * 1024**3, 20 * 1024**2, 100_000)
    assert config.pin == PinLimits(headroom=30, seconds=60, attempts=5, pause=0)


def test_the_defaults() -> None:
    config = parse(SOURCE + 'media = "m"\n')
    assert config.classes == {"daily": RetentionClass(keep=35, lease=7), "monthly": RetentionClass(400, 35, "month")}
    assert config.tuning == Tuning("auto", usable_processors(), 4 * 1024**2, 8 * 1024**3, None, None)
    assert config.pin == PinLimits(headroom=15, seconds=21600, attempts=3, pause=300)
    assert (config.signing_key, config.trusted) == (None, ())
    assert (config.sources["prod"].frozen, config.sources["prod"].external) == (False, {})
    assert config.source(None) is config.source("prod")
    assert config.sources["prod"].media == Path("/etc/archiver/m")


@pytest.mark.parametrize("value", ["auto", "fast", "balanced", "best", 1, 19])
def test_how_hard_to_compress(value: str | int) -> None:
    text = f'"{value}"' if isinstance(value, str) else value
    assert parse(HEAD + f"[tuning]\ncompression = {text}\n").tuning == Tuning(compression=cast(Compression, value))


def test_no_spool_on_disk_is_not_the_default() -> None:
    for value in ("0", '"0"'):
        assert parse(HEAD + f"[tuning]\nspool = {value}\n").tuning.spool == 0


@pytest.mark.parametrize(("usable", "workers"), [(1, 1), (2, 2), (8, 8), (9, 8), (256, 8)])
def test_as_many_workers_as_processors_may_be_used(usable: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(usable)))
    assert parse(HEAD).tuning.workers == workers


def test_what_is_given_for_one_run_counts_before_the_file() -> None:
    tuning = Tuning(compression="best", workers=3, limit_upload=70_000, limit_download=80_000)
    assert tuning.overridden() == tuning
    assert tuning.overridden(workers=1, limit_upload=90_000) == Tuning(
        compression="best", workers=1, limit_upload=90_000, limit_download=80_000
    )
    assert Tuning(workers=3).overridden(limit_download=90_000) == Tuning(workers=3, limit_download=90_000)


def test_relative_paths_are_relative_to_the_file_not_to_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "archiver.toml").write_text(SOURCE + 'media = "../media"\n')
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("conf/archiver.toml"))
    monkeypatch.chdir("/")
    assert config.sources["prod"].media == tmp_path / "media"


def test_a_quoted_and_a_dotted_key_mean_the_same() -> None:
    quoted = parse(HEAD + '[source."prod"]\n"vault" = "age1x"\nenvironments."vector" = "/v"\n')
    dotted = parse(HEAD + '[source]\nprod.vault = "age1x"\nprod.environments.vector = "/v"\n')
    assert quoted.sources == dotted.sources


def test_how_environments_are_read_is_said_per_source() -> None:
    config = parse(
        SOURCE + 'environments = { graph = "/g", notes = "/n" }\n'
        '[source.prod.external]\ngraph = ["docker", "exec", "", "mdb_copy"]\n'
        '[source.frozen]\nvault = "age1x"\nmedia = "m"\nfrozen = true\n'
        '[source.ucotron]\nvault = "age1x"\nucotron_config = "u"\n'
        + "".join(f'external.{name} = ["{name}"]\n' for name in UCOTRON_ENVIRONMENTS)
    )
    prod, frozen, ucotron = (config.sources[name] for name in ("prod", "frozen", "ucotron"))
    assert (prod.frozen, prod.external) == (False, {"graph": ("docker", "exec", "", "mdb_copy")})
    assert (frozen.frozen, frozen.external) == (True, {})
    assert ucotron.external == {name: (name,) for name in ("vector", "graph", "data", "visual")}


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T14:00:00Z", datetime(2026, 11, 20, 14, tzinfo=UTC)),
        ("2026-11-20 14:00:00.25+02:00", datetime(2026, 11, 20, 12, 0, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_since_when_a_key_is_revoked(text: str, moment: datetime) -> None:
    config = parse(HEAD + f'[signing]\ntrusted = ["RWa+/=", "RWb"]\n[signing.revoked]\n"RWa+/=" = {text}\n')
    assert config.trusted == ("RWa+/=", "RWb")
    assert config.revoked == {"RWa+/=": moment}
    assert config.revoked["RWa+/="].tzinfo is UTC
    assert parse(HEAD + '[signing]\ntrusted = ["RWb"]\n').revoked == {}


ARN = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def test_the_operators_of_a_source() -> None:
    operators = {
        "alice": "age1qqqq",
        "b_b": "age1pq1qqqq",
        "0aws": ARN,
        "gov-cloud": "arn:aws-us-gov:kms:us-gov-west-1:123456789012:alias/some/name_1",
        "carol": "passphrase",
    }
    table = "".join(f'{name} = "{value}"\n' for name, value in operators.items())
    config = parse(ENVIRONMENT + f"[source.prod.operators]\n{table}")
    assert config.sources["prod"].operators == operators
    assert parse(ENVIRONMENT).sources["prod"].operators == {}
    assert parse(ENVIRONMENT + "[source.prod.operators]\n").sources["prod"].operators == {}


@pytest.mark.parametrize(
    "value",
    [
        "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQ",
        "correct horse battery staple",
        "Passphrase",
        "age1",
        "age1qqqq\\n",
        "age1" + "q" * 4097,
        "alias/archiver",
        ARN.replace(":key/", ":role/"),
        ARN.replace(":kms:", ":s3:"),
        ARN + " ",
    ],
)
def test_what_is_no_operator_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(ENVIRONMENT + f'operators.alice = "{value}"\n')
    assert caught.value.message == (
        f"{PATH}, line 6: source.prod.operators.alice: "
        'expected a recipient like age1…, the ARN of a KMS key, or "passphrase"'
    )


def test_a_secret_key_in_place_of_the_vault_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(HEAD + '[source.prod]\nvault = "AGE-SECRET-KEY-1QYQSZQGPQYQSZQGP"\nmedia = "m"\n')
    assert caught.value.message.endswith("expected a recipient like age1…, got 'AGE-SECRET-KEY-1'")


def test_there_are_not_endless_operators() -> None:
    def with_so_many(count: int) -> Config:
        return parse(ENVIRONMENT + "".join(f'operators.o{number} = "{ARN}"\n' for number in range(count)))

    assert len(with_so_many(64).sources["prod"].operators) == 64
    with pytest.raises(ConfigError, match="expected at most 64 operators, got 65"):
        with_so_many(65)


# Each is wrong in one way; the message says where, by line and key, what was expected and what was found.
MALFORMED = [
    ("", "destination.url: missing, expected a text"),
    ("[destination]\n", ", line 1: destination.url: missing, expected a text"),
    ('[destination]\nurl = ""\n', ", line 2: destination.url: missing, expected a text"),
    ("[destination]\nurl = 5\n", ", line 2: destination.url: expected a text, got 5"),
    ('destination = "s3://x"\n', ", line 1: destination: expected a table, got 's3://x'"),
    (HEAD + "[surprise]\na = 1\n", ", line 3: surprise: unknown key"),
    ("surprise = 1\n" + HEAD, ", line 1: surprise: unknown key"),
    (SOURCE, ", line 3: source.prod: expected ucotron_config or, instead, environments or media; got both or none"),
    (
        SOURCE + 'media = "m"\nucotron_config = "u"\n',
        ", line 3: source.prod: expected ucotron_config or, instead, environments or media; got both or none",
    ),
    (
        SOURCE + 'ucotron_config = "u"\nenvironments.vector = "/v"\n',
        ", line 3: source.prod: expected ucotron_config or, instead, environments or media; got both or none",
    ),
    (HEAD + '[source.prod]\nmedia = "m"\n', ", line 3: source.prod.vault: missing, expected a text"),
    (SOURCE + 'medai = "m"\nmedia = "m"\n', ", line 5: source.prod.medai: unknown key"),
    (ENVIRONMENT + 'operators = ["age1x"]\n', ", line 6: source.prod.operators: expected a table, got ['age1x']"),
    (ENVIRONMENT + "operators.alice = 1\n", ", line 6: source.prod.operators.alice: expected a text, got 1"),
    (ENVIRONMENT + 'operators.alice = ""\n', ", line 6: source.prod.operators.alice: missing, expected a text"),
    (
        ENVIRONMENT + 'operators.Alice = "age1x"\n',
        ", line 6: source.prod.operators: invalid operator name 'Alice', expected up to 63 of a-z, 0-9, - and _",
    ),
    (SOURCE + "media = true\n", ", line 5: source.prod.media: expected a text, got True"),
    (SOURCE + 'media = "m"\nexclude = "*.tmp"\n', ", line 6: source.prod.exclude: expected a list, got '*.tmp'"),
    (SOURCE + 'media = "m"\nexclude = [1]\n', ", line 6: source.prod.exclude: expected a list of texts"),
    (SOURCE + "environments.vector = 1\n", ", line 5: source.prod.environments.vector: expected a text, got 1"),
    (
        SOURCE + '[source.prod.environments]\nvector = ""\n',
        ", line 6: source.prod.environments.vector: missing, expected a text",
    ),
    (SOURCE + 'environments = "/v"\n', ", line 5: source.prod.environments: expected a table, got '/v'"),
    (HEAD + '[[source]]\nvault = "x"\n', ", line 3: source: expected a table, got [{'vault': 'x'}]"),
    (
        HEAD + '[source."Prod Uction"]\nvault = "x"\n',
        ", line 3: source.'Prod Uction': invalid source name 'Prod Uction', expected up to 63 of a-z, 0-9, - and _",
    ),
    (
        HEAD + '[source."a\\n"]\nvault = "x"\n',
        ": source.'a\\n': invalid source name 'a\\n', expected up to 63 of a-z, 0-9, - and _",
    ),
    (HEAD + "[class.daily]\nkeep = 0\n", ", line 4: class.daily.keep: expected a whole number from 1 to 36500, got 0"),
    (
        HEAD + "[class.daily]\nkeep = true\n",
        ", line 4: class.daily.keep: expected a whole number from 1 to 36500, got True",
    ),
    (HEAD + "[class.daily]\nkeep = 35.0\n", ", line 4: class.daily.keep: expected a whole number, got 35.0"),
    (HEAD + '[class.daily]\nlease = "7"\n', ", line 4: class.daily.lease: expected a whole number, got '7'"),
    (HEAD + "[class.daily]\nkepe = 1\n", ", line 4: class.daily.kepe: unknown key"),
    (
        HEAD + '[class.daily]\nevery = "day"\n',
        ", line 4: class.daily.every: expected one of week, month, year, never, got 'day'",
    ),
    (HEAD + "[class.daily]\nevery = 7\n", ", line 4: class.daily.every: expected a text, got 7"),
    (
        HEAD + '[class.weekly]\nevery = "week"\nkeep = 6\n',
        ", line 5: class.weekly.keep: expected at least 7 days for one backup every week, got 6",
    ),
    (
        HEAD + "[class.monthly]\nkeep = 30\n",
        ", line 4: class.monthly.keep: expected at least 31 days for one backup every month, got 30",
    ),
    (
        HEAD + '[class.yearly]\nkeep = 365\nevery = "year"\n',
        ", line 4: class.yearly.keep: expected at least 366 days for one backup every year, got 365",
    ),
    (
        HEAD + '[class.daily]\nstorage_class = "glacier"\n',
        ", line 4: class.daily.storage_class: expected a name such as STANDARD_IA, got 'glacier'",
    ),
    (
        HEAD + '[class."a/b"]\n',
        ", line 3: class: invalid class name 'a/b', expected up to 63 of a-z, 0-9, - and _",
    ),
    (HEAD + "[class.vault]\n", ", line 3: class.vault: no class can be called so: choose another name"),
    (HEAD + "[class.hold]\n", ", line 3: class.hold: no class can be called so: choose another name"),
    (
        HEAD + "[class.held]\nkeep = 9\n",
        ", line 3: class.held: this class has no end, and nothing of it can be set: archiver hold copies into it",
    ),
    *(
        (
            HEAD + f"[tuning]\ncompression = {value}\n",
            (
                ", line 4: tuning.compression: expected one of auto, fast, balanced, best, or a whole number from "
                f"1 to 19, got {got}"
            ),
        )
        for value, got in (
            ("20", "20"),
            ("0", "0"),
            ("3.0", "3.0"),
            ("true", "True"),
            ('"3"', "'3'"),
            ('"Fast"', "'Fast'"),
            ("[3]", "[3]"),
        )
    ),
    (HEAD + "[tuning]\nlevel = 3\n", ", line 4: tuning.level: unknown key"),
    (HEAD + "[tuning]\nworkers = 0\n", ", line 4: tuning.workers: expected a whole number from 1 to 64, got 0"),
    (HEAD + "[tuning]\nworkers = 65\n", ", line 4: tuning.workers: expected a whole number from 1 to 64, got 65"),
    *(
        (
            HEAD + f"[tuning]\n{key} = {value}\n",
            f", line 4: tuning.{key}: expected a size from {bounds}, got {got}",
        )
        for key, value, bounds, got in (
            ("frame_size", "18446744073709551616", '"64K" to "64M"', "18446744073709551616"),
            ("frame_size", "65535", '"64K" to "64M"', "65535"),
            ("frame_size", '"65M"', '"64K" to "64M"', "'65M'"),
            ("spool", "-1", '"0" to "1T"', "-1"),
            ("spool", '"8 G"', '"0" to "1T"', "'8 G'"),
            ("spool", '"8GiB"', '"0" to "1T"', "'8GiB'"),
            ("spool", "false", '"0" to "1T"', "False"),
            ("limit_upload", "0", '"64K" to "1T"', "0"),
            ("limit_upload", '""', '"64K" to "1T"', "''"),
            ("limit_upload", "2.5", '"64K" to "1T"', "2.5"),
            ("limit_upload", '"2.5M"', '"64K" to "1T"', "'2.5M'"),
            ("limit_upload", '"-20M"', '"64K" to "1T"', "'-20M'"),
            ("limit_download", '"20MB"', '"64K" to "1T"', "'20MB'"),
            ("limit_download", '["20M"]', '"64K" to "1T"', "['20M']"),
        )
    ),
    (HEAD + "[pin]\nheadroom = 0\n", ", line 4: pin.headroom: expected a whole number from 1 to 90, got 0"),
    (HEAD + "[pin]\nheadroom = 91\n", ", line 4: pin.headroom: expected a whole number from 1 to 90, got 91"),
    (HEAD + "[pin]\nheadroom = 15.5\n", ", line 4: pin.headroom: expected a whole number, got 15.5"),
    (HEAD + "[pin]\nseconds = 9\n", ", line 4: pin.seconds: expected a whole number from 10 to 604800, got 9"),
    (
        HEAD + "[pin]\nseconds = 604801\n",
        ", line 4: pin.seconds: expected a whole number from 10 to 604800, got 604801",
    ),
    (HEAD + "[pin]\nattempts = 0\n", ", line 4: pin.attempts: expected a whole number from 1 to 10, got 0"),
    (HEAD + "[pin]\nattempts = 11\n", ", line 4: pin.attempts: expected a whole number from 1 to 10, got 11"),
    (HEAD + "[pin]\npause = -1\n", ", line 4: pin.pause: expected a whole number from 0 to 86400, got -1"),
    (HEAD + "[pin]\npause = 86401\n", ", line 4: pin.pause: expected a whole number from 0 to 86400, got 86401"),
    (HEAD + "[pin]\npauses = 1\n", ", line 4: pin.pauses: unknown key"),
    (SOURCE + 'media = "m"\nfrozen = 1\n', ", line 6: source.prod.frozen: expected true or false, got 1"),
    (SOURCE + 'media = "m"\nfrozen = "yes"\n', ", line 6: source.prod.frozen: expected true or false, got 'yes'"),
    (
        ENVIRONMENT + '[source.prod.external]\ngraph = ["a"]\nvector = ["a"]\n',
        ", line 8: source.prod.external.vector: no such environment, expected one of graph",
    ),
    (
        SOURCE + 'media = "m"\nexternal.graph = ["a"]\n',
        ", line 6: source.prod.external.graph: no such environment, the source has none",
    ),
    (
        SOURCE + 'ucotron_config = "u"\nexternal.nodes = ["a"]\n',
        ", line 6: source.prod.external.nodes: no such environment, expected one of vector, graph, data, visual",
    ),
    (
        ENVIRONMENT + "external.graph = []\n",
        ", line 6: source.prod.external.graph: expected a program and its arguments, got none",
    ),
    (
        ENVIRONMENT + 'external.graph = ["", "a"]\n',
        ", line 6: source.prod.external.graph: expected a program and its arguments, got none",
    ),
    (ENVIRONMENT + 'external.graph = ["a", 1]\n', ", line 6: source.prod.external.graph: expected a list of texts"),
    (ENVIRONMENT + 'external.graph = "a"\n', ", line 6: source.prod.external.graph: expected a list, got 'a'"),
    (ENVIRONMENT + 'external = "a"\n', ", line 6: source.prod.external: expected a table, got 'a'"),
    (
        ENVIRONMENT + 'frozen = true\nexternal.graph = ["a"]\n',
        ", line 7: source.prod.external: expected no commands for a source that is frozen",
    ),
    (HEAD + "tuning = 1\n[destination.tuning]\n", ": cannot overwrite a value (at line 4, column 20)"),
    (
        REVOKED + "2026-11-20T14:00:00\n",
        (
            ", line 6: signing.revoked.'RW+': expected a time with its offset, such as 2026-11-20T14:00:00Z, "
            "got 2026-11-20T14:00:00"
        ),
    ),
    (REVOKED + "14:00:00\n", ", line 6: signing.revoked.'RW+': expected a date, got datetime.time(14, 0)"),
    (REVOKED + '"2026-11-20"\n', ", line 6: signing.revoked.'RW+': expected a date, got '2026-11-20'"),
    (REVOKED + "true\n", ", line 6: signing.revoked.'RW+': expected a date, got True"),
    (
        REVOKED + "0001-01-01T00:00:00+14:00\n",
        ", line 6: signing.revoked.'RW+': expected a time within the years 1 to 9999, got 0001-01-01T00:00:00+14:00",
    ),
    (
        REVOKED + "2026-11-20\nRWx = 2026-11-20\n",
        ", line 7: signing.revoked.RWx: not in signing.trusted: a revoked key stays there, for what it signed before",
    ),
    (HEAD + "[signing]\nrevoked = 1\n", ", line 4: signing.revoked: expected a table, got 1"),
    (HEAD + '[signing]\ntrusted = "RW"\n', ", line 4: signing.trusted: expected a list, got 'RW'"),
    (HEAD + "[signing]\nsecret = 1\n", ", line 4: signing.secret: unknown key"),
    ("[destination\n", ": expected ']' at the end of a table declaration (at line 1, column 13)"),
    (HEAD + "[destination]\n", ": cannot declare ('destination',) twice (at line 3, column 13)"),
    (HEAD + 'url = "x"\n', ": cannot overwrite a value (at line 3, column 10)"),
]


@pytest.mark.parametrize(("text", "problem"), MALFORMED)
def test_one_exact_line_for_each_mistake(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.message == f"{PATH}{problem if problem.startswith((',', ':')) else ': ' + problem}"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["keep = " + "9" * 5000, "x = " + "[" * 5000, "x = " + "{a=" * 5000])
def test_numbers_and_nesting_beyond_reason_are_an_error_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=str(PATH)):
        parse(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[class.daily]\n# keep = 0\nkeep = -1\n", 3),
        ("[class.weekly]\nkeep = 5\n[class.daily]\n\n  keep   =   -1 # too few\n", 5),
        ("[class.'daily']\n'keep' = -1\n", 2),
        ("[class]\ndaily.lease = 1\ndaily.keep = -1\n", 3),
        ("[ class . daily ]\nkeep = -1\n", 2),
        ("class.daily.keep = -1\n", 1),
        ("[class]\ndaily = { keep = -1 }\n", None),
    ],
)
def test_the_line_is_found_however_the_key_is_written(text: str, line: int | None) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text + HEAD)
    found = caught.value.message
    assert "class.daily.keep: expected a whole number from 1 to 36500, got -1" in found
    if line is not None:
        assert f", line {line}: " in found


@pytest.mark.parametrize("name", ["../x", "Vector", "a b", "", "media"])
def test_an_environment_is_called_as_a_backup_can_store_it(name: str) -> None:
    with pytest.raises(ConfigError, match=r"line 5: source\.prod\.environments"):
        parse(SOURCE + f'environments."{name}" = "/v"\n')


def test_a_source_is_asked_for_by_name_when_there_are_several() -> None:
    none = parse(HEAD)
    with pytest.raises(ConfigError, match="defines 0 sources") as caught:
        none.source(None)
    assert "archiver init" in str(caught.value.hint)
    two = parse(SOURCE + 'media = "m"\n[source.b]\nvault = "age1x"\nmedia = "m"\n')
    with pytest.raises(ConfigError, match="defines 2 sources, expected a name") as caught:
        two.source(None)
    assert caught.value.hint == "Name one of: b, prod."
    with pytest.raises(ConfigError, match="has no source 'c'"):
        two.source("c")
    with pytest.raises(ConfigError, match="has no class 'weekly'") as caught:
        two.retention_class("weekly")
    assert caught.value.hint == "Name one of: daily, monthly."


def test_what_is_not_said_of_a_default_class_is_as_it_is_by_default() -> None:
    def monthly(text: str) -> RetentionClass:
        return parse(SOURCE + f'media = "m"\n[class.monthly]\n{text}\n').classes["monthly"]

    assert monthly("") == RetentionClass(400, 35, "month")
    assert monthly("keep = 800") == RetentionClass(800, 35, "month")
    assert monthly('every = "never"') == RetentionClass(400, 35)
    assert monthly('every = "never"\nkeep = 1') == RetentionClass(1, 35)
    assert monthly('every = "week"\nkeep = 7') == RetentionClass(7, 35, "week")


def test_no_class_is_called_as_no_key_may_begin() -> None:
    for name in RESERVED_CLASSES:
        with pytest.raises(ConfigError, match=f"class.{name}"):
            parse(SOURCE + f'media = "m"\n[class.{name}]\n')


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "archiver.toml"
    with pytest.raises(ConfigError, match=f"no configuration at {missing}"):
        load_config(missing)
    with pytest.raises(ConfigError, match=f"no configuration at {missing}"):
        find_config(missing)
    with pytest.raises(ConfigError, match=f"cannot read {tmp_path}"):
        load_config(tmp_path)
    missing.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=f"{missing} is not UTF-8 text"):
        load_config(missing)
    monkeypatch.chdir(tmp_path)
    assert find_config(None) == Path("archiver.toml")
