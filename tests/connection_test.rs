//! Connection tests that succeed, on both providers and on plain git, over HTTPS and SSH.

use std::path::Path;

use sortie::credential::CredentialKind;
use sortie::provider::{Provider, Scope};
use stand_ins::{
    Authority, AzureDevOps, Fault, Gitlab, Release, Repository, Running, ServerHandle, StandIns, Token,
    TokenKind, World,
};
use tempfile::TempDir;

use crate::support::nginx::Nginx;
use crate::support::repository::SampleRepository;
use crate::support::sshd::{Key, KeyKind, Sshd};
use crate::trial::Trial;

pub(crate) const AZURE_PAT: &str = "azure-canary-token";
pub(crate) const GITLAB_PAT: &str = "glpat-canary-token";
const DEPLOY_TOKEN: &str = "gldt-canary-token";
const GIT_ONLY_PAT: &str = "glpat-git-only";
const API_ONLY_PAT: &str = "glpat-api-only";
const OAUTH_TOKEN: &str = "oauth-canary-token";

/// Both stand-ins with a few repositories.
pub(crate) struct Lab {
    running: Running,
    pub(crate) authority: Authority,
    pub(crate) sample: SampleRepository,
    pub(crate) scratch: TempDir,
}

impl Lab {
    pub(crate) fn start() -> Self {
        Self::with(AzureDevOps::default(), Gitlab::default())
    }

    pub(crate) fn with(azure: AzureDevOps, gitlab: Gitlab) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let sample = SampleRepository::small(&scratch.path().join("web.git"));
        let empty = SampleRepository::empty(&scratch.path().join("empty.git"));
        let authority = Authority::create(scratch.path()).unwrap();
        let world = world(azure, gitlab, &sample.directory, &empty.directory);
        let running = StandIns::start(world, &authority).unwrap();
        Self { running, authority, sample, scratch }
    }

    pub(crate) fn azure(&self) -> &ServerHandle {
        self.running.azure.as_ref().unwrap()
    }

    pub(crate) fn gitlab(&self) -> &ServerHandle {
        self.running.gitlab.as_ref().unwrap()
    }

    pub(crate) fn on_azure(&self, path: &str) -> Trial {
        let base = self.azure().url();
        Trial::of(Some(Provider::AzureDevops), &base, &format!("{base}{path}"))
            .trust(self.authority.ca_file())
            .pat(AZURE_PAT)
    }

    pub(crate) fn on_gitlab(&self, path: &str) -> Trial {
        let base = self.gitlab().url();
        Trial::of(Some(Provider::Gitlab), &base, &format!("{base}{path}"))
            .trust(self.authority.ca_file())
            .pat(GITLAB_PAT)
    }
}

fn world(azure: AzureDevOps, gitlab: Gitlab, web: &Path, empty: &Path) -> World {
    let token = |secret, scopes: &[&str]| Token::new("ada", secret, scopes);
    World::new()
        .with_azure_devops(azure)
        .with_gitlab(gitlab)
        .with_user("ada", "password-canary")
        .with_pat("ada", AZURE_PAT, &["vso.code", "vso.project"])
        .with_pat("ada", "azure-full-access", &["app_token"])
        .with_pat("ada", "azure-code-only", &["vso.code"])
        .with_pat("ada", "azure-project-only", &["vso.project"])
        .with_pat("ada", "azure-work-only", &["vso.work"])
        .with_pat("ada", GITLAB_PAT, &["read_repository", "read_api"])
        .with_pat("ada", GIT_ONLY_PAT, &["read_repository"])
        .with_pat("ada", API_ONLY_PAT, &["read_api"])
        .with_token(token("glpat-expired", &["read_repository", "read_api"]).expired())
        .with_token(token("glpat-revoked", &["read_repository", "read_api"]).revoked())
        .with_token(token(DEPLOY_TOKEN, &["read_repository"]).of_kind(TokenKind::Deploy))
        .with_token(
            token(OAUTH_TOKEN, &["read_repository", "read_api", "vso.code", "vso.project"])
                .of_kind(TokenKind::Oauth),
        )
        .with_repository(Repository::azure_devops("Coll", "My Shop", "web", web).read_by("ada"))
        .with_repository(Repository::azure_devops("Coll", "tools", "tools", web).read_by("ada"))
        .with_repository(Repository::azure_devops("Coll", "My Shop", "empty", empty).read_by("ada"))
        .with_repository(Repository::azure_devops("Coll", "My Shop", "old", web).read_by("ada").disabled())
        .with_repository(Repository::gitlab("shop/sub/web", web).read_by("ada").moved_from("old/web"))
        .with_repository(Repository::gitlab("shop/empty", empty).read_by("ada"))
        .with_repository(Repository::gitlab("shop/hidden", web))
}

