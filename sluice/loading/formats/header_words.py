"""Tells names of columns from values by their words, for texts in which the values below do not show it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-zß-öø-ÿ]+|[^\W\d_A-Za-z]+")
_COMPOUND: Final = re.compile(r"[^\W_]+(?:_[^\W_]+)+|[a-z]+[A-Z]\w*")
"""Compound words such as ``order_id`` or ``orderId``."""
_WORDS: Final = frozenset(
    """
    account action active address age alias amount animal answer area article artist author balance bank birth
    birthday body brand building capital category cell channel child city class client code color colour column
    comment company contact content continent cost count country county currency customer data date day
    department description detail device direction district domain duration email employee end entry error event
    factor family fax field file filename first flag food format from fruit fullname gender genre group height
    hex host hostname id identifier image industry info iso item job key keyword kind label language last
    lastname lat length letter level line link locale location login lon mail manager market material message
    method mobile model money month name nation note notes number object occupation office option order
    organisation organization origin owner package parent part password payment person phone pin place plant
    player position postcode price priority product profession project property province quantity question race
    rank rating reason region remark result role sector sender serial sex shape side size source species start
    state station status street style subject supplier surname symbol tag target task team text time timezone
    title topic total town translation type unit update uri url user username value vendor version volume
    website week weight what when where who width word year zip zone

    aantal abteilung achternaam adresse alter anrede anzahl apellido apellidos artikel bemerkung beruf
    beschreibung bestellung betrag bezeichnung calle cantidad categoria cidade citta città ciudad cognome datum
    direccion dirección einheit endereço farbe fecha firma gruppe hausnummer indirizzo jahr kategorie konto kunde
    land libelle libellé menge mois monat montant naam nachname nom nombre nome numero nummer numéro omschrijving
    ort paese pais pays país plaats plz precio preis prenom prezzo preço prijs prix produkt prénom quantite
    quantità quantité rue sobrenome sprache stadt stand straat strasse straße telefon telefono telephone teléfono
    titel téléphone ville voornaam vorname wert zeit
    """.split()  # noqa: SIM905 - a list of them would take a screen
)
"""Words of which the name of most columns of text has one; English, then other languages of Europe."""
_LATER: Final = re.compile(
    r"(?:name|code|number|date|nummer|datum|preis|betrag|menge|straße|strasse|naam)$"
    r"|姓名|名称|名字|日期|时间|城市|国家|地址|电话|手机|邮箱|编号|号码|备注|类型|类别|状态|部门|性别|年龄|单位|产品|商品|公司|价格|数量|金额"
    r"|名前|氏名|住所|都市|日付|電話|番号"
)
"""Endings of longer words, and parts of words that are written without spaces."""


_MOST_WORDS: Final = 4
"""Most words of a name; a longer text is a sentence."""


def tells(name: str, values: Sequence[str]) -> bool:
    """Return whether a text is a name, or is formed as names are and unlike the values below it.

    Being different is not enough: as often as files have names, rows begin with a ``New York`` above a ``Paris``, or
    with a ``Hannover 96`` above a ``Bayern``.
    """
    if len(name.split()) > _MOST_WORDS:
        return False
    if _is_usual(name):
        return not values or 2 * sum(map(_is_usual, values)) < len(values)
    if _COMPOUND.fullmatch(name):
        return not any("_" in value for value in values) and not any(map(_COMPOUND.fullmatch, values))
    if not values:
        return False
    case, has_digit = _made(name)
    made = [_made(value) for value in values]
    if case == "lower" and not any(letters == "lower" for letters, _ in made):
        return True
    return not has_digit and all(digit for _, digit in made)


def _is_usual(name: str) -> bool:
    parts = [part.casefold() for part in _PART.findall(unicodedata.normalize("NFC", name))]
    singular = [part.removesuffix("s") for part in parts]
    return not _WORDS.isdisjoint(parts + singular) or any(map(_LATER.search, parts))


def _made(text: str) -> tuple[str, bool]:
    """Return the letter case of a text, and whether it has a digit."""
    letters = [one for one in text if one.isalpha() and one.lower() != one.upper()]
    case = "none"
    if letters:
        case = "lower" if letters[0].islower() else "upper" if len(letters) > 1 and letters[-1].isupper() else "title"
    return case, any(map(str.isdecimal, text))
