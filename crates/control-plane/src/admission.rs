//! Who may open a session: the judgment on a `hello`.

use std::collections::BTreeSet;

use sortie_protocol::identity::hello_payload;
use sortie_protocol::message::{Challenge, Goaway, GoawayReason, Hello};
use sortie_protocol::selector::{check_own_tags, check_tags, implicit_tags};

use crate::dispatch::{Candidate, Connected};
use crate::engine::Ledger;
use crate::identity::{canonical_origin, is_signed_by};
use crate::store::{AgentRecord, StoreError};

/// The most bytes in the texts by which an agent describes its program and host.
const MAX_FACT_BYTES: usize = 64;

/// When an agent may come back after a failure that is this side's, in milliseconds.
const STORE_RETRY_MS: u64 = 1000;

/// Why a session was not opened.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such agent, or it was revoked.
    #[error("no agent with this identifier is registered here; enroll it again")]
    Unknown,
    /// The base URL is not the one of the enrollment.
    #[error(
        "the agent dialed {dialed} and enrolled at {enrolled}; let it dial that one, enroll it again, \
         or start the control plane with --public-url {dialed}"
    )]
    Origin {
        /// The base URL in the `hello`.
        dialed: String,
        /// The one of the enrollment.
        enrolled: String,
    },
    /// The signature is not the registered key's.
    #[error("the proof was not made with the key that is registered for this agent")]
    Proof,
    /// Another agent has the name.
    #[error("another agent has the name {0}; give this one a name of its own")]
    NameTaken(String),
    /// A field is out of form.
    #[error("`{field}` {problem}")]
    Malformed {
        /// The field of `hello`.
        field: &'static str,
        /// What must hold for it.
        problem: String,
    },
    /// The store does not answer.
    #[error("the control plane cannot reach its store just now")]
    Store(#[from] StoreError),
}

impl Refusal {
    /// What the agent is told.
    pub fn goaway(&self) -> Goaway {
        let (reason, reconnect_after_ms) = match self {
            Self::Store(_) => (GoawayReason::Shutdown, STORE_RETRY_MS),
            Self::Malformed { .. } => (GoawayReason::ProtocolViolation, 0),
            _ => (GoawayReason::IdentityRefused, 0),
        };
        Goaway { reason, message: self.to_string(), reconnect_after_ms }
    }
}

/// Checks a `hello` against the registration.
///
/// # Errors
/// Why the agent is not let in, see [`Refusal`].
pub async fn admit<L: Ledger>(
    ledger: &L,
    public_urls: &[String],
    challenge: &Challenge,
    hello: Hello,
) -> Result<Connected, Refusal> {
    let agent = ledger.agent(&hello.agent_id).await?.ok_or(Refusal::Unknown)?;
    check_origin(public_urls, &agent, &hello.origin)?;
    let payload = hello_payload(&hello.origin, &challenge.session, &challenge.nonce, &hello.agent_id);
    if !is_signed_by(&agent.public_key, &payload, &hello.signature) {
        return Err(Refusal::Proof);
    }
    check_description(&hello.name, &hello.tags, [&hello.version, &hello.os, &hello.arch])?;
    if hello.max_tasks == 0 {
        return Err(Refusal::Malformed { field: "max_tasks", problem: "is at least 1".to_owned() });
    }
    if hello.name != agent.name && !ledger.rename_agent(&agent.id, &hello.name).await? {
        return Err(Refusal::NameTaken(hello.name));
    }
    let tags = all_tags(&hello.name, &hello.os, &hello.arch, &hello.version, &hello.tags, &agent.token_tags);
    Ok(Connected {
        session: challenge.session.clone(),
        agent_id: agent.id,
        name: hello.name,
        tags,
        own_tags: hello.tags,
        version: hello.version,
        os: hello.os,
        arch: hello.arch,
        max_tasks: hello.max_tasks,
        mode: agent.mode,
        running: hello.running,
        unacknowledged: hello.unacknowledged,
        lost: hello.lost,
    })
}

/// Checks that an agent dialed a base URL that is this control plane's for it.
///
/// # Errors
/// [`Refusal::Origin`].
pub fn check_origin(public_urls: &[String], agent: &AgentRecord, dialed: &str) -> Result<(), Refusal> {
    let canonical = canonical_origin(dialed);
    if canonical == agent.origin || public_urls.contains(&canonical) {
        return Ok(());
    }
    let shortened = |text: &str| text.chars().filter(|c| !c.is_control()).take(200).collect();
    Err(Refusal::Origin { dialed: shortened(dialed), enrolled: shortened(&agent.origin) })
}

/// Checks how an agent describes itself, in `hello` and at enrollment.
///
/// # Errors
/// [`Refusal::Malformed`] with the first field that is out of form.
pub fn check_description(name: &str, tags: &[String], facts: [&str; 3]) -> Result<(), Refusal> {
    let malformed = |field, problem: String| Refusal::Malformed { field, problem };
    if name.is_empty() {
        return Err(malformed("name", "is not empty".to_owned()));
    }
    check_tags(&[format!("name:{name}")]).map_err(|error| malformed("name", error.to_string()))?;
    check_own_tags(tags).map_err(|error| malformed("tags", error.to_string()))?;
    for (field, fact) in ["version", "os", "arch"].into_iter().zip(facts) {
        let fits = fact.len() <= MAX_FACT_BYTES && check_tags(&[format!("{field}:{fact}")]).is_ok();
        if !fits || fact.is_empty() {
            let problem = format!("has 1 to {MAX_FACT_BYTES} bytes without white space");
            return Err(malformed(field, problem));
        }
    }
    Ok(())
}

impl AgentRecord {
    /// The agent with every tag that it carries.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            agent_id: self.id.clone(),
            name: self.name.clone(),
            tags: all_tags(&self.name, &self.os, &self.arch, &self.version, &self.tags, &self.token_tags),
        }
    }
}

fn all_tags(
    name: &str,
    os: &str,
    arch: &str,
    version: &str,
    own: &[String],
    given: &[String],
) -> BTreeSet<String> {
    let implicit = implicit_tags(name, os, arch, version);
    own.iter().chain(given).cloned().chain(implicit).collect()
}
