//! Git over SSH: the running `git-upload-pack` as a stream for libgit2.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use git2::Error as GitError;
use git2::transport::SmartSubtransportStream;

use super::pkt::scrubbed;
use super::transport::refused;
use super::wire::Wire;
use super::{Error, Loss};
use crate::report::Stage;
use crate::ssh::{self, Login, Opened};

/// The most that is read of what a server says beside git's protocol.
const MAX_STDERR_BYTES: u64 = 4096;

/// Logs in and starts `git-upload-pack`.
pub(super) fn open(wire: &Arc<Wire>, login: &Login) -> Result<Box<dyn SmartSubtransportStream>, GitError> {
    match start(wire, login) {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => {
            // The reason is recorded; libgit2 need not know it.
            let _ = wire.fail(error);
            Err(refused("the connection could not be opened"))
        }
    }
}

pub(super) fn start(wire: &Arc<Wire>, login: &Login) -> Result<SshStream, Error> {
    let stream = wire.wait(login.door.connect(&login.destination, &wire.log))?;
    let stream = stream.map_err(ssh::Error::Dial)?;
    let approached = wire.wait(ssh::approach(stream, &wire.log))??;
    let watched = wire.cut.watch(approached.socket());
    watched.map_err(|_| ssh::Error::Disconnected { stage: Stage::Connect })?;
    let command = format!("git-upload-pack {}", quoted(&path_at_host(wire)));
    let opened = ssh::open(approached, login, &command, wire.control.deadline, &wire.log)?;
    let opened = Arc::new(Mutex::new(opened));
    // There is one connection in a piece of work, so that nothing stands there yet.
    let _ = wire.opened.set(Arc::clone(&opened));
    Ok(SshStream { wire: Arc::clone(wire), opened })
}

/// The repository's path as the server's git gets it, and as git itself sends it: the short form of the URL
/// as it was written, an `ssh://` URL decoded and with its slash, but for a path that begins in somebody's home.
fn path_at_host(wire: &Wire) -> String {
    if let Some(path) = wire.url.short_path() {
        return path.to_owned();
    }
    let path = wire.url.segments().iter().fold(String::new(), |path, segment| path + "/" + segment);
    match path.strip_prefix('/') {
        Some(home) if home.starts_with('~') => home.to_owned(),
        _ => path,
    }
}

/// A text as one word for a shell, as git quotes it: nothing in it is special, quotes and exclamation marks
/// included.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        if matches!(c, '\'' | '!') {
            quoted.push_str("'\\");
            quoted.push(c);
            quoted.push('\'');
        } else {
            quoted.push(c);
        }
    }
    quoted.push('\'');
    quoted
}

/// The server's git, running.
pub(super) struct SshStream {
    wire: Arc<Wire>,
    opened: Arc<Mutex<Opened>>,
}

impl SshStream {
    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arm(&self) -> Result<(), Error> {
        self.wire.control.check()?;
        self.opened().set_timeout(self.wire.control.time_left());
        Ok(())
    }

    /// Why the server's git ended before it listed a reference.
    fn ended(&mut self) -> Error {
        let mut message = Vec::new();
        // What cannot be read any more explains less, and that is all.
        let _ = self.opened().channel.stderr().take(MAX_STDERR_BYTES).read_to_end(&mut message);
        let exit_status = self.opened().exit_status();
        Error::RepositoryUnavailable { exit_status, message: scrubbed(&message) }
    }
}

impl Read for SshStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.arm().map_err(|error| self.wire.fail(error))?;
        let read = self.opened().channel.read(buffer);
        match read {
            Ok(0) if self.wire.observer().is_silent() => {
                let error = self.ended();
                Err(self.wire.fail(error))
            }
            Ok(count) => {
                self.wire.received(&mut buffer[..count]).map_err(|error| self.wire.fail(error))?;
                Ok(count)
            }
            Err(_) if !self.wire.observer().is_silent() => {
                let bytes = self.wire.control.transfer.received_bytes();
                Err(self.wire.fail(Error::Lost { bytes, how: Loss::Cut }))
            }
            Err(_) => Err(self.wire.fail(ssh::Error::Disconnected { stage: self.stage() }.into())),
        }
    }
}

impl SshStream {
    fn stage(&self) -> Stage {
        self.wire.log.running().unwrap_or(Stage::Repository)
    }
}

impl Write for SshStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.arm().map_err(|error| self.wire.fail(error))?;
        let written = self.opened().channel.write(bytes);
        written.map_err(|_| self.wire.fail(ssh::Error::Disconnected { stage: self.stage() }.into()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_for_a_shell() {
        assert_eq!(quoted("/a b.git"), "'/a b.git'");
        assert_eq!(quoted("/it's; rm -rf $(x)!"), r"'/it'\''s; rm -rf $(x)'\!''");
    }
}
