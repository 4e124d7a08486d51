//! What only Azure DevOps has: its releases, its paths, the URLs by which it names itself, its ways to refuse, and
//! what it tells of permissions.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sortie::credential::CredentialKind;
use sortie::dial::{LookupError, Names};
use sortie::provider::Provider;
use stand_ins::{Authority, AzureDevOps, BadToken, Fault, Gitlab, Release, ServerHandle};

use crate::connection_test::{AZURE_PAT, Lab};
use crate::support::nginx::Nginx;
use crate::trial::{Outcome, Trial};

const REPOSITORY: &str = "/Coll/My%20Shop/_git/web";

/// A token with full access.
const FULL_PAT: &str = "azure-full-access";

/// Every name is this host.
struct Here;

impl Names for Here {
    fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, LookupError> {
        Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
    }
}

fn lab(settings: AzureDevOps) -> Lab {
    Lab::with(settings, Gitlab::default())
}

/// A test of a path on a server that goes by a name.
fn on_host(lab: &Lab, host: &str, path: &str) -> Trial {
    let base = lab.azure().url_with_host(host);
    Trial::of(Some(Provider::AzureDevops), &base, &format!("{base}{path}"))
        .trust(lab.authority.ca_file())
        .names(Arc::new(Here))
        .pat(AZURE_PAT)
}

fn expect(outcome: &Outcome, code: &str, stage: &str) {
    assert_eq!(outcome.diagnosis(), (code, stage), "{:#}", outcome.0);
}

fn first_remedy(outcome: &Outcome) -> &str {
    outcome.0["diagnosis"]["remedies"][0].as_str().expect("a remedy")
}

