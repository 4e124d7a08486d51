"""A git server over HTTPS that shares no code with git: dulwich, for named repositories and one accepted credential.

Its settings come as JSON in the first argument. When it listens, it prints its port.
"""

import json
import socketserver
import ssl
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from dulwich.repo import Repo
from dulwich.server import DictBackend
from dulwich.web import make_wsgi_chain

SETTINGS = json.loads(sys.argv[1])


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """Serves each connection in a thread of its own, the handshake included."""

    daemon_threads = True


class Handler(WSGIRequestHandler):
    """Says nothing on standard error of requests that went well."""

    def log_message(self, *words):
        pass


def guarded(application):
    """Lets the accepted credential in and asks everybody else for one."""

    def answer(environ, start_response):
        if environ.get("HTTP_AUTHORIZATION") == SETTINGS["accepted"]:
            return application(environ, start_response)
        start_response("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="git"'), ("Content-Length", "0")])
        return []

    return answer


backend = DictBackend({path: Repo(directory) for path, directory in SETTINGS["repositories"].items()})
server = make_server("127.0.0.1", 0, guarded(make_wsgi_chain(backend)), Server, Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(SETTINGS["certificate"], SETTINGS["key"])
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print("port", server.server_port, flush=True)
server.serve_forever()
