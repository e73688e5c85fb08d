"""No credential gets into a message, a log line, a file or the tracking store, however it is written."""

from __future__ import annotations

import base64
import json
import logging
import logging.config
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote, quote_plus

import pytest
from conftest import REPOSITORY
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from retrain.config import Config, compose
from retrain.errors import ConfigError, DataError, RetrainError, StoreError
from retrain.masking import (
    MaskingFormatter,
    holds_secret,
    mask,
    mask_tree,
    secret_keys,
    split_address,
    without_secrets,
)
from retrain.registry import runs
from retrain.registry.entries import Entry
from retrain.registry.ledger import Ledger
from retrain.registry.store import Store, open_store
from retrain.workspace import write_text

# Begins and ends with what nothing else holds, so that a piece that is left over is seen.
HOSTILE = st.text(st.sampled_from("aZ0/@:#?%&=;+,.~!$'\"()[]{}<>|\\^`*-_é用😀"), max_size=12)
PASSWORDS = HOSTILE.map(lambda text: f"Zq7{text}7qZ")
SENTENCES = st.sampled_from(
    [
        "API request to {} failed with code 500",
        "'{}'",
        "({}), retried",
        '{{"uri": "{}", "more": 1}}',
        "{}",
        "<{}>",
    ]
)
SCHEMES = st.sampled_from(
    ["http", "https", "postgresql+psycopg2", "mysql", "s3", "sftp", "redis", "abfs", "HTTPS"]
)
NAMES = st.sampled_from(
    [
        "password",
        "sslpassword",
        "passwd",
        "pwd",
        "token",
        "access_token",
        "sig",
        "Signature",
        "X-Amz-Signature",
        "X-Amz-Credential",
        "X-Goog-Signature",
        "X-Amz-Security-Token",
        "AWSAccessKeyId",
        "api_key",
        "apikey",
        "secret",
        "client_secret",
        "PWD",
        "odbc_connect",
    ]
)


def is_gone(secret: str, text: str) -> None:
    assert "Zq7" not in text and "7qZ" not in text and secret not in text, text


@given(SCHEMES, st.sampled_from(["ann", "", "a.b-c", "1"]), PASSWORDS, SENTENCES)
def test_a_password_in_an_address_is_masked_however_it_is_written(
    scheme: str, user: str, password: str, sentence: str
) -> None:
    for written in (password, quote(password), quote(password, safe="")):
        address = f"{scheme}://{user}:{written}@example.com:5000/path?x=1"
        said = mask(sentence.format(address))
        is_gone(written, said)
        assert "example.com:5000" in said, "what is no secret stays"
        assert holds_secret(address)


@given(NAMES, PASSWORDS, SENTENCES)
def test_a_secret_parameter_is_masked_and_the_others_stay(
    name: str, password: str, sentence: str
) -> None:
    for written in (quote(password, safe=""), quote_plus(password), password.replace("&", "")):
        said = mask(
            sentence.format(f"https://example.com/file.csv?region=eu&{name}={written}&part=2")
        )
        is_gone(written, said)
        assert "region=eu" in said and "part=2" in said


@given(PASSWORDS, SENTENCES)
def test_connection_strings_are_masked(password: str, sentence: str) -> None:
    braced = "{" + password.replace("}", "}}") + "}"
    odbc = f"DRIVER={{ODBC 18}};SERVER=db;UID=ann;PWD={braced};Encrypt=yes"
    is_gone(password, mask(sentence.format(odbc)))
    is_gone(password, mask(sentence.format(f"mssql+pyodbc:///?odbc_connect={quote_plus(odbc)}")))
    is_gone(password, mask(sentence.format(quote_plus(odbc))))
    plain = password.replace(";", "")
    is_gone(plain, mask(sentence.format(f"AccountName=a;AccountKey={plain};EndpointSuffix=core")))
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    is_gone(password, mask(sentence.format(f"host=db password='{quoted}' user=ann")))


