import base64
import html
import re

import pytest

from nbserve.trace import page

PACK = bytes(range(256)) * 8


def test_the_page_carries_the_pack_and_the_viewer() -> None:
    document = page.document(PACK, title="a <b> & c")
    found = re.search(r'<script type="application/gzip" id="pack">([^<]*)</script>', document)
    assert found
    assert base64.b64decode(found[1]) == PACK
    assert "<title>a &lt;b&gt; &amp; c</title>" in document
    assert document.count("<script") == document.count("</script>") == 2


def test_the_page_names_nothing_outside_of_itself() -> None:
    document = page.document(PACK)
    assert "default-src 'none'" in document
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", document)
    assert "connect-src" not in document


def test_the_frame_holds_the_whole_document() -> None:
    frame = page.page(PACK, title='"quoted"')
    source = re.search(r'<iframe srcdoc="([^"]*)" title="([^"]*)"', frame)
    assert source
    assert html.unescape(source[1]) == page.document(PACK, title='"quoted"')
    assert html.unescape(source[2]) == '"quoted"'
    assert "sandbox" not in frame


@pytest.mark.parametrize("name", ["trace.js", "look.json"])
def test_what_the_viewer_is_made_of_ships_in_the_package(name: str) -> None:
    assert page.files("nbserve.trace").joinpath("static", name).is_file()
