//! The one attempt to log in: with one key, shown once.

use std::path::Path;
use std::time::{Duration, Instant};

use ssh2::{ErrorCode, Session};
use tokio::runtime::Handle;

use super::agent::{self, AgentProblem, Bridge};
use super::key::{self, Description, KeyProblem, TypeProblem, Unusable};
use super::login::{Limit, STEP_TIMEOUT, code, code_of, lost};
use super::relay::Relay;
use super::transcript::shown;
use super::{Error, Login};
use crate::credential::{Credential, Material, PrivateKey};
use crate::host_key::Pin;
use crate::report::{Stage, StageLog};
use crate::secret::Secret;

/// The most ways to authenticate that are listed.
const MAX_METHODS: usize = 16;

/// How long a server may take from its last message to the end of the connection.
const FAREWELL_WAIT: Duration = Duration::from_millis(250);

/// How often this side speaks before it signs: it asks whether the server knows the key at all (RFC 4252, section
/// 7). Only where the server says yes there comes the signature.
const TURNS_WITHOUT_SIGNATURE: usize = 1;

/// How it was before the key was shown.
struct Before {
    at: Instant,
    turns: usize,
}

/// What an attempt is made with.
pub(super) struct Attempt<'a> {
    pub(super) session: &'a Session,
    pub(super) relay: &'a Relay,
    pub(super) login: &'a Login,
    pub(super) limit: &'a Limit,
    pub(super) log: &'a StageLog,
}

