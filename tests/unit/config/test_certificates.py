"""What is said of files of TLS: a sentence for each that cannot be used, and three weeks before it cannot."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from typer.testing import CliRunner

from config.certificates import NamedFile, TlsFiles, certificate_remarks, tls_files
from config.settings import load_settings
from events.errors import ConfigError
from services.cli import app
from services.operations.certificate_watch import CertificateWatch
from tests.support.certificates import Authority, Pair
from tests.support.sources import running
from tests.support.waiting import eventually


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


def of(pair: Pair, authority: Path | None = None) -> TlsFiles:
    return TlsFiles(
        NamedFile("CA", authority) if authority else None,
        NamedFile("CERT", pair.certificate),
        NamedFile("KEY", pair.key),
    )


def said(files: TlsFiles) -> list[tuple[str, bool]]:
    return [(remark.text, remark.broken) for remark in certificate_remarks(files)]


def test_nothing_is_said_of_a_pair_that_is_good(authority: Authority) -> None:
    assert not said(of(authority.issue("good"), authority.file))


def test_a_file_that_is_missing_or_no_certificate_is_told(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("one")
    pair.certificate.write_text("nothing")
    ((text, broken), *_) = said(of(pair))
    assert (f"CERT: {pair.certificate} holds no certificate in PEM", True) == (text, broken)
    pair.certificate.unlink()
    assert said(of(pair)) == [(f"CERT: {pair.certificate} cannot be read: No such file or directory", True)]
    assert said(of(authority.issue("two"), tmp_path / "none")) == [
        (f"CA: {tmp_path / 'none'} cannot be read: No such file or directory", True)
    ]


def test_a_key_that_belongs_to_another_certificate_or_wants_a_password_is_told(authority: Authority) -> None:
    one, other = authority.issue("one"), authority.issue("other")
    mixed = Pair(one.certificate, other.key)
    assert said(of(mixed)) == [(f"KEY: {other.key} is not the key of the certificate {one.certificate}", True)]
    one.key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    assert said(of(one)) == [(f"KEY: {one.key} holds no private key in PEM that can be read without a password", True)]
    one.key.unlink()
    assert said(of(one)) == [(f"KEY: {one.key} cannot be read: No such file or directory", True)]


def test_the_end_of_a_certificate_is_told_three_weeks_before_and_after(authority: Authority) -> None:
    for days, word, broken in ((20, "expires on", False), (-1, "has expired on", True)):
        ((text, found),) = said(of(authority.issue("short", lasts=dt.timedelta(days=days))))
        assert word in text
        assert found is broken
    assert not said(of(authority.issue("long", lasts=dt.timedelta(days=22))))


def test_of_several_authorities_one_that_is_good_will_do(authority: Authority) -> None:
    good, old = authority.file.read_text(), authority.issue("old", lasts=dt.timedelta(days=-1)).certificate.read_text()
    bundle = authority.file.with_name("bundle.pem")
    for text, remarks in ((old + good, 0), (old, 1)):
        bundle.write_text(text)
        assert len(said(TlsFiles(NamedFile("CA", bundle)))) == remarks


def test_check_and_doctor_tell_the_files_of_every_connection(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = authority.issue("old", lasts=dt.timedelta(days=-1))
    soon = authority.issue("soon", lasts=dt.timedelta(days=5))
    for name, value in {
        "SLUICE_HOME": str(tmp_path / "home"),
        "SLUICE_REDIS__CA_FILE": str(old.certificate),
        "SLUICE_API__CERTIFICATE_FILE": str(soon.certificate),
        "SLUICE_API__KEY_FILE": str(old.key),
        "PREFECT_API_SSL_CERT_FILE": str(tmp_path / "none"),
        "SLUICE_DATABASE_URL": f"postgresql+psycopg://u@h/d?sslmode=verify-full&sslrootcert={tmp_path}/gone",
    }.items():
        monkeypatch.setenv(name, value)
    checked = CliRunner().invoke(app, ["check"])
    assert checked.exit_code == 2
    examined = CliRunner().invoke(app, ["doctor", "--json"]).output
    for word in (
        "SLUICE_REDIS__CA_FILE", "has expired", "SLUICE_API__CERTIFICATE_FILE", "expires on", "SLUICE_API__KEY_FILE",
        "is not the key of", "PREFECT_API_SSL_CERT_FILE", "SLUICE_DATABASE_URL (sslrootcert)",
    ):  # fmt: skip
        assert word in checked.output, checked.output
        assert word in examined


async def test_a_role_says_in_its_status_what_expires(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    soon = authority.issue("soon", lasts=dt.timedelta(days=5))
    monkeypatch.setenv("SLUICE_REDIS__CERTIFICATE_FILE", str(soon.certificate))
    monkeypatch.setenv("SLUICE_REDIS__KEY_FILE", str(soon.key))
    watch = CertificateWatch(tls_files(load_settings(), {}), look_seconds=0.01)
    async with running(watch):
        await eventually(lambda: _degraded(watch))
        assert "SLUICE_REDIS__CERTIFICATE_FILE" in watch.status()["degraded"]
        soon.replace_with(authority.issue("new"))
        await eventually(lambda: _well(watch))


async def _degraded(watch: CertificateWatch) -> bool:
    return "degraded" in watch.status()


async def _well(watch: CertificateWatch) -> bool:
    return not watch.status()


@pytest.mark.parametrize(
    "variables",
    [
        {"SLUICE_API__CERTIFICATE_FILE": "a"},
        {"SLUICE_API__KEY_FILE": "a"},
        {"SLUICE_API__CLIENT_CA_FILE": "a"},
    ],
)
def test_settings_of_the_api_that_belong_together_are_set_together(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="SLUICE_API"):
        load_settings()
