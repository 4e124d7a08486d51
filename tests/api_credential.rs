//! REST beside git: an SSH key, a password or a token for git alone with a token of its own for the API.

use std::path::Path;

use serde_json::json;
use sortie::config::{CredentialSource, SecretSource};
use sortie::credential::CredentialKind;
use sortie::provider::Provider;
use sortie::remote_url::RemoteUrl;
use stand_ins::{Fault, RecordedRequest, ServerHandle};

use crate::connection_test::{AZURE_PAT, GITLAB_PAT, Lab};
use crate::support::binary::sortie;
use crate::support::process::write_private;
use crate::support::sshd::{Key, KeyKind, Sshd};
use crate::trial::{Outcome, Trial};

/// Both stand-ins, and an sshd that serves the same repositories.
struct Ways {
    lab: Lab,
    sshd: Sshd,
    key: Key,
}

impl Ways {
    fn start() -> Self {
        let lab = Lab::start();
        let key = Key::make(lab.scratch.path(), "key", KeyKind::Rsa, None);
        let sshd = Sshd::plan(&[KeyKind::Ed25519])
            .authorize(&key)
            .serve("shop/sub/web.git", &lab.sample.directory)
            .serve("shop/hidden.git", &lab.sample.directory)
            .serve("old/web.git", &lab.sample.directory)
            .serve("Coll/My Shop/_git/web", &lab.sample.directory)
            .start();
        Self { lab, sshd, key }
    }

    /// A test by SSH of a path on a server that is declared for both ways.
    fn by_ssh(&self, provider: Provider, path: &str) -> Trial {
        let server = match provider {
            Provider::AzureDevops => self.lab.azure(),
            _ => self.lab.gitlab(),
        };
        let mut trial = Trial::of(Some(provider), &server.url(), &format!("{}{path}", self.sshd.url()));
        trial.server.ssh = Some(RemoteUrl::parse(&self.sshd.url()).unwrap());
        trial.trust(self.lab.authority.ca_file()).key(&self.key.private_file, None, &self.sshd.known_hosts())
    }
}

fn expect(outcome: &Outcome, code: &str, stage: &str) {
    assert_eq!(outcome.diagnosis(), (code, stage), "{:#}", outcome.0);
}

fn with_credential(server: &ServerHandle) -> Vec<RecordedRequest> {
    server.requests().into_iter().filter(|request| request.has_authorization).collect()
}