@given(
    st.text(min_size=6).filter(lambda text: "\0" not in text),
    st.sampled_from(["DB_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD"]),
)
def test_what_the_environment_holds_as_a_secret_is_masked_by_its_value(
    middle: str, name: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        password = f"Zq7{middle}7qZ"
        try:
            patch.setenv(name, password)
        except UnicodeEncodeError:
            return
        is_gone(password, mask(f"the driver says {password}, and no more"))
        is_gone(password, mask(f"encoded: {quote(password, safe='')}"))


@pytest.mark.parametrize(
    "text",
    [
        "API request to http://127.0.0.1:5000/api/2.0/mlflow/runs/search failed",
        "postgresql://ann@db.example.com/flights",
        "s3://bucket/ann@example.com/data.parquet",
        "https://example.com/v@2/data.csv?page=2&key=id",
        "git@github.com:someone/project.git and ssh://git@github.com/someone/project",
        "sqlite:////home/ann/project/mlflow.db",
        "select * from orders where token_count = 3 and passes = 2",
        "learning_rate=0.1, max_tokens=4, compass=4, key=5, design=6",
        "`tracking.uri_from_env` is MLFLOW_TRACKING_URI",
        "log_loss/challenger 0.3, difference [-0.1, +0.2]; 2013-11-15T12:00:00+00:00",
        "C:\\data\\a@b; http://localhost:5000",
        "C:\\Users\\ann\\pwd: 3 files; /home/ann/pwd:/work; docker run -u 1000:1000 image",
        'FATAL: password authentication failed for user "ann"; the password is wrong',
        "fe_sendauth: no password supplied",
        "Set the password in the environment, then run it again.",
        "Unexpected token: } at position 12; token: expected, auth: failed, a secret: nobody knows",
        "signature: (a, b) -> c; pass: 3 of 5, passed: 3, failed: 0, class `pass`: 12 rows, column `token`: 3 values",
        "The option --token is deprecated; pass --password on the command line",
        "2026-11-28 01:44:04,123 INFO retrain: 12 rows",
        "data.key_columns: [carrier, flight]; max_tokens: 5; primary key: (id); sort key: period",
        "oracle://db:1521/x and jdbc:oracle:thin:@db:1521:x",
        "https://slack.com/help and https://outlook.office.com/mail, https://example.com/password:reset",
        "http://localhost:5000 is up; mail ann@example.com; identified by name",
    ],
)
def test_what_holds_no_secret_is_left_alone(text: str) -> None:
    assert mask(text) == text and not holds_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer Zq7abc.def7qZ",
        "{'Authorization': 'Basic Zq7YW5uOnB37qZ='}",
        "{'password': 'Zq7 x 7qZ', 'user': 'ann'}",
        '"client_secret": "Zq7x7qZ"',
        "http://ann:Zq7 with blanks 7qZ@example.com/x",
        "https://Zq7token7qZ@example.com/x",
        "ghp_Zq7aaaaaaaaaaaaaaaaaaaaaaaaaaaaa7qZ",
        "-----BEGIN PRIVATE KEY-----\nZq7abc\n7qZ\n-----END PRIVATE KEY-----",
        "oracle://scott/Zq7tiger7qZ@host",
        "oracle+cx_oracle://scott/Zq7tiger7qZ@host:1521/x",
        "jdbc:oracle:thin:scott/Zq7tiger7qZ@//db:1521/x",
        "jdbc:oracle:thin:scott/Zq7t@/ger7qZ@db:1521:x failed",
        "sqlplus -s scott/Zq7tiger7qZ@db",
        "pwd: Zq7x7qZ",
        "Password:Zq7x7qZ",
        "api_key: Zq7x7qZ",
        "headers: {X-Api-Key: Zq7x7qZ, Accept: a}",
        "AZURE_STORAGE_KEY: Zq7x7qZ",
        "accessToken: Zq7x7qZ and token: Zq7x7qZ",
        "retrain x --password Zq7x7qZ --api-key Zq7y7qZ --token=Zq7z7qZ",
        "curl -u ann:Zq7x7qZ https://example.com",
        "https://hooks.slack.com/services/T0000/B0000/Zq7x7qZ",
        "https://company.webhook.office.com/webhookb2/Zq7a@Zq7b/IncomingWebhook/Zq7c/7qZ",
        "https://outlook.office.com/webhook/Zq7a@Zq7b/IncomingWebhook/Zq7c/7qZ",
        "https://discord.com/api/webhooks/123456/Zq7x7qZ",
        "https://api.telegram.org/bot123:Zq7x7qZ/sendMessage",
        "passwd=Zq7a,b,c 7qZ",
        "password=Zq7a b, c 7qZ user=ann",
        "postgresql://ann:Zq7a b//c7qZ@host/db",
        "create user ann identified by Zq7x7qZ; alter role ann password 'Zq7 x 7qZ'",
        "Cookie: session=Zq7x7qZ; id=Zq7y7qZ",
    ],
)
def test_headers_tokens_and_keys_are_masked(text: str) -> None:
    is_gone("Zq7", mask(text))


