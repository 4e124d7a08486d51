"""An S3 server with one bucket. Tells its port in the first line."""

import json
import os
import sys

SETTINGS = json.loads(sys.argv[1])

# What it must not find: it answers for Amazon itself and never asks it.
for name in list(os.environ):
    if name.startswith("AWS_"):
        del os.environ[name]

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Handler(WSGIRequestHandler):
    """Says nothing on standard error of requests that went well."""

    def log(self, *words):
        pass


application = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)

from moto.s3.models import s3_backends

s3_backends["123456789012"]["aws"].create_bucket(SETTINGS["bucket"], "us-east-1")
print("port", server.server_port, flush=True)
server.serve_forever()
