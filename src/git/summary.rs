//! What a server lists, summed up as it comes. This is how a repository is tested.
//!
//! The list is read without libgit2 and is not kept: a server that lists a million references costs no more memory
//! than one that lists none.

use std::io::{Read, Write};
use std::sync::{Arc, PoisonError};

use super::pkt::scrubbed;
use super::references::unreadable;
use super::wire::Wire;
use super::{Access, Control, Error, Remote, blocking, http, ssh_stream};
use crate::report::{Stage, StageLog};

/// What is read at once, in bytes.
const PIECE_BYTES: usize = 32 * 1024;

/// The flush packet: nothing is wanted, and both sides part in peace.
const FLUSH: &[u8] = b"0000";

/// What a server lists before anything is fetched, without the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The branch that `HEAD` stands for, by its full name.
    pub head_branch: Option<String>,
    /// The commit that `HEAD` leads to; missing where its branch has no commit yet.
    pub head: Option<String>,
    /// How many references there are, without `HEAD` and without the objects that tags lead to.
    pub references: u64,
}

/// Asks for the list of references and sums it up.
///
/// Over HTTPS the stages are `authenticate` and `repository` where they were not recorded before, then
/// `references`; over SSH the door's, `host_key`, `authenticate`, `repository` and `references`. The last one
/// still runs when this returns.
///
/// # Errors
/// Why there is no list; [`Error::stage`] says where.
pub async fn summarize(remote: &Remote, control: &Control, log: &StageLog) -> Result<Summary, Error> {
    blocking::run(remote, control, log, sum_up).await
}

fn sum_up(wire: &Arc<Wire>) -> Result<Summary, Error> {
    wire.observer().keep_no_list();
    // The deadline and a cancel cut connections, so that they are the reason of whatever broke then.
    read_from(wire).map_err(|error| wire.control.check().err().unwrap_or(error))?;
    let summary = wire.observer().take_summary();
    wire.log.fact("references", summary.references);
    if let Some(branch) = &summary.head_branch {
        wire.log.fact("head_branch", scrubbed(branch.as_bytes()));
    }
    ask_for_greeting(wire);
    Ok(summary)
}

/// Hears on the same connection what the server says to people, where that is known to do no harm. It comes last,
/// because some servers hang up after it.
fn ask_for_greeting(wire: &Wire) {
    let (Access::Ssh(login), Some(opened)) = (&wire.access, wire.opened.get()) else { return };
    if !login.greets {
        return;
    }
    wire.log.pass();
    let greeting = opened.lock().unwrap_or_else(PoisonError::into_inner).greeting(wire.control.time_left());
    if let Some(greeting) = greeting {
        wire.log.fact_at(Stage::Authenticate, "greeting", greeting.as_str());
        // Of two greetings of one server the first is as good as the second.
        let _ = login.seen.greeting.set(greeting);
    }
}

/// Reads the list from its beginning to its end, past the wire's observer.
pub(super) fn read_from(wire: &Arc<Wire>) -> Result<(), Error> {
    match &wire.access {
        Access::Https { client, authorization } => {
            let shared = http::Shared::default();
            let mut answer = http::ask_for_list(wire, client, authorization.as_ref(), &shared)?;
            read_list(wire, &mut answer)
        }
        Access::Ssh(login) => {
            let mut stream = ssh_stream::start(wire, login)?;
            read_list(wire, &mut stream)?;
            // The list is here; a server that is gone already has missed nothing.
            let _ = stream.write_all(FLUSH);
            Ok(())
        }
    }
}

/// Reads until the list has ended. Each piece passes by the wire's observer, which does the counting.
fn read_list(wire: &Wire, stream: &mut impl Read) -> Result<(), Error> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(_) if wire.observer().has_whole_list() => return Ok(()),
            Ok(_) if wire.observer().is_out_of_form() => break,
            Ok(_) => {}
            // The reason is recorded, and goes before this one.
            Err(_) => break,
        }
    }
    Err(unreadable(wire))
}