def test_what_stands_around_a_secret_stays() -> None:
    assert mask("oracle://scott/tiger@db:1521/x, again") == "oracle://***@db:1521/x, again"
    assert mask("passwd=a,b,c d, user=ann") == "passwd=***, user=ann"
    assert mask("password=abc was refused. Mend it.") == "password=***. Mend it."
    assert mask("PGPASSWORD=abc psql -h db") == "PGPASSWORD=*** psql -h db"
    assert mask("{pwd: x, user: ann}") == "{pwd: ***, user: ann}"
    assert mask("--password x --out y") == "--password *** --out y"
    assert (
        mask("https://hooks.slack.com/services/T/B/x (404)")
        == "https://hooks.slack.com/services/*** (404)"
    )


def test_our_own_errors_and_log_lines_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    address = "http://ann:Zq7pw7qZ@example.com"
    is_gone("Zq7", str(RetrainError(f"No answer from {address}")))
    try:
        raise ValueError(address)
    except ValueError:
        record = logging.getLogger("any").makeRecord(
            "any", 30, "f", 1, "%s", (address,), sys.exc_info()
        )
    is_gone("Zq7", MaskingFormatter("%(message)s").format(record))
    assert "ValueError" in MaskingFormatter("%(message)s").format(record)


def test_a_process_that_needs_no_credential_gets_none() -> None:
    environment = {
        "PATH": "/bin",
        "HOME": "/home/ann",
        "DB_PASSWORD": "x",
        "SHOP": "postgresql://a:b@c/d",
        "LANG": "C",
    }
    assert without_secrets(environment) == {"PATH": "/bin", "HOME": "/home/ann", "LANG": "C"}


def test_a_key_that_says_secret_is_masked_whatever_its_value() -> None:
    content = {
        "storage": {"secret": "x", "key_columns": ["a"], "password": None},
        "uris": ["http://a:b@c"],
    }
    masked = {
        "storage": {"secret": "***", "key_columns": ["a"], "password": None},
        "uris": ["http://***@c"],
    }
    assert mask_tree(content) == masked


@pytest.mark.parametrize("written", ["s3/cr@et", "s3%2Fcr%40et"])
def test_an_address_is_taken_apart_also_where_the_password_is_written_as_it_is(
    written: str,
) -> None:
    assert split_address(f"http://ann:{written}@host:5000/x") == (
        "http://host:5000/x",
        "ann",
        "s3/cr@et",
    )
    assert split_address(f"oracle://ann/{written}@host/x") == ("oracle://host/x", "ann", "s3/cr@et")
    assert split_address("http://host:5000/x") == ("http://host:5000/x", None, None)


