"""Writing the smallest xlsx and ods files that the programs of others write, cell by cell."""

from __future__ import annotations

import zipfile
from pathlib import Path

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'


def text(content: str, place: str = "") -> str:
    """An xlsx cell that holds a text."""
    at = f' r="{place}"' if place else ""
    return f'<c{at} t="inlineStr"><is><t xml:space="preserve">{content}</t></is></c>'


def number(content: str, place: str = "", attributes: str = "") -> str:
    """An xlsx cell that holds a number, or what the attributes say."""
    at = f' r="{place}"' if place else ""
    return f"<c{at} {attributes}><v>{content}</v></c>"


def row(*cells: str, place: int | None = None) -> str:
    """An xlsx row."""
    at = f' r="{place}"' if place else ""
    return f"<row{at}>{''.join(cells)}</row>"


def write_xlsx(path: Path, sheets: dict[str, str], hidden: frozenset[str] = frozenset()) -> Path:
    """A workbook; each sheet is the XML of its rows."""
    parts = "".join(
        f'<Override PartName="/xl/worksheets/s{place}.xml" '
        'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>'
        for place in range(len(sheets))
    )
    names = "".join(
        f'<sheet name="{name}" sheetId="{place + 1}" r:id="r{place}"{state(name, hidden)}/>'
        for place, name in enumerate(sheets)
    )
    targets = "".join(
        f'<Relationship Id="r{place}" Type="{_OFFICE}/worksheet" Target="worksheets/s{place}.xml"/>'
        for place in range(len(sheets))
    )
    formats = "".join(f'<xf numFmtId="{code}" applyNumberFormat="1"/>' for code in (0, 14, 22, 21))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "[Content_Types].xml",
            f'{_HEAD}<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" ContentType='
            '"application/vnd.openxmlformats-package.relationships+xml"/>'
            '<Override PartName="/xl/workbook.xml" ContentType='
            '"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
            f"{parts}</Types>",
        )
        archive.writestr(
            "_rels/.rels",
            f'{_HEAD}<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="r0" '
            f'Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/workbook.xml",
            f'{_HEAD}<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>{names}</sheets></workbook>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'{_HEAD}<Relationships xmlns="{_PACKAGE}/relationships">{targets}<Relationship Id="st" '
            f'Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/styles.xml", f'{_HEAD}<styleSheet xmlns="{_MAIN}"><cellXfs count="4">{formats}</cellXfs></styleSheet>'
        )
        for place, rows in enumerate(sheets.values()):
            archive.writestr(
                f"xl/worksheets/s{place}.xml",
                f'{_HEAD}<worksheet xmlns="{_MAIN}"><sheetData>{rows}</sheetData></worksheet>',
            )
    return path


def state(name: str, hidden: frozenset[str]) -> str:
    return ' state="hidden"' if name in hidden else ""


def write_ods(path: Path, tables: str) -> Path:
    """A spreadsheet from the XML of its tables."""
    spaces = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "table", "text")
    )
    calc = 'xmlns:calcext="urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0"'
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr(
            "META-INF/manifest.xml",
            f'{_HEAD}<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>',
        )
        archive.writestr(
            "content.xml",
            f"{_HEAD}<office:document-content {spaces} {calc}><office:body><office:spreadsheet>{tables}"
            "</office:spreadsheet></office:body></office:document-content>",
        )
    return path
