//! The Azure DevOps Server stand-in, seen by curl and git.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::Command;

use common::support::process::require;
use common::support::repository::{SampleRepository, run_git};
use common::{basic, curl, git_with};
use stand_ins::{
    Authority, AzureDevOps, BadToken, Fault, MissingScope, Release, Repository, StandIns, Token, World,
};
use stand_ins::{Running, ServerHandle};
use tempfile::TempDir;

const PAT: &str = "pat-of-ada";

struct Scene {
    running: Running,
    authority: Authority,
    sample: SampleRepository,
    scratch: TempDir,
}

impl Scene {
    fn start(settings: AzureDevOps) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let sample = SampleRepository::small(&scratch.path().join("web.git"));
        let empty = SampleRepository::empty(&scratch.path().join("empty.git"));
        let authority = Authority::create(scratch.path()).unwrap();
        let web = |name| Repository::azure_devops("DefaultCollection", "Shop", name, &sample.directory);
        let world = World::new()
            .with_azure_devops(settings)
            .with_user("ada", "secret")
            .with_user("bob", "secret")
            .with_pat("ada", PAT, &["vso.code", "vso.project"])
            .with_pat("ada", "no-scope", &[])
            .with_pat("bob", "pat-of-bob", &["vso.code", "vso.project"])
            .with_token(Token::new("ada", "old", &["vso.code"]).expired())
            .with_repository(web("web").read_by("ada"))
            .with_repository(web("off").read_by("ada").disabled())
            .with_repository(
                Repository::azure_devops("DefaultCollection", "Shop", "empty", &empty.directory)
                    .read_by("ada"),
            )
            .with_repository(
                Repository::azure_devops("DefaultCollection", "solo", "solo", &sample.directory)
                    .read_by("ada"),
            );
        let running = StandIns::start(world, &authority).unwrap();
        Self { running, authority, sample, scratch }
    }

    fn server(&self) -> &ServerHandle {
        self.running.azure.as_ref().unwrap()
    }

    fn get(&self, path: &str, pat: &str) -> common::Seen {
        curl(&self.authority, &format!("{}{path}", self.server().url()), &["-H", &basic("", pat)])
    }
}

fn with_base_path() -> AzureDevOps {
    AzureDevOps { base_path: "/tfs".to_owned(), ..AzureDevOps::default() }
}

#[test]
fn items_trees_and_blobs_are_those_of_the_commit() {
    let scene = Scene::start(AzureDevOps::default());
    let commit = scene.sample.commit("main");
    let repository = "/DefaultCollection/Shop/_apis/git/repositories/web";
    let item = |path: &str, pat: &str| {
        let version = format!("versionDescriptor.version={commit}&versionDescriptor.versionType=commit");
        scene.get(&format!("{repository}/items?path={path}&{version}&api-version=5.0"), pat)
    };
    let folder = item("%2Fbin", PAT).json();
    assert_eq!(folder["gitObjectType"], "tree");
    let tree = folder["objectId"].as_str().unwrap();
    let entry = scene.get(&format!("{repository}/trees/{tree}?api-version=5.0"), PAT).json()["treeEntries"]
        [0]
    .clone();
    assert_eq!((&entry["relativePath"], &entry["mode"]), (&"start.sh".into(), &"100755".into()));
    let id = entry["objectId"].as_str().unwrap();
    let blob = scene.get(&format!("{repository}/blobs/{id}?%24format=octetstream&api-version=5.0"), PAT);
    assert_eq!(blob.body, run_git(&scene.sample.directory, ["cat-file", "blob", id]) + "\n");
    assert_eq!(item("%2Fnope", PAT).json()["typeKey"], "GitItemNotFoundException");
    assert_eq!(item("%2Fbin", "no-scope").status, 401);
}