class _Refusing(BaseHTTPRequestHandler):
    """Answers /health, and tells in its refusals what it was sent, as some servers do."""

    def do_GET(self) -> None:
        healthy = self.path == "/health"
        said = self.headers.get("Authorization", "nothing")
        body = (
            b"OK"
            if healthy
            else f'{{"error_code": "PERMISSION_DENIED", "message": "sent: {said}"}}'.encode()
        )
        self.server.seen.append(said)
        self.send_response(200 if healthy else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    server.seen = []
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_mlflow_gets_user_and_password_of_a_server_but_never_in_its_address(
    refusing: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = f"http://127.0.0.1:{refusing.server_port}"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", bare.replace("//", "//ann:Zq7/p@w7qZ@"))
    with pytest.raises(StoreError, match="PERMISSION_DENIED") as refusal:
        open_store(compose(REPOSITORY / "conf", ["tracking=server"]))
    sent = base64.b64encode(b"ann:Zq7/p@w7qZ").decode()
    assert f"Basic {sent}" in refusing.seen and bare in str(refusal.value)
    assert sent not in str(refusal.value)
    is_gone("Zq7", str(refusal.value))
    assert os.environ["MLFLOW_TRACKING_URI"] == bare, "for what MLflow itself reads there"


@pytest.mark.parametrize(
    "address", ["postgresql://ann:12/3:4@db:x/flights", "http://ann:pw@db:port"]
)
def test_an_address_that_can_not_be_read_is_not_quoted_in_pieces(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(StoreError, match=r"can't be read.*%2F") as error:
        open_store(compose(REPOSITORY / "conf", ["tracking=server"]))
    assert "12/3" not in str(error.value) and "pw" not in str(error.value)


def compose_source(kind: str, **arguments: str) -> Config:
    node = {"_target_": f"retrain.data.sources.{kind}"} | arguments
    inner = ", ".join(f'{key}: "{value}"' for key, value in node.items())
    return compose(REPOSITORY / "conf", ["~data.source", f"+data.source={{{inner}}}"])


@pytest.mark.parametrize(
    "kind, key, value",
    [
        ("SqlQuery", "uri", "postgresql://ann:pa/ss@db/shop"),
        ("SqlQuery", "uri", "postgresql://db/shop?password=pa/ss"),
        ("Files", "paths", "https://b.example.com/f.csv?X-Amz-Signature=pa/ss"),
    ],
)
def test_a_config_that_holds_a_secret_is_refused_with_key_and_way_out(
    kind: str, key: str, value: str
) -> None:
    more = {"query": "select 1"} if kind == "SqlQuery" else {}
    with pytest.raises(
        ConfigError, match=rf"(?s)`data\.source\.{key}` holds a password.*uri_from_env"
    ) as error:
        compose_source(kind, **more, **{key: value})
    assert "pa/ss" not in str(error.value)


def test_secrets_are_found_under_any_key_and_a_query_that_mentions_a_token_is_none() -> None:
    own = {
        "source": {"storage": {"secret": "abc", "anon": False}, "urls": ["s3://a", "http://a:b@c"]},
        "token": "",
    }
    assert secret_keys(own, "data") == ["data.source.storage.secret", "data.source.urls[1]"]
    query = "select * from visits where token = 'a' and pwd = 'b'"
    assert (
        compose_source("SqlQuery", query=query, uri_from_env="SHOP").data.source["query"] == query
    )


@pytest.mark.parametrize("words", [["x", "--query", "select 1"], ["x"]], ids=["database", "file"])
@pytest.mark.parametrize(
    "address",
    [
        "mysql://ann:Zq7/@7qZ@db/shop",
        "mssql+pyodbc:///?odbc_connect=PWD%3DZq77qZ",
        "https://b/f.csv?sv=1&sig=Zq77qZ",
    ],
)
def test_init_refuses_an_address_with_a_secret(words: list[str], address: str) -> None:
    from retrain.cli import parse
    from retrain.commands.init import _read

    options = parse(["init", *words, "--target", "a", "--time", "b"])
    with pytest.raises(DataError, match="environment variable") as error:
        _read([address], options, None, {})
    is_gone("Zq7", str(error.value))


def test_runs_and_ledger_keep_no_secret(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also none that MLflow itself adds to each run: git's remote holds a token in many a CI."""
    remote = "https://x-access-token:Zq7token7qZ@github.com/someone/project"
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", json.dumps({"mlflow.source.git.repoURL": remote}))
    config = compose(REPOSITORY / "conf")
    config.data.source["uri"] = (
        "postgresql://ann:Zq7pw7qZ@db/shop"  # past the check, as a source of one's own may
    )
    with runs.start_run(store, "one", config, {"note": "see http://ann:Zq7pw7qZ@db"}) as run_id:
        pass
    run = store.client.get_run(run_id)
    is_gone("Zq7", str(run.data.params) + str(run.data.tags))
    assert run.data.tags["mlflow.source.git.repoURL"] == "https://***@github.com/someone/project"
    is_gone("Zq7", str(runs.masked_tags({})))  # of a model
    is_gone("Zq7", (Path(run.info.artifact_uri) / "config.yaml").read_text())
    ledger = Ledger.open(store)
    ledger.append(
        Entry(
            "verdict",
            "keep",
            "http://a:Zq7pw7qZ@b",
            None,
            None,
            None,
            1,
            "2013",
            None,
            "c",
            "s",
            "b",
            None,
            "r",
        ),
        0,
    )
    is_gone("Zq7", str(store.client.get_run(ledger.run_id).data.params))


def test_the_jobs_of_a_sweep_log_masked_too() -> None:
    """Hydra sets up logging anew for each job."""
    with initialize_config_dir(str(REPOSITORY / "conf")):
        composed = hydra_compose("config", return_hydra_config=True)
    formatters = OmegaConf.to_container(composed.hydra.job_logging.formatters)
    configured = logging.config.DictConfigurator({}).configure_formatter(formatters["simple"])
    assert isinstance(configured, MaskingFormatter)


def test_a_traceback_is_masked_too(tmp_path: Path) -> None:
    environment = os.environ | {"MLFLOW_TRACKING_URI": "postgresql://ann:Zq7/7qZ@127.0.0.1:1/x"}
    command = [sys.executable, "-m", "retrain.cli", "--debug", "status", "tracking=server"]
    code = "import sys; from retrain.cli import main; main(sys.argv[1:])"
    result = subprocess.run(
        [sys.executable, "-c", code, *command[3:]],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and "Traceback" in result.stderr
    is_gone("Zq7", result.stdout + result.stderr)


@pytest.mark.parametrize(
    "umask, mode", [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)]
)
def test_files_are_readable_for_whom_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        for _ in range(2):  # new, then replaced
            write_text(tmp_path / "rows.json", "{}")
            assert stat.S_IMODE((tmp_path / "rows.json").stat().st_mode) == mode
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "unit",
    [
        "-a",
        "a.",
        "//",
        "//a:",
        "a://b:",
        "%20a",
        "sk-",
        "cookie:",
        "jdbc:oracle:a:",
        "pass-",
        "'",
        '"',
        "{",
        "a=",
        "&a",
    ],
)
def test_a_long_text_takes_no_longer_than_its_length(unit: str) -> None:
    """Where the time grew with the square of the length, this would take minutes."""
    text = unit * (200_000 // len(unit))
    assert "Zq7" not in mask(f"{text} http://ann:Zq7@host")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mysql -u ann -p Zq77qZ shop", "mysql -u ann -p *** shop"),
        ("mysql --user ann -pZq77qZ", "mysql --user ann -p***"),
        ("the password is Zq77qZ", "the password is ***"),
        ("psql -u ann -p 5432", "psql -u ann -p 5432"),
        ("the password is wrong", "the password is wrong"),
    ],
)
def test_a_password_is_masked_also_behind_a_short_option_and_in_a_sentence(
    text: str, shown: str
) -> None:
    assert mask(text) == shown
