"""An SSH server that is not OpenSSH's: it serves git-upload-pack for named repositories.

Its settings come as JSON in the first argument. When it listens, it prints its port; then a line for each attempt of a
user to authenticate by a key.
"""

import asyncio
import json
import os
import shlex
import sys

import asyncssh

SETTINGS = json.loads(sys.argv[1])


class Server(asyncssh.SSHServer):
    """Lets the authorized keys in, under any name of a user."""

    def begin_auth(self, username):
        return True

    def public_key_auth_supported(self):
        return True

    def validate_public_key(self, username, key):
        print("key", key.get_fingerprint(), "of", username, flush=True)
        return any(key == asyncssh.import_public_key(line) for line in SETTINGS["authorized"])


async def serve(process):
    """Answers a command with git's own, and a wish for a shell with the greeting."""
    if process.command is None and SETTINGS["greeting"] is None:
        await asyncio.Event().wait()
    if process.command is None:
        process.stdout.write(SETTINGS["greeting"].encode())
        process.exit(0)
        return
    words = shlex.split(process.command)
    path = words[1].strip("/") if len(words) == 2 and words[0] == "git-upload-pack" else None
    directory = SETTINGS["repositories"].get(path)
    if directory is None:
        process.stderr.write(b"ERROR: there is no such repository\n")
        process.exit(128)
        return
    command = [SETTINGS["git"], "-c", "safe.directory=*", "upload-pack", "--strict", directory]
    pipe = asyncio.subprocess.PIPE
    git = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=os.environ)
    await process.redirect(stdin=git.stdin, stdout=git.stdout, stderr=git.stderr)
    process.exit(await git.wait())


async def main():
    if not SETTINGS["announces_signatures"]:
        # As servers do that are older than RFC 8308.
        asyncssh.connection.SSHConnection._send_ext_info = lambda connection: None
    options = SETTINGS["options"]
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Server,
        server_host_keys=SETTINGS["host_keys"],
        process_factory=serve,
        encoding=None,
        allow_pty=False,
        gss_host=None,
        **options,
    )
    print("port", server.get_port(), flush=True)
    await server.wait_closed()


asyncio.run(main())