fn credentials_sent(server: &ServerHandle) -> usize {
    server.requests().iter().filter(|request| request.has_authorization).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_release_is_named_by_what_it_lists_or_by_what_it_refuses() {
    let cases = [
        (Release::V2019, "2019", "5.0", true),
        (Release::V2019Update1, "2019.1", "5.1", true),
        (Release::V2020, "2020", "6.0", true),
        (Release::V2022, "2022", "7.0", false),
        (Release::V2022Update1, "2022.1", "7.1", false),
        (Release::V2022Update2, "2022.2", "7.2", false),
    ];
    for (release, version, api_version, ends) in cases {
        for lists_calls in [true, false] {
            let lab = lab(AzureDevOps { release, lists_calls, ..AzureDevOps::default() });
            let outcome = lab.on_azure(REPOSITORY).run().await;
            assert!(outcome.succeeded(), "{:#}", outcome.0);
            let server = &outcome.0["server"];
            assert_eq!(server["product"], "Azure DevOps Server");
            assert_eq!((&server["version"], &server["api_version"]), (&version.into(), &api_version.into()));
            let expected = if ends { vec!["server_release_ends"] } else { vec![] };
            assert_eq!(outcome.warnings(), expected, "{version}");
        }
    }
    let lab = lab(AzureDevOps { release: Release::Services, ..AzureDevOps::default() });
    let outcome = lab.on_azure(REPOSITORY).run().await;
    assert_eq!(outcome.0["server"]["product"], "Azure DevOps Services");
    assert_eq!(outcome.0["server"]["api_version"], "7.1");
    assert!(outcome.0["server"]["version"].is_null() && outcome.warnings().is_empty(), "{:#}", outcome.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn team_foundation_server_is_refused_by_its_name() {
    for (release, name) in
        [(Release::Tfs2015, "2015"), (Release::Tfs2017, "2017"), (Release::Tfs2018, "2018")]
    {
        for lists_calls in [true, false] {
            let lab = lab(AzureDevOps { release, lists_calls, ..AzureDevOps::default() });
            let outcome = lab.on_azure(REPOSITORY).run().await;
            expect(&outcome, "server_too_old", "identify");
            let summary = outcome.0["diagnosis"]["summary"].as_str().unwrap();
            assert!(summary.contains(&format!("Team Foundation Server {name}")), "{summary}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_path_is_told_with_the_right_url() {
    let rooted = lab(AzureDevOps::default());
    let old = AzureDevOps { base_path: "/tfs".into(), root_leads_on: false, ..AzureDevOps::default() };
    let below = lab(old);
    let named = lab(AzureDevOps { base_path: "/ado".into(), ..AzureDevOps::default() });
    let cases = [
        // Without the virtual directory, and with one that is not there.
        (&below, "/Coll/My%20Shop/_git/web", Some("/tfs/Coll/My%20Shop/_git/web")),
        (&rooted, "/tfs/Coll/My%20Shop/_git/web", Some("/Coll/My%20Shop/_git/web")),
        // A mistyped collection, none at all, and none that is like it.
        (&rooted, "/Cool/My%20Shop/_git/web", Some("/Coll/My%20Shop/_git/web")),
        (&rooted, "/tools/_git/tools", Some("/Coll/tools/_git/tools")),
        (&below, "/tfs/My%20Shop/_git/web", Some("/tfs/Coll/My%20Shop/_git/web")),
        (&below, "/tfs/My%20Shop", Some("/tfs/Coll/My%20Shop")),
        (&rooted, "/Elsewhere/My%20Shop/_git/web", None),
        // The collection in the project's place, below a directory of another name.
        (&named, "/ado/Coll/_git/tools", Some("/ado/Coll/tools/_git/tools")),
    ];
    for (lab, path, right) in cases {
        lab.azure().clear_requests();
        let origin = format!("https://127.0.0.1:{}", lab.azure().port());
        let trial = |token: &str| {
            Trial::of(Some(Provider::AzureDevops), &origin, &format!("{origin}{path}"))
                .trust(lab.authority.ca_file())
                .pat(token)
        };
        let outcome = trial(AZURE_PAT).run().await;
        expect(&outcome, "wrong_base_path", "identify");
        if let Some(right) = right {
            let url = format!("{origin}{right}");
            let ends = |end: char| first_remedy(&outcome).contains(&format!("{url}{end}"));
            assert!(ends(',') || ends(';'), "{path}: {:#}", outcome.0);
        }
        // Looking for the right path never sends a refused token again.
        lab.azure().clear_requests();
        trial("wrong").run().await;
        assert!(credentials_sent(lab.azure()) <= 1, "{path}");
    }
    let outcome = rooted.on_azure("/Elsewhere/My%20Shop/_git/web").run().await;
    assert_eq!(outcome.facts("identify")["collections"], serde_json::json!(["Coll"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_azure_devops_is_said_to_be_none_and_gets_no_token() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let authority = Authority::create(scratch.path()).unwrap();
    let nginx = Nginx::plan(&root).start(&authority);
    let url = format!("{}{REPOSITORY}", nginx.url());
    let trial = Trial::of(Some(Provider::AzureDevops), &nginx.url(), &url).trust(authority.ca_file());
    let outcome = trial.pat(AZURE_PAT).run().await;
    expect(&outcome, "not_a_git_server", "identify");
    assert!(!outcome.stages("passed").contains(&"authenticate"), "{:#}", outcome.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_above_gets_no_token_before_it_has_shown_what_it_is() {
    let lab = lab(AzureDevOps { base_path: "/tfs".into(), ..AzureDevOps::default() });
    let outcome = lab.on_azure("/Nope/My%20Shop/_git/web").run().await;
    expect(&outcome, "wrong_base_path", "identify");
    let strayed: Vec<_> = lab
        .azure()
        .requests()
        .into_iter()
        .filter(|request| request.has_authorization && !request.path.starts_with("/tfs/"))
        .collect();
    assert!(strayed.is_empty(), "{strayed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_names_itself_wrongly_is_warned_about_or_fails() {
    const HOST: &str = "ado.corp.example";
    let named = |url: &str| {
        lab(AzureDevOps {
            public_url: Some(url.to_owned()),
            certificate_names: vec![HOST.into()],
            ..AzureDevOps::default()
        })
    };
    for url in ["http://localhost:8080/tfs", "https://old.corp.example"] {
        let lab = named(url);
        let outcome = on_host(&lab, HOST, REPOSITORY).run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.warnings(), ["public_url_is_localhost"], "{url}");
        assert_eq!(outcome.stages("warned"), ["identify"]);
        let summary = outcome.0["warnings"][0]["summary"].as_str().unwrap();
        assert!(summary.contains(HOST) && summary.contains(url), "{summary}");
    }
    for url in ["https://ADO.corp.example/", "https://ado/"] {
        let outcome = on_host(&named(url), HOST, REPOSITORY).run().await;
        assert!(outcome.succeeded() && outcome.warnings().is_empty(), "{url}: {:#}", outcome.0);
    }
    // A server that sends everybody to itself by that name cannot be used at all.
    let lab = named("http://localhost:8080/tfs");
    let location = "http://localhost:8080/tfs/Coll/_apis/connectionData".to_owned();
    lab.azure().set_fault(Fault::Redirect { status: 302, location });
    let outcome = on_host(&lab, HOST, REPOSITORY).run().await;
    expect(&outcome, "public_url_is_localhost", "identify");
    assert!(outcome.0["diagnosis"]["summary"].as_str().unwrap().contains("localhost:8080"));
    assert_eq!(credentials_sent(lab.azure()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn iis_that_takes_a_token_for_a_password_is_told_from_a_refusal() {
    let lab = lab(AzureDevOps { iis_basic_authentication: true, ..AzureDevOps::default() });
    let outcome = lab.on_azure(REPOSITORY).run().await;
    expect(&outcome, "iis_basic_conflict", "authenticate");
    assert_eq!(credentials_sent(lab.azure()), 1);
    let by_password = |password: &str| {
        lab.on_azure(REPOSITORY).secret(CredentialKind::Password, Some("CORP\\ada"), password)
    };
    let right = by_password("password-canary").run().await;
    assert!(right.succeeded(), "{:#}", right.0);
    expect(&by_password("wrong").run().await, "password_rejected", "authenticate");
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_codes_in_a_refusal_are_read() {
    let refused = |message: &str, refusal_code| {
        lab(AzureDevOps { refusal: Some(message.to_owned()), refusal_code, ..AzureDevOps::default() })
    };
    let cases = [
        (
            "VS403463: The conditional access policy defined by your administrator has failed.",
            0,
            "policy_blocks_token",
        ),
        ("AADSTS53003: Access has been blocked by Conditional Access policies.", 0, "policy_blocks_token"),
        ("AADSTS50053: The account is locked.", 0, "account_locked"),
        ("The referenced account is currently locked out.", 1909, "account_locked"),
        ("TF400813: The user is not authorized to access this resource.", 0, "pat_rejected"),
    ];
    for (message, number, code) in cases {
        let lab = refused(message, number);
        let outcome = lab.on_azure(REPOSITORY).pat("wrong").run().await;
        expect(&outcome, code, "authenticate");
        assert_eq!(credentials_sent(lab.azure()), 1, "{message}");
        let facts = outcome.facts("authenticate");
        assert_eq!(facts["service_error"], message);
        assert!(facts["request_id"].is_string() && facts["status"] == 401, "{facts:#}");
    }
    let lab = refused("TF24668: The following team project collection is not available: Coll.", 0);
    expect(&lab.on_azure(REPOSITORY).pat("wrong").run().await, "server_unavailable", "authenticate");
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_are_asked_for_and_never_tried() {
    let both = vec!["ada".to_owned()];
    for (allowed, known) in [(both, "yes"), (vec![], "no")] {
        let lab = lab(AzureDevOps {
            contributors: allowed.clone(),
            hook_managers: allowed,
            ..AzureDevOps::default()
        });
        let full = lab.on_azure(REPOSITORY).pat(FULL_PAT).run().await;
        let capabilities = |set_status: &str| {
            serde_json::json!({
                "read_code": "yes", "read_projects": "yes", "set_status": set_status, "manage_hooks": set_status,
            })
        };
        assert_eq!(full.0["capabilities"], capabilities(known), "{:#}", full.0);
        // The scopes of a token cannot be read, and what the server does not answer stays unknown.
        let scoped = lab.on_azure(REPOSITORY).run().await;
        assert_eq!(scoped.0["capabilities"], capabilities("unknown"), "{:#}", scoped.0);
        let methods: Vec<_> = lab.azure().requests().into_iter().map(|request| request.method).collect();
        assert!(methods.iter().all(|method| method == "GET" || method == "OPTIONS" || method == "POST"));
        let posts = lab.azure().requests().into_iter().filter(|request| request.method == "POST");
        assert!(posts.into_iter().all(|request| request.path.ends_with("/git-upload-pack")));
    }
    let lab = lab(AzureDevOps::default());
    let code_only = lab.on_azure(REPOSITORY).pat("azure-code-only").run().await;
    assert_eq!(code_only.0["capabilities"]["read_projects"], "no");
    assert_eq!(code_only.0["capabilities"]["read_code"], "yes");
    // A server that does not answer the question holds nothing up.
    lab.azure().set_fault_at("_apis/permissions", Fault::Stall);
    let stalled = lab.on_azure(REPOSITORY).pat(FULL_PAT).run().await;
    assert!(stalled.succeeded(), "{:#}", stalled.0);
    assert_eq!(stalled.0["capabilities"]["set_status"], "unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_like_a_mistyped_one_are_offered() {
    let lab = lab(AzureDevOps::default());
    let project = lab.on_azure("/Coll/My%20Shpo/_git/web").run().await;
    expect(&project, "project_not_found_or_denied", "authorize");
    assert_eq!(project.facts("authorize")["near"], serde_json::json!(["My Shop"]));
    assert!(first_remedy(&project).contains("My Shop"));
    let repository = lab.on_azure("/Coll/My%20Shop/_git/wbe").run().await;
    expect(&repository, "repository_not_found_or_denied", "repository");
    assert_eq!(repository.facts("repository")["near"], serde_json::json!(["web"]));
    assert!(first_remedy(&repository).contains("web"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_credential_of_any_kind_goes_out_once() {
    let cases = [
        (CredentialKind::Pat, None, "pat_rejected"),
        (CredentialKind::Password, Some("ada"), "password_rejected"),
        (CredentialKind::Bearer, None, "bearer_rejected"),
    ];
    for (kind, user, code) in cases {
        let lab = lab(AzureDevOps::default());
        for path in [REPOSITORY, "/Coll/My%20Shop", "/Coll", "/Nope/My%20Shop/_git/web"] {
            lab.azure().clear_requests();
            let outcome = lab.on_azure(path).secret(kind, user, "wrong-canary").run().await;
            expect(&outcome, code, "authenticate");
            assert_eq!(credentials_sent(lab.azure()), 1, "{kind:?} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cloud_edition_answers_by_its_own_names() {
    const OLD: &str = "coll.visualstudio.com";
    for (host, collection, path) in [
        ("dev.azure.com", None, "/Coll/My%20Shop/_git/web"),
        ("dev.azure.com", None, "/Coll/_git/tools"),
        (OLD, Some("Coll"), "/My%20Shop/_git/web"),
        (OLD, Some("Coll"), "/DefaultCollection/My%20Shop/_git/web"),
    ] {
        let lab = lab(AzureDevOps {
            release: Release::Services,
            bad_token: BadToken::SignInPage,
            host_collection: collection.map(str::to_owned),
            // Either name of an organization is right, whatever the other answers with.
            public_url: Some(format!("https://{}", if host == OLD { "dev.azure.com" } else { OLD })),
            certificate_names: vec![host.into()],
            ..AzureDevOps::default()
        });
        let outcome = on_host(&lab, host, path).run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["server"]["product"], "Azure DevOps Services");
        assert!(outcome.warnings().is_empty(), "{:#}", outcome.0);
        let refused = on_host(&lab, host, path).pat("wrong").run().await;
        expect(&refused, "sign_in_page", "authenticate");
    }
}