#[test]
fn everyone_without_a_good_credential_gets_all_four_schemes() {
    let scene = Scene::start(with_base_path());
    let url = format!("{}/DefaultCollection/_apis/connectionData", scene.server().url());
    let bearer = format!("Authorization: Bearer {PAT}");
    let wrong = basic("", "wrong");
    let old = basic("", "old");
    for header in [
        "X-Nothing: 1",
        "Authorization: NTLM TlRMTVNTUAAB",
        "Authorization: Negotiate YII=",
        &bearer,
        &wrong,
        &old,
    ] {
        let seen = curl(&scene.authority, &url, &["-H", header]);
        assert_eq!((seen.status, seen.body.as_str()), (401, ""), "{header}");
        let offered = seen.all("www-authenticate");
        let schemes = offered.iter().map(|value| value.split(' ').next().unwrap()).collect::<Vec<_>>();
        assert_eq!(schemes, ["Bearer", "Basic", "Negotiate", "NTLM"], "{header}");
    }
    let requests = scene.server().requests();
    let schemes = requests.iter().map(|request| request.authorization_scheme.as_deref().unwrap_or("-"));
    assert_eq!(schemes.collect::<Vec<_>>(), ["-", "NTLM", "Negotiate", "Bearer", "Basic", "Basic"]);
    assert_eq!(scene.server().connections(), 6);
}

#[test]
fn the_calls_answer_whatever_the_case_of_their_routes() {
    let scene = Scene::start(with_base_path());
    for path in ["/DefaultCollection/_apis/connectionData", "/defaultcollection/_APIS/ConnectionData"] {
        let seen = scene.get(path, PAT);
        assert_eq!(seen.status, 200, "{path}");
        assert_eq!(seen.json()["authenticatedUser"]["providerDisplayName"], "ada");
        assert_eq!(seen.json()["deploymentType"], "onPremises");
        let access_point = seen.json()["locationServiceData"]["accessMappings"][0]["accessPoint"].clone();
        assert_eq!(access_point, scene.server().url());
        assert!(seen.header("x-vss-userdata").unwrap().ends_with(":ada"));
    }
    let projects = scene.get("/DefaultCollection/_apis/projects?api-version=6.0", PAT).json();
    assert_eq!(projects["value"].as_array().unwrap().len(), 2);
    assert_eq!(scene.get("/DefaultCollection/_apis/projects/shop", PAT).json()["name"], "Shop");
    let repository = scene.get("/DefaultCollection/Shop/_apis/git/repositories/WEB", PAT).json();
    assert_eq!(repository["defaultBranch"], "refs/heads/main");
    assert_eq!(repository["isDisabled"], false);
    assert_eq!(repository["remoteUrl"], format!("{}/DefaultCollection/Shop/_git/web", scene.server().url()));
    let heads =
        scene.get("/DefaultCollection/Shop/_apis/git/repositories/web/refs?filter=heads/", PAT).json();
    assert_eq!(heads["value"][1]["objectId"], scene.sample.commit("main"));
    let off = scene.get("/DefaultCollection/Shop/_apis/git/repositories/off", PAT).json();
    assert_eq!(off["isDisabled"], true);
    let empty = scene.get("/DefaultCollection/Shop/_apis/git/repositories/empty", PAT).json();
    assert!(empty.get("defaultBranch").is_none());
}

#[test]
fn options_and_a_too_new_version_tell_the_release() {
    let scene = Scene::start(AzureDevOps { release: Release::V2020, ..AzureDevOps::default() });
    let url = format!("{}/DefaultCollection/_apis", scene.server().url());
    let seen = curl(&scene.authority, &url, &["-X", "OPTIONS", "-H", &basic("", PAT)]);
    let areas = seen.json();
    let git = areas["value"].as_array().unwrap().iter().find(|area| area["area"] == "git").unwrap();
    assert_eq!(git["releasedVersion"], "6.0");
    let seen = scene.get("/DefaultCollection/_apis/projects?api-version=7.1", PAT);
    assert_eq!(seen.status, 400);
    assert_eq!(seen.json()["typeKey"], "VssVersionOutOfRangeException");
    assert!(seen.json()["message"].as_str().unwrap().contains("supports is 6.1"));
    let preview = scene.get("/DefaultCollection/_apis/connectionData?api-version=6.0", PAT);
    assert_eq!(preview.json()["typeKey"], "VssInvalidPreviewVersionException");
}