impl Attempt<'_> {
    /// Logs in.
    pub(super) fn make(&self) -> Result<(), Error> {
        match &self.login.key {
            Credential { material: Material::SshKey { key, source }, .. } => match key {
                PrivateKey::Text { text, passphrase } => self.by_text(text, passphrase.as_ref(), source),
                PrivateKey::Agent { socket, named } => self.by_agent(socket, named.as_ref()),
            },
            other => Err(Error::NotAKey { kind: other.kind().as_str() }),
        }
    }

    /// Logs in with a key that an agent signs with. Of its keys one is shown to the server.
    fn by_agent(&self, socket: &Path, named: Option<&Pin>) -> Result<(), Error> {
        let failed = |problem| Error::Agent { socket: socket.to_owned(), problem };
        self.log.fact("agent", socket.display().to_string());
        let choosing = async {
            tokio::select! {
                chosen = agent::choose(socket, named) => chosen.map_err(failed),
                () = self.relay.ended() => Err(Error::Disconnected { stage: Stage::Authenticate }),
            }
        };
        let chosen = Handle::current().block_on(choosing)?;
        let described = Description::of_public(&chosen);
        self.judge(&described)?;
        let bridge = Bridge::open(socket, self.relay.ended());
        let bridge = bridge.map_err(|error| failed(AgentProblem::NoTemporaryDirectory(error.kind())))?;
        let shown = self.show(&described, || {
            let mut agent = self.session.agent()?;
            agent.set_identity_path(&bridge.path())?;
            agent.connect()?;
            agent.list_identities()?;
            match agent.identities()?.iter().find(|identity| identity.blob() == chosen) {
                Some(identity) => agent.userauth(&self.login.user, identity),
                // It was there a moment ago.
                None => Err(ssh2::Error::new(ErrorCode::Session(code::AGENT_PROTOCOL), "the key is gone")),
            }
        });
        shown.map_err(|error| match error {
            _ if bridge.declined() => failed(AgentProblem::Declined),
            Error::Authentication { code: code::AGENT_PROTOCOL } => failed(AgentProblem::NotAnAgent),
            other => other,
        })
    }

    /// Logs in with a key that is at hand.
    fn by_text(&self, key: &Secret, passphrase: Option<&Secret>, source: &str) -> Result<(), Error> {
        let unreadable = |problem| Error::KeyUnreadable { source_name: source.to_owned(), problem };
        let described = key::describe(key.expose()).map_err(|unusable| match unusable {
            Unusable::Unreadable(problem) => unreadable(problem),
            Unusable::Type { key_type, problem } => Error::KeyTypeUnsupported { key_type, problem },
        })?;
        self.judge(&described)?;
        let wrong_passphrase =
            || Error::KeyPassphrase { source_name: source.to_owned(), given: passphrase.is_some() };
        if described.encrypted && passphrase.is_none() {
            return Err(wrong_passphrase());
        }
        let text = key::normalized(key.expose());
        let passphrase = passphrase.filter(|_| described.encrypted).map(Secret::expose);
        let shown = self.show(&described, || {
            self.session.userauth_pubkey_memory(&self.login.user, None, &text, passphrase)
        });
        shown.map_err(|refused| match refused {
            Error::Authentication { code: code::FILE | code::KEYFILE_AUTH_FAILED } if described.encrypted => {
                wrong_passphrase()
            }
            Error::Authentication { code: code::FILE | code::KEYFILE_AUTH_FAILED } => {
                unreadable(KeyProblem::Damaged)
            }
            other => other,
        })
    }

    /// Notes what a key is, and sees that it is not shown in vain.
    fn judge(&self, key: &Description) -> Result<(), Error> {
        if let Some(fingerprint) = &key.fingerprint {
            self.log.fact("key_fingerprint", fingerprint.as_str());
        }
        let Some(key_type) = &key.key_type else { return Ok(()) };
        self.log.fact("key_type", key_type.as_str());
        if self.login.rsa_alone && !key.is_rsa() {
            let problem = TypeProblem::RsaAlone;
            return Err(Error::KeyTypeUnsupported { key_type: key_type.clone(), problem });
        }
        Ok(())
    }

    /// Shows a key to the server, if that takes keys at all. What is wrong with the key itself comes back as
    /// [`Error::Authentication`] with the library's code.
    fn show(
        &self,
        key: &Description,
        authenticate: impl FnOnce() -> Result<(), ssh2::Error>,
    ) -> Result<(), Error> {
        let methods = self.offered_methods()?;
        self.log.fact("methods", methods.clone());
        if self.session.authenticated() {
            return Ok(());
        }
        if !methods.iter().any(|method| method == "publickey") {
            return Err(self.rejected(key, methods, false));
        }
        let before = Before { at: Instant::now(), turns: self.relay.turns() };
        self.limit.arm(self.session);
        authenticate().map_err(|error| self.refusal(key, methods, code_of(&error), &before))
    }

    /// The ways to authenticate that the server offers. They come as its answer to the request `none`, which is
    /// free as the first one only: after a key it would count as another failed attempt.
    fn offered_methods(&self) -> Result<Vec<String>, Error> {
        self.limit.arm(self.session);
        match self.session.auth_methods(&self.login.user) {
            Ok(methods) => {
                let methods = methods.split(',').filter(|method| !method.is_empty());
                Ok(methods.take(MAX_METHODS).map(|method| shown(method.as_bytes())).collect())
            }
            // Nothing more is asked: the server lets everybody in.
            Err(_) if self.session.authenticated() => Ok(Vec::new()),
            Err(error) => {
                let code = code_of(&error);
                Err(lost(code, Stage::Authenticate, STEP_TIMEOUT).unwrap_or(Error::Authentication { code }))
            }
        }
    }

    /// Why the server did not take the key.
    fn refusal(&self, key: &Description, methods: Vec<String>, code: i32, before: &Before) -> Error {
        // libssh2 has one code for a signature that is refused and for an answer that does not come.
        let is_unanswered = code == code::PUBLICKEY_UNVERIFIED;
        if is_unanswered && before.at.elapsed() >= STEP_TIMEOUT {
            return Error::TimedOut { stage: Stage::Authenticate, after: STEP_TIMEOUT };
        }
        if is_unanswered && self.relay.ends_within(FAREWELL_WAIT) {
            return self.rejected(key, methods, true);
        }
        // The same code stands for a signature that this side could not make.
        if is_unanswered && self.relay.turns() > before.turns + TURNS_WITHOUT_SIGNATURE {
            return Error::KeyNotEnough {
                user: self.login.user.clone(),
                fingerprint: key.fingerprint.clone(),
                methods,
            };
        }
        // A server that announces other signatures alone, or that announces none: libssh2 falls back to SHA-1
        // then, which is compiled out of it.
        let is_signature =
            matches!(code, code::METHOD_NONE | code::PUBLICKEY_UNVERIFIED | code::ALGO_UNSUPPORTED);
        if is_signature && key.is_rsa() {
            let banner = self.relay.transcript().banner.unwrap_or_default();
            return Error::RsaSha2NotAnnounced { banner };
        }
        match code {
            code::AUTHENTICATION_FAILED | code::PUBLICKEY_UNVERIFIED | code::ALGO_UNSUPPORTED => {
                self.rejected(key, methods, false)
            }
            code => lost(code, Stage::Authenticate, STEP_TIMEOUT).unwrap_or(Error::Authentication { code }),
        }
    }

    fn rejected(&self, key: &Description, methods: Vec<String>, hung_up: bool) -> Error {
        Error::KeyRejected {
            user: self.login.user.clone(),
            key_type: key.key_type.clone(),
            fingerprint: key.fingerprint.clone(),
            methods,
            hung_up,
        }
    }
}