const ALL_HTTPS: [&str; 9] = [
    "policy",
    "resolve",
    "connect",
    "tls",
    "identify",
    "authenticate",
    "authorize",
    "repository",
    "references",
];

#[tokio::test(flavor = "multi_thread")]
async fn azure_devops_succeeds_with_a_pat_although_it_offers_windows_schemes_too() {
    let lab = Lab::start();
    let outcome = lab.on_azure("/Coll/My%20Shop/_git/web").run().await;
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    assert_eq!(outcome.stages("passed"), ALL_HTTPS);
    assert_eq!(outcome.facts("identify")["schemes"].as_array().unwrap().len(), 4);
    let report = &outcome.0;
    assert_eq!(report["target"]["scope"], "repository");
    assert_eq!(report["server"]["product"], "Azure DevOps Server");
    assert_eq!(report["server"]["version"], "2022");
    assert_eq!(report["server"]["api_version"], "7.0");
    assert_eq!(report["identity"]["name"], "ada");
    assert_eq!(report["repository"]["default_branch"], "main");
    assert_eq!(report["repository"]["head"], lab.sample.commit("main"));
    assert_eq!(report["capabilities"]["read_code"], "yes");
    assert_eq!(outcome.warnings(), Vec::<&str>::new());
    // The only scheme that a token works with is the only one that was ever sent.
    let sent: Vec<_> = lab.azure().requests().into_iter().filter_map(|r| r.authorization_scheme).collect();
    assert!(!sent.is_empty() && sent.iter().all(|scheme| scheme == "Basic"), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_devops_is_found_in_every_form_of_its_urls() {
    let settings =
        AzureDevOps { base_path: "/tfs".into(), release: Release::V2019, ..AzureDevOps::default() };
    let lab = Lab::with(settings, Gitlab::default());
    for path in ["/Coll/My%20Shop/_git/web", "/coll/my%20shop/_git/_full/web", "/Coll/_git/tools"] {
        let outcome = lab.on_azure(path).run().await;
        assert!(outcome.succeeded(), "{path}: {:#}", outcome.0);
        assert_eq!(outcome.0["server"]["version"], "2019");
    }
    let mut unnamed = lab.on_azure("/Coll/My%20Shop/_git/web");
    unnamed.server.provider = None;
    let outcome = unnamed.run().await;
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    assert_eq!(outcome.0["target"]["provider"], "azure-devops");
    let by_name = lab.on_azure("").by_server(Some("Coll/My Shop"), Some("web")).run().await;
    assert!(by_name.succeeded(), "{:#}", by_name.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_projects_and_collections_read_a_repository_where_they_can() {
    let lab = Lab::start();
    let project = lab.on_azure("/Coll/My%20Shop").run().await;
    assert!(project.succeeded(), "{:#}", project.0);
    assert_eq!(project.0["target"]["scope"], "project");
    assert_eq!(project.facts("authorize")["test_repository"], "My Shop/web");
    assert_eq!(project.facts("repository")["test_repository"], "My Shop/web");
    assert_eq!(project.0["repository"]["default_branch"], "main");
    let account = lab.on_azure("/Coll").reading("tools").run().await;
    assert!(account.succeeded(), "{:#}", account.0);
    assert_eq!(account.0["target"]["scope"], "account");
    assert_eq!(account.facts("authorize")["test_repository"], "tools");
    let without = lab.on_azure("/Coll").pat("azure-project-only").run().await;
    assert!(without.succeeded(), "{:#}", without.0);
    assert_eq!(without.warnings(), ["git_not_tried"]);
    // The scope that is enough for git is enough to find a repository.
    for (path, call) in [("/Coll", "the list of projects"), ("/Coll/My%20Shop", "the project's entry")] {
        let code_only = lab.on_azure(path).pat("azure-code-only").run().await;
        assert!(code_only.succeeded(), "{path}: {:#}", code_only.0);
        assert_eq!(code_only.warnings(), ["api_refused"]);
        let summary = code_only.0["warnings"][0]["summary"].as_str().unwrap();
        assert!(summary.contains(&format!("{call} needs the scope vso.project")), "{summary}");
        assert_eq!(code_only.0["capabilities"]["read_code"], "yes");
        assert_eq!(code_only.0["capabilities"]["read_projects"], "no");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_repositories_that_is_too_long_is_gone_without() {
    let lab = Lab::start();
    lab.azure().set_fault_at("_apis/git/repositories?", Fault::HugeBody);
    lab.gitlab().set_fault_at("per_page=20", Fault::HugeBody);
    let trials =
        [lab.on_azure("/Coll"), lab.on_azure("/Coll/My%20Shop"), lab.on_gitlab("").by_server(None, None)];
    for trial in trials {
        let outcome = trial.run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.warnings(), ["git_not_tried"]);
        let summary = outcome.0["warnings"][0]["summary"].as_str().unwrap();
        assert!(summary.contains("too long to choose from"), "{summary}");
    }
    let named = lab.on_azure("/Coll").reading("tools").run().await;
    assert!(named.succeeded() && named.warnings().is_empty(), "{:#}", named.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_git_takes_succeeds_whatever_the_api_says() {
    let lab = Lab::start();
    let azure = lab.on_azure("/Coll/My%20Shop/_git/web").pat("azure-code-only").run().await;
    assert!(azure.succeeded(), "{:#}", azure.0);
    assert_eq!(azure.warnings(), ["api_refused"]);
    assert_eq!(azure.stages("warned"), ["authorize"]);
    let gitlab = lab.on_gitlab("/shop/sub/web").pat(GIT_ONLY_PAT).run().await;
    assert!(gitlab.succeeded(), "{:#}", gitlab.0);
    assert_eq!(gitlab.warnings(), ["api_refused"]);
    let deploy = lab.on_gitlab("/shop/sub/web");
    let deploy = deploy.secret(CredentialKind::Pat, Some("gitlab+deploy-token-1"), DEPLOY_TOKEN).run().await;
    assert!(deploy.succeeded(), "{:#}", deploy.0);
    assert_eq!(deploy.warnings(), ["api_refused"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_succeeds_with_a_pat_and_tells_what_the_token_may_do() {
    let lab = Lab::start();
    let outcome = lab.on_gitlab("/shop/sub/web.git").run().await;
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    assert_eq!(outcome.stages("passed"), ALL_HTTPS);
    let report = &outcome.0;
    assert_eq!(report["server"]["version"], Gitlab::default().version);
    assert_eq!(report["identity"]["name"], "ada");
    assert_eq!(report["credential"]["scopes"], serde_json::json!(["read_repository", "read_api"]));
    assert!(report["credential"]["expires_at"].is_string());
    assert_eq!(report["capabilities"]["set_status"], "no");
    assert_eq!(report["repository"]["head"], lab.sample.commit("main"));
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_is_found_below_its_relative_root() {
    for version in ["15.0.1", "14.9.0"] {
        let settings =
            Gitlab { relative_root: "/gitlab".into(), version: version.into(), ..Gitlab::default() };
        let lab = Lab::with(AzureDevOps::default(), settings);
        let declared = lab.on_gitlab("/shop/sub/web").run().await;
        assert!(declared.succeeded(), "{:#}", declared.0);
        let mut unnamed = lab.on_gitlab("/shop/sub/web");
        unnamed.server.provider = None;
        let outcome = unnamed.run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["target"]["provider"], "gitlab");
        assert_eq!(outcome.0["server"]["version"], version);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_takes_every_kind_of_credential_and_finds_what_a_proxy_hides() {
    let settings = Gitlab { decodes_slashes: true, ..Gitlab::default() };
    let lab = Lab::with(AzureDevOps::default(), settings);
    let hidden = lab.on_gitlab("/shop/sub/web").run().await;
    assert!(hidden.succeeded(), "{:#}", hidden.0);
    let oauth = lab.on_gitlab("/shop/sub/web").secret(CredentialKind::Bearer, None, OAUTH_TOKEN).run().await;
    assert!(oauth.succeeded(), "{:#}", oauth.0);
    let password = lab.on_gitlab("/shop/sub/web");
    let password = password.secret(CredentialKind::Password, Some("ada"), "password-canary").run().await;
    assert!(password.succeeded(), "{:#}", password.0);
    assert_eq!(password.0["credential"]["kind"], "password");
    let asked = lab.gitlab().requests();
    let wrong = asked
        .iter()
        .filter(|r| r.path.contains("/api/") && r.authorization_scheme.as_deref() == Some("Basic"));
    assert_eq!(wrong.count(), 0, "a password is for git alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlab_groups_and_roots_read_a_repository_where_they_can() {
    let lab = Lab::start();
    let group = lab.on_gitlab("/shop").reading("sub/web").scope(Scope::Account);
    let group = group.reading("shop/sub/web").run().await;
    assert!(group.succeeded(), "{:#}", group.0);
    assert_eq!(group.0["target"]["scope"], "account");
    let root = lab.on_gitlab("").by_server(None, None).run().await;
    assert!(root.succeeded(), "{:#}", root.0);
    assert_eq!(root.facts("authorize")["test_repository"], "shop/sub/web");
    assert_eq!(root.facts("repository")["test_repository"], "shop/sub/web");
    let page = lab.on_gitlab("/shop/sub/web/-/tree/main").run().await;
    assert!(page.succeeded(), "{:#}", page.0);
    let shown = page.0["target"]["url"].as_str().unwrap();
    assert!(shown.ends_with("/shop/sub/web"), "{shown}");
    let subgroup = lab.on_gitlab("/shop/sub").reading("web").run().await;
    assert!(subgroup.succeeded(), "{:#}", subgroup.0);
    assert_eq!(subgroup.0["target"]["scope"], "account");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_repository_is_a_warning_for_a_test_and_a_failure_for_a_clone() {
    let lab = Lab::start();
    for trial in [lab.on_azure("/Coll/My%20Shop/_git/empty"), lab.on_gitlab("/shop/empty")] {
        let outcome = trial.run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.warnings(), ["repository_empty"]);
        assert_eq!(
            (&outcome.0["repository"]["empty"], &outcome.0["repository"]["references"]),
            (&true.into(), &0.into())
        );
        let clone = trial.clone_into(&lab.scratch.path().join("never")).await;
        assert_eq!(clone.diagnosis(), ("repository_empty", "references"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_git_server_is_tested_by_git_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let sample = SampleRepository::small(&root.join("web.git"));
    let authority = Authority::create(scratch.path()).unwrap();
    let nginx =
        Nginx::plan(&root).accept_pat("plain-canary").accept_bearer("bearer-canary").start(&authority);
    let url = format!("{}/web.git", nginx.url());
    for provider in [Some(Provider::Git), None] {
        let trial = Trial::of(provider, &nginx.url(), &url).trust(authority.ca_file());
        let outcome = trial.pat("plain-canary").run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["target"]["provider"], "git");
        assert_eq!(outcome.0["repository"]["head"], sample.commit("main"));
    }
    let trial = Trial::of(Some(Provider::Git), &nginx.url(), &url).trust(authority.ca_file());
    let bearer = trial.secret(CredentialKind::Bearer, None, "bearer-canary").run().await;
    assert!(bearer.succeeded(), "{:#}", bearer.0);
    let expected = ["policy", "resolve", "connect", "tls", "authenticate", "repository", "references"];
    assert_eq!(bearer.stages("passed"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_providers_succeed_over_ssh() {
    let scratch = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&scratch.path().join("web.git"));
    let ed25519 = Key::make(scratch.path(), "ed25519", KeyKind::Ed25519, None);
    let rsa = Key::make(scratch.path(), "rsa", KeyKind::Rsa, Some("open sesame"));
    let sshd = Sshd::plan(&[KeyKind::Ed25519, KeyKind::Rsa])
        .authorize(&ed25519)
        .authorize(&rsa)
        .serve("shop/web.git", &sample.directory)
        .serve("Coll/Shop/_git/web", &sample.directory)
        .start();
    let cases = [
        (Provider::Gitlab, "/shop/web.git", &ed25519, None),
        (Provider::AzureDevops, "/Coll/Shop/_git/web", &rsa, Some("open sesame")),
        (Provider::Git, "/shop/web", &ed25519, None),
    ];
    for (provider, path, key, passphrase) in cases {
        let trial = Trial::of(Some(provider), &sshd.url(), &format!("{}{path}", sshd.url()));
        let outcome = trial.key(&key.private_file, passphrase, &sshd.known_hosts()).run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["target"]["provider"], provider.as_str());
        assert_eq!(outcome.0["repository"]["head"], sample.commit("main"));
        assert_eq!(outcome.facts("host_key")["fingerprint"], sshd.fingerprint(0));
        let expected =
            ["policy", "resolve", "connect", "host_key", "authenticate", "repository", "references"];
        assert_eq!(outcome.stages("passed"), expected);
    }
}