const ALL_BY_BOTH_WAYS: [&str; 9] = [
    "policy",
    "resolve",
    "connect",
    "host_key",
    "identify",
    "authenticate",
    "authorize",
    "repository",
    "references",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_ssh_key_gets_the_stages_of_the_api_by_a_token_of_its_own() {
    let ways = Ways::start();
    let gitlab = ways.by_ssh(Provider::Gitlab, "/shop/sub/web.git").api_pat(GITLAB_PAT).run().await;
    assert!(gitlab.succeeded() && gitlab.warnings().is_empty(), "{:#}", gitlab.0);
    assert_eq!(gitlab.stages("passed"), ALL_BY_BOTH_WAYS);
    assert_eq!(gitlab.0["credential"]["kind"], "ssh-key");
    assert_eq!(gitlab.0["credential"]["scopes"], json!(["read_repository", "read_api"]));
    assert_eq!(gitlab.0["capabilities"]["set_status"], "no");
    assert_eq!(gitlab.0["capabilities"]["read_code"], "yes");
    assert_eq!(gitlab.0["repository"]["head"], ways.lab.sample.commit("main"));
    assert_eq!(gitlab.facts("host_key")["fingerprint"], ways.sshd.fingerprint(0));
    let git_by_https = ways.lab.gitlab().requests().into_iter().find(|r| r.path.contains("info/refs"));
    assert_eq!(git_by_https, None, "git uses its key");
    let azure = ways.by_ssh(Provider::AzureDevops, "/Coll/My%20Shop/_git/web").api_pat(AZURE_PAT).run().await;
    assert!(azure.succeeded(), "{:#}", azure.0);
    assert_eq!(azure.stages("passed"), ALL_BY_BOTH_WAYS);
    assert_eq!(azure.0["server"]["product"], "Azure DevOps Server");
    assert_eq!(azure.0["target"]["scope"], "repository");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_gets_the_stages_of_the_api_by_a_token_of_its_own() {
    let ways = Ways::start();
    let trial =
        ways.lab.on_gitlab("/shop/sub/web").secret(CredentialKind::Password, Some("ada"), "password-canary");
    let outcome = trial.api_pat(GITLAB_PAT).run().await;
    assert!(outcome.succeeded() && outcome.warnings().is_empty(), "{:#}", outcome.0);
    assert!(outcome.stages("passed").contains(&"authorize"), "{:#}", outcome.0);
    assert_eq!(outcome.0["credential"]["kind"], "password");
    assert_eq!(outcome.0["identity"]["name"], "ada");
    let sent = with_credential(ways.lab.gitlab());
    for request in &sent {
        let expected = if request.path.contains("/api/") { "PRIVATE-TOKEN" } else { "Basic" };
        assert_eq!(request.authorization_scheme.as_deref(), Some(expected), "{request:?}");
    }
    let group = ways.lab.on_gitlab("/shop").secret(CredentialKind::Password, Some("ada"), "password-canary");
    let group = group.api_pat(GITLAB_PAT).run().await;
    assert!(group.succeeded(), "{:#}", group.0);
    assert_eq!(group.facts("authorize")["test_repository"], "shop/sub/web");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_api_refuses_is_a_warning_where_git_works() {
    let ways = Ways::start();
    let password = || {
        ways.lab.on_gitlab("/shop/sub/web").secret(CredentialKind::Password, Some("ada"), "password-canary")
    };
    let ssh = || ways.by_ssh(Provider::Gitlab, "/shop/sub/web.git");
    for trial in [ssh(), password()] {
        ways.lab.gitlab().clear_requests();
        let outcome = trial.api_pat("wrong").run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.warnings(), ["api_refused"]);
        assert_eq!(outcome.stages("warned"), ["authenticate"]);
        let summary = outcome.0["warnings"][0]["summary"].as_str().unwrap();
        assert!(summary.contains("pat_rejected"), "{summary}");
        let to_api =
            with_credential(ways.lab.gitlab()).into_iter().filter(|request| request.path.contains("/api/"));
        assert_eq!(to_api.count(), 1, "a refused token goes out once");
    }
    let azure = ways.by_ssh(Provider::AzureDevops, "/Coll/My%20Shop/_git/web").api_pat("wrong").run().await;
    assert!(azure.succeeded() && azure.warnings() == ["api_refused"], "{:#}", azure.0);
    let hidden = ways.by_ssh(Provider::Gitlab, "/shop/hidden.git").api_pat(GITLAB_PAT).run().await;
    assert!(hidden.succeeded() && hidden.warnings() == ["api_refused"], "{:#}", hidden.0);
    ways.lab.gitlab().set_fault(Fault::ServerError(503));
    let down = ssh().api_pat(GITLAB_PAT).run().await;
    assert!(down.succeeded() && down.warnings() == ["api_refused"], "{:#}", down.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn git_failing_is_the_failure_whatever_the_api_says() {
    let ways = Ways::start();
    let wrong = ways.lab.on_gitlab("/shop/sub/web").secret(CredentialKind::Password, Some("ada"), "wrong");
    expect(&wrong.api_pat(GITLAB_PAT).run().await, "password_rejected", "authenticate");
    let mut changed = ways.by_ssh(Provider::Gitlab, "/shop/sub/web.git").api_pat(GITLAB_PAT);
    changed.server.known_hosts_file = Some(ways.sshd.known_hosts_changed());
    let changed = changed.run().await;
    expect(&changed, "host_key_changed", "host_key");
    assert_eq!(
        changed.stages("skipped"),
        ["identify", "authenticate", "authorize", "repository", "references"]
    );
    assert_eq!(changed.0["server"]["product"], "GitLab", "what the API told stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_for_git_as_well_ends_the_test() {
    let ways = Ways::start();
    let moved = ways.by_ssh(Provider::Gitlab, "/old/web.git").api_pat(GITLAB_PAT).run().await;
    expect(&moved, "repository_moved", "repository");
    let missing = ways.by_ssh(Provider::Gitlab, "/shop/nope.git").api_pat(GITLAB_PAT).run().await;
    expect(&missing, "repository_not_found_or_denied", "repository");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_rest_alone_is_not_lent_to_git() {
    let ways = Ways::start();
    let mut trial = ways.by_ssh(Provider::Gitlab, "/shop/sub/web.git").api_pat(GITLAB_PAT);
    trial.request.credential = trial.server.api_credential.clone();
    expect(&trial.run().await, "task_not_allowed", "policy");
    let missing = Trial::of(
        Some(Provider::Gitlab),
        &ways.lab.gitlab().url(),
        &format!("{}/shop/sub/web", ways.lab.gitlab().url()),
    );
    let missing = missing.secret(CredentialKind::Password, Some("ada"), "password-canary");
    let source = CredentialSource {
        kind: CredentialKind::Pat,
        username: None,
        secret: SecretSource::File(Path::new("/nonexistent/token").into()),
        passphrase: None,
        strict_modes: true,
    };
    let missing = missing.trust(ways.lab.authority.ca_file()).api_credential(source);
    expect(&missing.run().await, "credential_missing", "authenticate");
}

#[test]
fn the_command_line_takes_a_token_for_rest_beside_a_key() {
    let ways = Ways::start();
    let scratch = ways.lab.scratch.path();
    let file = |name: &str, content: &str| {
        write_private(&scratch.join(name), content).unwrap();
        scratch.join(name).display().to_string()
    };
    let token = file("rest.txt", &format!("{GITLAB_PAT}\n"));
    let known_hosts = ways.sshd.known_hosts().display().to_string();
    let key = ways.key.private_file.display().to_string();
    let url = format!("{}/shop/sub/web.git", ways.sshd.url());
    let flags = ["--ssh-key", &key, "--known-hosts", &known_hosts, "--api-pat-file", &token, "--json"];
    let declared = format!(
        "[servers.lab]\nprovider = \"gitlab\"\nurl = \"{}\"\nssh = \"{}\"\nca_file = \"{}\"\n",
        ways.lab.gitlab().url(),
        ways.sshd.url(),
        ways.lab.authority.ca_file().display()
    );
    let config = file("config.toml", &declared);
    let output = sortie(["test", &url, "--config", &config].iter().chain(&flags));
    assert_eq!(output.status, Some(0), "{output:?}");
    let report = output.json();
    assert_eq!(report["credential"]["scopes"], json!(["read_repository", "read_api"]));
    assert_eq!(report["warnings"], json!([]));
    // Without a configuration, REST is at the same host's own port for HTTPS, and nothing listens there.
    let alone = sortie(["test", &url, "--provider", "gitlab"].iter().chain(&flags));
    assert_eq!(alone.status, Some(0), "{alone:?}");
    let warning = &alone.json()["warnings"][0];
    assert_eq!(warning["code"], "api_refused", "{warning}");
    assert!(warning["summary"].as_str().unwrap().contains("connection_refused"), "{warning}");
}
