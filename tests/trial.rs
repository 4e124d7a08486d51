//! One connection test through the library: a server as an operator would declare it, a credential, a target.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sortie::config::{CredentialSource, Proxy, ProxyKind, ProxyServer, SecretSource, Server};
use sortie::credential::{CredentialKind, Store};
use sortie::dial::{Door, Names, ProxyEnvironment, SystemNames};
use sortie::git::{Control, Engine, Limits, ListRequest, Want};
use sortie::host_key::Pin;
use sortie::policy::Policy;
use sortie::provider::{Provider, Scope};
use sortie::remote_url::RemoteUrl;
use sortie::report::StageLog;
use sortie::task::submodules::Submodules;
use sortie::task::{TargetSpec, Task, Tools, admit, clone, compare, connection_test, files, references, run};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The name of the server and of its credential.
const NAME: &str = "lab";

/// A connection test that is about to be run.
pub(crate) struct Trial {
    /// The declared server, to be changed by the test.
    pub(crate) server: Server,
    /// The test, to be changed by the test.
    pub(crate) request: connection_test::Request,
    /// Ends the test early.
    pub(crate) cancel: CancellationToken,
    /// What clones are made with.
    pub(crate) engine: Engine,
    deadline: Duration,
    limits: Limits,
    names: Arc<dyn Names>,
    credentials: BTreeMap<String, CredentialSource>,
    directory: TempDir,
}

/// A report with the words that tests look for.
#[derive(Debug)]
pub(crate) struct Outcome(pub(crate) Value);

impl Trial {
    /// A test of `url` on a server that is declared at `base`.
    pub(crate) fn of(provider: Option<Provider>, base: &str, url: &str) -> Self {
        let request = connection_test::Request {
            target: TargetSpec::Url(url.to_owned()),
            provider: None,
            credential: None,
            scope: None,
            test_repository: None,
        };
        let url = RemoteUrl::parse(base).expect("the base of the server");
        let server =
            Server { proxy: Proxy::Direct, allow_loopback: true, ..Server::new(NAME, provider, url) };
        Self {
            server,
            request,
            cancel: CancellationToken::new(),
            engine: Engine::default(),
            deadline: Duration::from_secs(60),
            limits: Limits::default(),
            names: Arc::new(SystemNames),
            credentials: BTreeMap::new(),
            directory: tempfile::tempdir().expect("a private directory"),
        }
    }

    /// Trusts the authority in this file.
    pub(crate) fn trust(mut self, ca_file: &Path) -> Self {
        self.server.ca_file = Some(ca_file.to_owned());
        self
    }

    /// Uses this secret.
    pub(crate) fn secret(self, kind: CredentialKind, username: Option<&str>, secret: &str) -> Self {
        let file = self.directory.path().join("secret");
        crate::support::process::write_private(&file, secret).expect("the secret's file");
        self.secret_file(kind, username, file, None)
    }

    /// Asks REST with this access token, which git does not use.
    pub(crate) fn api_pat(self, token: &str) -> Self {
        let file = self.directory.path().join("api-token");
        crate::support::process::write_private(&file, token).expect("the token's file");
        let secret = SecretSource::File(file);
        let kind = CredentialKind::Pat;
        let source = CredentialSource { kind, username: None, secret, passphrase: None, strict_modes: true };
        self.api_credential(source)
    }

    /// Asks REST with this credential, which git does not use.
    pub(crate) fn api_credential(mut self, source: CredentialSource) -> Self {
        const NAME: &str = "rest";
        self.credentials.insert(NAME.to_owned(), source);
        self.server.api_credential = Some(NAME.to_owned());
        self
    }

    /// Uses this access token.
    pub(crate) fn pat(self, token: &str) -> Self {
        self.secret(CredentialKind::Pat, None, token)
    }

    /// Uses this private key.
    pub(crate) fn key(self, file: &Path, passphrase: Option<&str>, known_hosts: &Path) -> Self {
        let passphrase = passphrase.map(|text| {
            let path = self.directory.path().join("passphrase");
            crate::support::process::write_private(&path, text).expect("the passphrase's file");
            SecretSource::File(path)
        });
        let mut this = self.secret_file(CredentialKind::SshKey, None, file.to_owned(), passphrase);
        this.server.known_hosts_file = Some(known_hosts.to_owned());
        this
    }

