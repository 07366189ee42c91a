"""What a contract says."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sluice.loading.contracts.contract import parse_contract


def test_a_contract_is_a_data_resource_with_keys_of_our_own_under_sluice() -> None:
    contract = parse_contract(
        {
            "path": "orders-*.csv",
            "encoding": "cp1252",
            "dialect": {"delimiter": ";", "headerRows": [2]},
            "schema": {
                "fields": [
                    {"name": "id", "type": "integer", "constraints": {"required": True, "unique": True}},
                    {"name": "mail", "type": "string", "mask": {"kind": "email"}},
                ],
                "primaryKey": "id",
                "missingValues": ["", "NULL"],
            },
            "sluice": {"table": "orders", "schema": "sales", "mode": "upsert", "on_bad_rows": "quarantine"},
        }
    )
    field = contract.field_of("mail")
    assert field is not None
    assert field.mask is not None
    assert contract.field_of("other") is None
    assert contract.sluice.database_schema == "sales"


def test_a_key_that_is_no_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="delimitr"):
        parse_contract({"dialect": {"delimitr": ";"}})


def test_what_the_standard_says_to_readers_and_other_programs_is_taken_and_does_nothing() -> None:
    described = {
        "$schema": "https://datapackage.org/profiles/2.0/dataresource.json",
        "name": "orders",
        "type": "table",
        "profile": "tabular-data-resource",
        "mediatype": "text/csv",
        "licenses": [{"name": "CC0-1.0"}],
        "sources": [{"title": "The shop"}],
        "path": "orders.csv",
        "dialect": {"$schema": "https://datapackage.org/profiles/2.0/tabledialect.json", "delimiter": ";"},
        "schema": {
            "$schema": "https://datapackage.org/profiles/2.0/tableschema.json",
            "fields": [{"name": "id", "type": "integer", "example": 7, "rdfType": "http://schema.org/identifier"}],
        },
    }
    plain = {
        "path": "orders.csv",
        "dialect": {"delimiter": ";"},
        "schema": {"fields": [{"name": "id", "type": "integer"}]},
    }
    found, wanted = parse_contract(described), parse_contract(plain)
    assert (found.path, found.dialect.delimiter, found.sluice) == (wanted.path, wanted.dialect.delimiter, wanted.sluice)
    assert found.field_of("id") is not None


@pytest.mark.parametrize("key", ["foreignKeys", "uniqueKeys", "fieldsMatch"])
def test_what_the_standard_asks_of_values_and_is_not_checked_here_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        parse_contract({"schema": {"fields": [{"name": "id"}], key: []}})