#[test]
fn refusals_come_in_the_form_that_was_asked_for() {
    let scene = Scene::start(AzureDevOps {
        bad_token: BadToken::SignInPage,
        missing_scope: MissingScope::Json403,
        json_bom: true,
        ..AzureDevOps::default()
    });
    let seen = scene.get("/DefaultCollection/_apis/projects", "wrong");
    assert_eq!((seen.status, seen.body.contains("Sign In")), (203, true));
    assert_eq!(scene.get("/DefaultCollection/_apis/projects", "old").status, 401);
    let seen = scene.get("/DefaultCollection/_apis/projects", "no-scope");
    assert_eq!((seen.status, seen.body.starts_with('\u{feff}')), (403, true));
    assert!(seen.header("x-tfs-serviceerror").unwrap().starts_with("TF400813%3A"));
    let seen = scene.get("/DefaultCollection/Shop/_apis/git/repositories/web", "pat-of-bob");
    assert_eq!((seen.status, seen.json()["typeKey"].as_str()), (404, Some("GitRepositoryNotFoundException")));
    assert!(seen.json()["message"].as_str().unwrap().starts_with("TF401019"));
    assert!(seen.header("x-vss-userdata").unwrap().ends_with(":bob"));
    let seen = scene.get("/DefaultCollection/_apis/projects/None", PAT);
    assert!(seen.json()["message"].as_str().unwrap().starts_with("TF200016"));

    let scene = Scene::start(AzureDevOps { bad_token: BadToken::Redirect, ..with_base_path() });
    let seen = scene.get("/DefaultCollection/_apis/projects", "wrong");
    assert_eq!(seen.status, 302);
    assert!(seen.header("location").unwrap().starts_with(&format!("{}/_signin", scene.server().url())));
    let root = curl(&scene.authority, &format!("https://127.0.0.1:{}/", scene.server().port()), &[]);
    assert_eq!((root.status, root.header("location")), (302, Some("/tfs/")));
}

#[test]
fn iis_basic_authentication_takes_passwords_and_breaks_tokens() {
    let scene = Scene::start(AzureDevOps { iis_basic_authentication: true, ..AzureDevOps::default() });
    let url = format!("{}/DefaultCollection/_apis/connectionData", scene.server().url());
    assert_eq!(scene.get("/DefaultCollection/_apis/connectionData", PAT).status, 401);
    assert_eq!(curl(&scene.authority, &url, &["-H", &basic("CORP\\ada", "secret")]).status, 200);
}

#[test]
fn git_clones_by_every_form_of_the_path() {
    let scene = Scene::start(with_base_path());
    let base = scene.server().url();
    for (number, path) in [
        "DefaultCollection/Shop/_git/web",
        "defaultcollection/shop/_git/_optimized/web",
        "DefaultCollection/_git/solo",
    ]
    .iter()
    .enumerate()
    {
        let target = scene.scratch.path().join(number.to_string());
        let url = format!("{base}/{path}");
        let arguments = ["clone", "-q", &url, target.to_str().unwrap()];
        let (succeeded, text) = git_with(&scene.authority, &basic("", PAT), &arguments);
        assert!(succeeded, "{path}: {text}");
        assert_eq!(run_git(&target, ["rev-parse", "HEAD"]), scene.sample.commit("main"));
    }
    for (path, pat, expected) in [
        ("Shop/_git/web", "pat-of-bob", "not found"),
        ("Shop/_git/off", PAT, "not found"),
        ("Shop/_git/web", "no-scope", "Authentication failed"),
        ("Shop/_git/web", "old", "Authentication failed"),
    ] {
        let url = format!("{base}/DefaultCollection/{path}");
        let (succeeded, text) = git_with(&scene.authority, &basic("", pat), &["ls-remote", &url]);
        assert!(
            !succeeded && (text.contains(expected) || text.contains("could not read Username")),
            "{path}: {text}"
        );
    }
}

