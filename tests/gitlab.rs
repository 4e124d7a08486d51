//! GitLab's own ways, and what a connection test makes of each: tokens of every kind, releases, places that are
//! hidden, moved or archived, and what the token may do.

use sortie::credential::CredentialKind;
use sortie::provider::{Provider, Scope};
use sortie::remote_url::RemoteUrl;
use stand_ins::{
    Authority, Fault, Gitlab, Repository, Running, ServerHandle, StandIns, Token, TokenKind, User, World,
};
use tempfile::TempDir;

use crate::support::repository::SampleRepository;
use crate::trial::{Outcome, Trial};

const READ: [&str; 2] = ["read_repository", "read_api"];
const WEB: &str = "/shop/sub/web";

/// A GitLab with tokens of every kind.
struct Scene {
    running: Running,
    authority: Authority,
    sample: SampleRepository,
    _scratch: TempDir,
}

impl Scene {
    fn start() -> Self {
        Self::with(Gitlab::default())
    }

    fn with(settings: Gitlab) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let sample = SampleRepository::small(&scratch.path().join("web.git"));
        let authority = Authority::create(scratch.path()).unwrap();
        let directory = sample.directory.clone();
        let project = |path: &str| Repository::gitlab(path, &directory).read_by("ada");
        let token = |secret, scopes: &[&str]| Token::new("ada", secret, scopes);
        let mut world = World::new()
            .with_gitlab(settings)
            .with_user("ada", "password-canary")
            .with_pat("ada", "glpat-read", &READ)
            .with_pat("ada", "glpat-api", &["api"])
            .with_pat("ada", "glpat-git", &["read_repository"])
            .with_pat("ada", "glpat-root", &["api", "sudo", "write_repository", "self_rotate"])
            .with_token(token("project", &READ).of_kind(TokenKind::Project))
            .with_token(token("group", &READ).of_kind(TokenKind::Group))
            .with_token(token("glcbt-job", &["read_repository"]).of_kind(TokenKind::Job))
            .with_token(token("deploy", &["read_repository"]).of_kind(TokenKind::Deploy))
            .with_token(token("oauth", &["api"]).of_kind(TokenKind::Oauth))
            .with_token(token("glpat-soon", &READ).expires_in_days(20))
            .with_repository(project("shop/sub/web").moved_from("old/web").at_access_level(40))
            .with_repository(project("shop/reported").at_access_level(20))
            .with_repository(project("shop/developed").at_access_level(30))
            .with_repository(project("shop/untold").at_access_level(0))
            .with_repository(project("shop/museum").archived())
            .with_repository(project("shop/closed").disabled());
        let carol = User { name: "carol".into(), password: Some("password-canary".into()), two_factor: true };
        world.users.push(carol);
        let running = StandIns::start(world, &authority).unwrap();
        Self { running, authority, sample, _scratch: scratch }
    }

    fn server(&self) -> &ServerHandle {
        self.running.gitlab.as_ref().unwrap()
    }

    fn on(&self, path: &str) -> Trial {
        let base = self.server().url();
        Trial::of(Some(Provider::Gitlab), &base, &format!("{base}{path}")).trust(self.authority.ca_file())
    }

    /// A test of a path with a token.
    async fn by(&self, token: &str, path: &str) -> Outcome {
        self.on(path).pat(token).run().await
    }
}

fn expect(outcome: &Outcome, code: &str, stage: &str) {
    assert_eq!(outcome.diagnosis(), (code, stage), "{:#}", outcome.0);
}

fn summary(outcome: &Outcome) -> &str {
    outcome.0["diagnosis"]["summary"].as_str().unwrap()
}

fn remedy(outcome: &Outcome) -> &str {
    outcome.0["diagnosis"]["remedies"][0].as_str().unwrap()
}