    /// Uses a key that an SSH agent holds.
    pub(crate) fn agent(mut self, socket: &Path, named: Option<&str>, known_hosts: &Path) -> Self {
        let named = named.map(|text| Pin::parse(text).expect("a public key"));
        let secret = SecretSource::Agent { socket: socket.to_owned(), named };
        let kind = CredentialKind::SshKey;
        let source = CredentialSource { kind, username: None, secret, passphrase: None, strict_modes: true };
        self.credentials.insert(NAME.to_owned(), source);
        self.server.credential = Some(NAME.to_owned());
        self.server.known_hosts_file = Some(known_hosts.to_owned());
        self
    }

    /// Uses the secret in a file, which may be missing.
    pub(crate) fn secret_file(
        mut self,
        kind: CredentialKind,
        username: Option<&str>,
        file: PathBuf,
        passphrase: Option<SecretSource>,
    ) -> Self {
        let username = username.map(str::to_owned);
        let secret = SecretSource::File(file);
        let source = CredentialSource { kind, username, secret, passphrase, strict_modes: true };
        self.credentials.insert(NAME.to_owned(), source);
        self.server.credential = Some(NAME.to_owned());
        self
    }

    /// Goes through this proxy, without authentication.
    pub(crate) fn proxy(mut self, port: u16) -> Self {
        self.server.proxy = Proxy::Through(ProxyServer::new(ProxyKind::Http, "127.0.0.1", port));
        self
    }

    /// Looks names up in this way.
    pub(crate) fn names(mut self, names: Arc<dyn Names>) -> Self {
        self.names = names;
        self
    }

    /// Names the repository to read.
    pub(crate) fn reading(mut self, repository: &str) -> Self {
        self.request.test_repository = Some(repository.to_owned());
        self
    }

    /// Says what the target is.
    pub(crate) fn scope(mut self, scope: Scope) -> Self {
        self.request.scope = Some(scope);
        self
    }

    /// Names the target by the server.
    pub(crate) fn by_server(mut self, project: Option<&str>, repository: Option<&str>) -> Self {
        self.request.target = TargetSpec::Server {
            name: NAME.to_owned(),
            project: project.map(str::to_owned),
            repository: repository.map(str::to_owned),
        };
        self
    }

