"""What a contract says."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sluice.loading.contract import parse_contract


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