/// 403 in GitLab's own form.
fn forbidden(message: &str) -> Fault {
    let body = serde_json::json!({ "message": format!("403 Forbidden - {message}") }).to_string();
    Fault::Words { status: 403, content_type: "application/json", body }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_token_says_what_it_is() {
    let scene = Scene::start();
    for (token, kind, user) in [
        ("glpat-read", "personal", "ada"),
        ("project", "project", "project_1_bot_ada"),
        ("group", "group", "group_1_bot_ada"),
    ] {
        let outcome = scene.by(token, WEB).await;
        assert!(outcome.succeeded() && outcome.warnings().is_empty(), "{:#}", outcome.0);
        assert_eq!(outcome.facts("authenticate")["token_kind"], kind);
        assert_eq!(outcome.facts("authenticate")["rate_limit"], 2000);
        assert_eq!(outcome.facts("authenticate")["rate_limit_remaining"], 1999);
        assert_eq!(outcome.0["identity"]["name"], user);
    }
    let oauth = scene.on(WEB).secret(CredentialKind::Bearer, None, "oauth").run().await;
    assert!(oauth.succeeded() && oauth.warnings().is_empty(), "{:#}", oauth.0);
    assert_eq!(oauth.facts("authenticate")["token_kind"], "oauth");
    assert_eq!(oauth.0["credential"]["scopes"], serde_json::json!(["api"]));
    assert!(oauth.0["credential"]["expires_at"].is_string());
    let pat_as_bearer = scene.on(WEB).secret(CredentialKind::Bearer, None, "glpat-read").run().await;
    assert_eq!(pat_as_bearer.facts("authenticate")["token_kind"], "personal", "{:#}", pat_as_bearer.0);
    for (username, token, kind) in [
        (Some("gitlab+deploy-token-1"), "deploy", "deploy"),
        (Some("gitlab-ci-token"), "glcbt-job", "job"),
        (None, "glcbt-job", "job"),
    ] {
        scene.server().clear_requests();
        let outcome = scene.on(WEB).secret(CredentialKind::Pat, username, token).run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.facts("authenticate")["token_kind"], kind);
        assert_eq!(outcome.warnings(), ["api_refused"]);
        let to_api =
            scene.server().requests().into_iter().find(|r| r.has_authorization && r.path.contains("/api/"));
        assert_eq!(to_api, None, "the API does not take it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_follow_from_scopes_and_access_level() {
    let scene = Scene::start();
    for (token, path, set_status, manage_hooks) in [
        ("glpat-api", WEB, "yes", "yes"),
        ("glpat-api", "/shop/developed", "yes", "no"),
        ("glpat-api", "/shop/reported", "no", "no"),
        ("glpat-api", "/shop/untold", "unknown", "unknown"),
        ("glpat-read", WEB, "no", "no"),
    ] {
        let outcome = scene.by(token, path).await;
        assert!(outcome.succeeded() && outcome.warnings().is_empty(), "{:#}", outcome.0);
        let capabilities = &outcome.0["capabilities"];
        assert_eq!(
            (&capabilities["set_status"], &capabilities["manage_hooks"]),
            (&set_status.into(), &manage_hooks.into()),
            "{token} {path}"
        );
        assert_eq!(
            (&capabilities["read_code"], &capabilities["read_projects"]),
            (&"yes".into(), &"yes".into())
        );
    }
    let by_git_alone =
        scene.on(WEB).secret(CredentialKind::Password, Some("ada"), "password-canary").run().await;
    assert_eq!(by_git_alone.0["capabilities"]["read_projects"], "unknown", "{:#}", by_git_alone.0);
    let for_git_alone = scene.by("glpat-git", WEB).await;
    assert_eq!(for_git_alone.0["capabilities"]["read_projects"], "no", "{:#}", for_git_alone.0);
    let before_self = Scene::with(Gitlab { version: "15.4.0".into(), ..Gitlab::default() });
    let outcome = before_self.by("glpat-read", WEB).await;
    assert_eq!(outcome.0["capabilities"]["set_status"], "unknown", "{:#}", outcome.0);
    assert_eq!(outcome.facts("authenticate")["token_kind"], "personal");
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_are_refused_warned_about_and_named() {
    for version in ["13.12.15", "11.0.0"] {
        let scene = Scene::with(Gitlab { version: version.into(), ..Gitlab::default() });
        let outcome = scene.by("glpat-read", WEB).await;
        expect(&outcome, "server_too_old", "identify");
        assert!(summary(&outcome).contains(&format!("GitLab {version}")), "{}", summary(&outcome));
    }
    for (version, enterprise, product) in
        [("16.11.2-ee", true, "GitLab Enterprise Edition"), ("14.0.0", false, "GitLab")]
    {
        let scene = Scene::with(Gitlab { version: version.into(), enterprise, ..Gitlab::default() });
        let outcome = scene.by("glpat-read", WEB).await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.warnings(), ["server_release_ends"]);
        assert_eq!(outcome.stages("warned"), ["identify"]);
        assert_eq!(outcome.facts("identify")["product"], product);
        assert_eq!(outcome.0["server"]["version"], version);
        assert_eq!(outcome.0["server"]["product"], "GitLab");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_soon_or_may_too_much_is_warned_about() {
    let scene = Scene::start();
    let soon = scene.by("glpat-soon", WEB).await;
    assert_eq!(soon.warnings(), ["token_expires_soon"], "{:#}", soon.0);
    let root = scene.by("glpat-root", WEB).await;
    assert_eq!(root.warnings(), ["scope_excessive"], "{:#}", root.0);
    assert_eq!(root.stages("warned"), ["authenticate"]);
    let said = root.0["warnings"][0]["summary"].as_str().unwrap();
    assert!(said.ends_with("nothing here needs sudo, write_repository."), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_is_offered_by_names_that_are_like_it() {
    let scene = Scene::start();
    for (path, near) in [("/shop/sub/wbe.git", "shop/sub/web"), ("/shop/web.git", "shop/sub/web")] {
        let outcome = scene.by("glpat-read", path).await;
        expect(&outcome, "repository_not_found_or_denied", "repository");
        assert!(remedy(&outcome).contains(near), "{}", remedy(&outcome));
    }
    let group = scene.on("/shop/sbu").scope(Scope::Account).pat("glpat-read").run().await;
    expect(&group, "project_not_found_or_denied", "authorize");
    assert!(remedy(&group).contains("shop/sub"), "{}", remedy(&group));
    // What lies beyond the declared path is not for whoever set the task.
    let mut narrow = scene.on("/shop/sub2/web.git").pat("glpat-read");
    narrow.server.url = RemoteUrl::parse(&format!("{}/shop/sub2", scene.server().url())).unwrap();
    let narrow = narrow.run().await;
    expect(&narrow, "repository_not_found_or_denied", "repository");
    assert!(!narrow.0.to_string().contains("shop/sub/web"), "{:#}", narrow.0);
    let nothing_like_it = scene.by("glpat-read", "/zzz/qqq.git").await;
    expect(&nothing_like_it, "repository_not_found_or_denied", "repository");
    assert!(!remedy(&nothing_like_it).contains("Perhaps"), "{}", remedy(&nothing_like_it));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_moved_names_its_new_path_by_api_and_by_git() {
    let scene = Scene::start();
    let by_password = scene.on("/old/web").secret(CredentialKind::Password, Some("ada"), "password-canary");
    for trial in [scene.on("/old/web").pat("glpat-read"), by_password] {
        let outcome = trial.run().await;
        expect(&outcome, "repository_moved", "repository");
        assert!(remedy(&outcome).contains(&format!("{}{WEB}", scene.server().url())), "{}", remedy(&outcome));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_project_is_read_and_a_disabled_repository_is_named() {
    let scene = Scene::start();
    let archived = scene.by("glpat-read", "/shop/museum").await;
    assert!(archived.succeeded() && archived.warnings().is_empty(), "{:#}", archived.0);
    assert_eq!(archived.facts("repository")["archived"], true);
    assert_eq!(archived.0["repository"]["head"], scene.sample.commit("main"));
    expect(&scene.by("glpat-read", "/shop/closed").await, "repository_disabled", "repository");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_two_factor_shuts_out_is_told_from_a_wrong_one() {
    let scene = Scene::start();
    let password = |user, secret| scene.on(WEB).secret(CredentialKind::Password, Some(user), secret);
    let shut_out = password("carol", "password-canary").run().await;
    expect(&shut_out, "two_factor_required", "authenticate");
    assert!(summary(&shut_out).contains("personal access token"), "{}", summary(&shut_out));
    expect(&password("carol", "wrong").run().await, "password_rejected", "authenticate");
    let newer = Scene::with(Gitlab { explains_passwords: false, ..Gitlab::default() });
    let unexplained =
        newer.on(WEB).secret(CredentialKind::Password, Some("carol"), "password-canary").run().await;
    expect(&unexplained, "password_rejected", "authenticate");
    assert!(remedy(&unexplained).contains("two-factor"), "{}", remedy(&unexplained));
    let clone =
        password("carol", "password-canary").clone_into(&scene.authority.ca_file().with_extension("d")).await;
    expect(&clone, "two_factor_required", "authenticate");
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_accounts_and_policies_are_told_by_the_servers_own_words() {
    let scene = Scene::start();
    let text = |body: &str| Fault::Words { status: 403, content_type: "text/plain", body: body.to_owned() };
    let cases = [
        ("/api/v4/personal", forbidden("Your account has been blocked."), "account_locked"),
        (
            "/api/v4/personal",
            forbidden("Your account has been deactivated by your administrator."),
            "account_locked",
        ),
        ("/api/v4/personal", text("Forbidden\n"), "account_locked"),
        ("info/refs", text("Your account has been blocked."), "account_locked"),
        (
            "/api/v4/projects",
            forbidden("Cannot find valid SSO session. Please login via your group's SSO"),
            "policy_blocks_token",
        ),
        (
            "/api/v4/personal",
            forbidden("You (@ada) must accept the Terms of Service in order to perform this action."),
            "policy_blocks_token",
        ),
        ("info/refs", text("Pulling over HTTP is not allowed."), "policy_blocks_token"),
    ];
    for (path, fault, code) in cases {
        scene.server().set_fault_at(path, fault);
        let outcome = scene.by("glpat-read", WEB).await;
        scene.server().clear_fault();
        expect(&outcome, code, "authenticate");
        assert!(summary(&outcome).contains("the server says `"), "{}", summary(&outcome));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_pages_and_maintenance_are_named() {
    let scene = Scene::start();
    let maintenance = || Fault::Words {
        status: 503,
        content_type: "text/html",
        body: "<h1>Deploy in progress</h1>".into(),
    };
    let sign_in =
        || Fault::Redirect { status: 302, location: format!("{}/users/sign_in", scene.server().url()) };
    let cases = [
        ("/personal_access_tokens", Fault::RateLimited { retry_after: 7 }, "rate_limited", "authenticate"),
        ("/personal_access_tokens", sign_in(), "sign_in_page", "authenticate"),
        ("/personal_access_tokens", maintenance(), "server_unavailable", "authenticate"),
        ("/api/v4/projects", Fault::ServerError(502), "server_unavailable", "repository"),
        ("info/refs", sign_in(), "sign_in_page", "authenticate"),
        ("info/refs", Fault::RateLimited { retry_after: 7 }, "rate_limited", "repository"),
    ];
    for (path, fault, code, stage) in cases {
        scene.server().set_fault_at(path, fault);
        let outcome = scene.by("glpat-read", WEB).await;
        scene.server().clear_fault();
        expect(&outcome, code, stage);
        assert!(outcome.facts("identify")["request_id"].is_string(), "{:#}", outcome.0);
        if code == "rate_limited" {
            assert!(remedy(&outcome).contains("7 s"), "{}", remedy(&outcome));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_test_can_do_without_never_fails_it() {
    let scene = Scene::start();
    for path in ["/api/v4/metadata", "/api/v4/user", "/oauth/token/info"] {
        for fault in [
            Fault::ServerError(500),
            Fault::InvalidJson,
            Fault::HugeBody,
            Fault::RateLimited { retry_after: 7 },
        ] {
            scene.server().set_fault_at(path, fault);
        }
    }
    let outcome = scene.by("glpat-read", WEB).await;
    assert!(outcome.succeeded() && outcome.warnings().is_empty(), "{:#}", outcome.0);
    assert!(outcome.0["server"]["version"].is_null() && outcome.0["identity"]["name"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_path_that_is_missing_gives_the_right_url() {
    let scene = Scene::with(Gitlab { relative_root: "/gitlab".into(), ..Gitlab::default() });
    let origin = format!("https://127.0.0.1:{}", scene.server().port());
    let trial = Trial::of(Some(Provider::Gitlab), &origin, &format!("{origin}{WEB}"));
    let outcome = trial.trust(scene.authority.ca_file()).pat("glpat-read").run().await;
    expect(&outcome, "wrong_base_path", "identify");
    assert!(remedy(&outcome).contains(&format!("Use {origin}/gitlab{WEB};")), "{}", remedy(&outcome));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_credential_of_any_kind_goes_out_once() {
    let scene = Scene::start();
    let cases = [
        (CredentialKind::Pat, None, "wrong", "pat_rejected"),
        (CredentialKind::Pat, Some("gitlab+deploy-token-1"), "wrong", "pat_rejected"),
        (CredentialKind::Pat, Some("gitlab-ci-token"), "wrong", "pat_rejected"),
        (CredentialKind::Password, Some("ada"), "wrong", "password_rejected"),
        (CredentialKind::Bearer, None, "wrong", "bearer_rejected"),
        (CredentialKind::Bearer, None, "glpat-wrong", "bearer_rejected"),
    ];
    for (kind, username, secret, code) in cases {
        for path in [WEB, "/shop/sub/web.git", "/old/web", "/shop/nope"] {
            scene.server().clear_requests();
            let outcome = scene.on(path).secret(kind, username, secret).run().await;
            expect(&outcome, code, "authenticate");
            let sent = scene.server().requests().iter().filter(|request| request.has_authorization).count();
            assert_eq!(sent, 1, "{kind:?} {username:?} {path}: {:?}", scene.server().requests());
        }
    }
}