    /// Gives it only so much of everything else.
    pub(crate) fn limited(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Gives it only so much time.
    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it as the agent would: policy is asked first.
    pub(crate) async fn run(&self) -> Outcome {
        let task = Task::ConnectionTest(self.request.clone());
        self.carry_out(&task).await
    }

    /// Clones the target instead of testing it.
    pub(crate) async fn clone_into(&self, directory: &Path) -> Outcome {
        self.clone_of(None, directory).await
    }

    /// The same with so many commits of history.
    pub(crate) async fn clone_of(&self, depth: Option<u32>, directory: &Path) -> Outcome {
        self.clone_at(None, depth, directory).await
    }

    /// The same of a reference.
    pub(crate) async fn clone_at(
        &self,
        reference: Option<&str>,
        depth: Option<u32>,
        directory: &Path,
    ) -> Outcome {
        let reference = reference.map(str::to_owned);
        let task = Task::Clone(clone::Request {
            target: self.request.target.clone(),
            provider: self.request.provider,
            credential: self.request.credential.clone(),
            want: Want { reference, depth, ..Want::default() },
            paths: Vec::new(),
            lfs: false,
            submodules: Submodules::default(),
            destination: clone::Destination::Directory(directory.to_owned()),
        });
        self.carry_out(&task).await
    }

    /// Lists references of the target instead of testing it.
    pub(crate) async fn references(&self, patterns: &[&str], limit: usize) -> Outcome {
        let patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let task = Task::References(references::Request {
            target: self.request.target.clone(),
            provider: self.request.provider,
            credential: self.request.credential.clone(),
            wanted: ListRequest { patterns, limit },
        });
        self.carry_out(&task).await
    }

    /// Reads files of the target instead of testing it. Nothing is left on the disk after that.
    pub(crate) async fn files(&self, reference: Option<&str>, paths: &[&str]) -> Outcome {
        let task = Task::Files(files::Request {
            target: self.request.target.clone(),
            provider: self.request.provider,
            credential: self.request.credential.clone(),
            reference: reference.map(str::to_owned),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        });
        let outcome = self.carry_out(&task).await;
        let left = std::fs::read_dir(self.workspaces()).map_or(0, Iterator::count);
        assert_eq!(left, 0, "something is left among the workspaces");
        outcome
    }

    /// Compares a reference of the target with a commit instead of testing it.
    pub(crate) async fn compare(&self, reference: Option<&str>, commit: &str) -> Outcome {
        let task = Task::Compare(compare::Request {
            target: self.request.target.clone(),
            provider: self.request.provider,
            credential: self.request.credential.clone(),
            reference: reference.map(str::to_owned),
            commit: commit.to_owned(),
        });
        self.carry_out(&task).await
    }

    fn workspaces(&self) -> PathBuf {
        self.directory.path().join("workspaces")
    }

    async fn carry_out(&self, task: &Task) -> Outcome {
        let tools = Tools {
            engine: self.engine,
            mirrors: None,
            door: Arc::new(Door::with_names(ProxyEnvironment::none(), Arc::clone(&self.names))),
            policy: Arc::new(Policy::new([self.server.clone()])),
            credentials: Arc::new(Store::new(self.credentials.clone())),
            limits: self.limits,
            temporary: self.workspaces(),
            workspaces: None,
            uploads: None,
        };
        let mut control = Control::new(Instant::now() + self.deadline, self.cancel.clone());
        control.limits = self.limits;
        let log = StageLog::default();
        let report = run(task, &tools, &control, &log).await;
        let refused = admit(task, &tools).err();
        let code = report.diagnosis().map(|diagnosis| diagnosis.code);
        // Whoever asks policy alone hears the same as whoever runs the task.
        assert!(
            refused.as_ref().is_none_or(|refused| Some(refused.code) == code),
            "{refused:?} and {code:?}"
        );
        let outcome = Outcome(serde_json::to_value(report.to_wire()).expect("a report in JSON"));
        outcome.check_form();
        outcome
    }
}

impl Outcome {
    /// The code and the stage of the diagnosis; empty where there is none.
    pub(crate) fn diagnosis(&self) -> (&str, &str) {
        let text = |key| self.0["diagnosis"][key].as_str().unwrap_or_default();
        (text("code"), text("stage"))
    }

    /// The stages with this status, in their order.
    pub(crate) fn stages(&self, status: &str) -> Vec<&str> {
        let stages = self.0["stages"].as_array().expect("stages").iter();
        stages.filter(|stage| stage["status"] == status).filter_map(|stage| stage["stage"].as_str()).collect()
    }

    /// The facts of a stage.
    pub(crate) fn facts(&self, stage: &str) -> &Value {
        let stages = self.0["stages"].as_array().expect("stages");
        stages.iter().find(|found| found["stage"] == stage).map_or(&Value::Null, |found| &found["facts"])
    }

    /// The codes of the warnings, without `slow`: a machine that runs many tests at once is slow at times.
    pub(crate) fn warnings(&self) -> Vec<&str> {
        let warnings = self.0["warnings"].as_array().expect("warnings").iter();
        warnings.filter_map(|warning| warning["code"].as_str()).filter(|code| *code != "slow").collect()
    }

    /// Whether it succeeded.
    pub(crate) fn succeeded(&self) -> bool {
        self.0["outcome"] == "succeeded"
    }

    /// What holds for every report.
    fn check_form(&self) {
        let failed = self.stages("failed");
        let (_, stage) = self.diagnosis();
        assert_eq!(failed, if self.succeeded() { vec![] } else { vec![stage] }, "{:#}", self.0);
        let stages = self.0["stages"].as_array().expect("stages");
        let after = stages.iter().skip_while(|found| found["status"] != "failed").skip(1);
        assert!(after.clone().all(|found| found["status"] == "skipped"), "{:#}", self.0);
        let mut names: Vec<_> = stages.iter().map(|found| found["stage"].as_str()).collect();
        names.dedup();
        assert_eq!(names.len(), stages.len(), "a stage stands twice: {:#}", self.0);
        if !self.succeeded() {
            assert!(!self.0["diagnosis"]["remedies"].as_array().expect("remedies").is_empty());
        }
    }
}