#[test]
fn a_pack_can_be_cut_and_paused() {
    let scene = Scene::start(with_base_path());
    let url = format!("{}/DefaultCollection/Shop/_git/web", scene.server().url());
    let clone = |name: &str| {
        let target = scene.scratch.path().join(name);
        git_with(&scene.authority, &basic("", PAT), &["clone", "-q", &url, target.to_str().unwrap()])
    };
    scene.server().set_fault(Fault::CutAfter { bytes: 600 });
    let (succeeded, text) = clone("cut");
    assert!(!succeeded, "{text}");
    scene.server().clear_fault();
    scene.server().clear_requests();
    scene.server().set_fault(Fault::PauseAfter { bytes: 600 });
    std::thread::scope(|scope| {
        let paused = scope.spawn(|| clone("paused"));
        let seen = scene.server().wait_for_request(
            |request| request.method == "POST" && request.path.ends_with("/git-upload-pack"),
            std::time::Duration::from_secs(20),
        );
        assert!(seen);
        scene.server().clear_fault();
        let (succeeded, text) = paused.join().unwrap();
        assert!(succeeded, "{text}");
    });
}

#[test]
fn faults_replace_answers_until_they_are_cleared() {
    let scene = Scene::start(AzureDevOps::default());
    let path = "/DefaultCollection/_apis/projects";
    let server = scene.server();
    server.set_fault_at("_apis/projects", Fault::RateLimited { retry_after: 7 });
    let seen = scene.get(path, PAT);
    assert_eq!((seen.status, seen.header("retry-after")), (429, Some("7")));
    assert_eq!(scene.get("/DefaultCollection/_apis/connectionData", PAT).status, 200);
    server.clear_fault();
    server.set_fault(Fault::Redirect { status: 302, location: "https://elsewhere.example/".to_owned() });
    assert_eq!(scene.get(path, PAT).header("location"), Some("https://elsewhere.example/"));
    server.clear_fault();
    server.set_fault(Fault::ServerError(503));
    assert_eq!(scene.get(path, PAT).status, 503);
    server.clear_fault();
    server.set_fault(Fault::InvalidJson);
    assert!(serde_json::from_str::<serde_json::Value>(&scene.get(path, PAT).body).is_err());
    server.clear_fault();
    assert_eq!(scene.get(path, PAT).status, 200);
}

#[test]
fn slow_huge_and_missing_answers_are_streamed() {
    let scene = Scene::start(AzureDevOps::default());
    let fetch = |limit: &str| {
        let output = Command::new(require("curl", "curl"))
            .args([
                "-s",
                "--noproxy",
                "*",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{size_download}",
                "--max-time",
                limit,
            ])
            .arg("--cacert")
            .arg(scene.authority.ca_file())
            .arg(format!("{}/DefaultCollection/_apis/projects", scene.server().url()))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    scene.server().set_fault(Fault::Stall);
    assert_eq!(fetch("0.5"), "000 0");
    scene.server().clear_fault();
    scene.server().set_fault(Fault::SlowBody);
    assert!(["200 1", "200 2"].contains(&fetch("1.5").as_str()));
    scene.server().clear_fault();
    scene.server().set_fault(Fault::HugeBody);
    let answered = fetch("60");
    let size = answered.strip_prefix("200 ").and_then(|size| size.parse::<u64>().ok());
    assert!(size.unwrap() > 256 * 1024 * 1024, "{answered}");
}

#[tokio::test]
async fn it_starts_and_stops_inside_of_a_runtime() {
    let scene = Scene::start(AzureDevOps::default());
    let port = scene.server().port();
    drop(scene);
    let refused = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}
