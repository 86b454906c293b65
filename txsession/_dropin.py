"""
Tells C{twistd} and C{twist} of C{txsession.tap}.  It is installed as
C{twisted/plugins/txsession_plugin.py}, and imports nothing that is not needed to
list the plugins.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

txsession = ServiceMaker(
    "txsession",
    "txsession.tap",
    "Serve a Klein app or a Twisted Web resource with sessions.",
    "txsession",
)
