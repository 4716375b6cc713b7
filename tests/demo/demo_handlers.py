"""What the demo's client answers: the built-in examples, and the files of one folder."""

from restpipe.handler.examples.builtin import TestClientEventHandler
from restpipe.handler.examples.files import FileServer


class DemoHandler(FileServer, TestClientEventHandler):
    """`time`, `cat`, `file` and `files`; the folder is named by RP_FILES_ROOT."""
