"""Excel files as tests make them, without a library that writes them."""

from __future__ import annotations

import io
import zipfile
from typing import Any


def workbook(
    rows: list[list[Any]], *, head: str = "", sheets: str = '<sheet name="S" sheetId="1" r:id="r1"/>'
) -> bytes:
    """Return a minimal Office Open XML workbook (ECMA-376) with inline texts and numbers.

    A pair is the attributes and the inside of a cell; ``head`` stands before the rows, ``sheets`` lists the sheets.
    """

    def cell(ref: str, value: Any) -> str:
        if isinstance(value, tuple):
            return f'<c r="{ref}"{value[0]}>{value[1]}</c>'
        if isinstance(value, str):
            return f'<c r="{ref}" t="inlineStr"><is><t>{value}</t></is></c>'
        return f'<c r="{ref}"><v>{value}</v></c>'

    sheet = "".join(
        f'<row r="{line}">{"".join(cell(f"{chr(65 + place)}{line}", value) for place, value in enumerate(row))}</row>'
        for line, row in enumerate(rows, 1)
    )
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    packages = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'
    files = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
        '<Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships {packages}><Relationship Id="r1" Type="{relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook {space} xmlns:r="{relations}"><sheets>{sheets}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships {packages}><Relationship Id="r1" Type="{relations}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f"<worksheet {space}>{head}<sheetData>{sheet}</sheetData></worksheet>",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return packed.getvalue()
