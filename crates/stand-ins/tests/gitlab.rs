//! The GitLab stand-in, seen by curl and git.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::support::repository::{SampleRepository, run_git};
use common::{basic, curl, git_with};
use stand_ins::{
    Authority, Fault, Gitlab, Repository, Running, ServerHandle, StandIns, Token, TokenKind, User, World,
};
use tempfile::TempDir;

const PAT: &str = "glpat-ada";

struct Scene {
    running: Running,
    authority: Authority,
    sample: SampleRepository,
    scratch: TempDir,
}

impl Scene {
    fn start(settings: Gitlab) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let sample = SampleRepository::small(&scratch.path().join("web.git"));
        let authority = Authority::create(scratch.path()).unwrap();
        let mut world = World::new()
            .with_gitlab(settings)
            .with_user("ada", "secret")
            .with_user("bob", "secret")
            .with_pat("ada", PAT, &["read_repository", "read_api"])
            .with_pat("ada", "only-git", &["read_repository"])
            .with_pat("ada", "only-api", &["read_api"])
            .with_pat("bob", "glpat-bob", &["read_repository", "read_api"])
            .with_token(Token::new("ada", "old", &["read_api"]).expired())
            .with_token(Token::new("ada", "gone", &["read_api"]).revoked())
            .with_token(Token::new("ada", "deploy", &["read_repository"]).of_kind(TokenKind::Deploy))
            .with_token(Token::new("ada", "job", &["read_repository"]).of_kind(TokenKind::Job))
            .with_token(Token::new("ada", "group", &["read_api"]).of_kind(TokenKind::Group))
            .with_token(Token::new("ada", "oauth", &["api"]).of_kind(TokenKind::Oauth))
            .with_repository(
                Repository::gitlab("group/sub/web", &sample.directory).read_by("ada").moved_from("old/web"),
            );
        let carol = User { name: "carol".to_owned(), password: Some("secret".into()), two_factor: true };
        world.users.push(carol);
        let running = StandIns::start(world, &authority).unwrap();
        Self { running, authority, sample, scratch }
    }

    fn server(&self) -> &ServerHandle {
        self.running.gitlab.as_ref().unwrap()
    }

    fn get(&self, call: &str, token: &str) -> common::Seen {
        let header = format!("PRIVATE-TOKEN: {token}");
        curl(&self.authority, &format!("{}/api/v4/{call}", self.server().url()), &["-H", &header])
    }
}

fn under_root() -> Gitlab {
    Gitlab { relative_root: "/gitlab".to_owned(), version: "16.11.2".to_owned(), ..Gitlab::default() }
}

#[test]
fn trees_and_blobs_are_those_of_the_commit() {
    let scene = Scene::start(Gitlab::default());
    let commit = scene.sample.commit("main");
    let tree = |query: &str, token: &str| {
        scene.get(&format!("projects/group%2Fsub%2Fweb/repository/tree?ref={commit}&{query}"), token)
    };
    let root = tree("per_page=100", PAT).json();
    let modes: Vec<_> =
        root.as_array().unwrap().iter().map(|entry| entry["mode"].as_str().unwrap()).collect();
    assert!(modes.contains(&"040000") && modes.contains(&"120000"), "{root:#}");
    assert_eq!(tree("per_page=2&page=2", PAT).json(), serde_json::json!([root[2], root[3]]));
    let start = tree("path=bin", PAT).json()[0].clone();
    assert_eq!((&start["name"], &start["mode"]), (&"start.sh".into(), &"100755".into()));
    let id = start["id"].as_str().unwrap();
    let blob = scene.get(&format!("projects/group%2Fsub%2Fweb/repository/blobs/{id}/raw"), PAT);
    assert_eq!(blob.body, run_git(&scene.sample.directory, ["cat-file", "blob", id]) + "\n");
    assert_eq!(tree("path=nope", PAT).status, 404);
    // The scope of git opens the calls for files by their paths alone.
    assert_eq!(tree("", "only-git").status, 403);
}

#[test]
fn the_api_answers_by_token_and_scope() {
    let scene = Scene::start(under_root());
    assert_eq!(scene.get("metadata", PAT).json()["version"], "16.11.2");
    assert_eq!(scene.get("version", PAT).json()["version"], "16.11.2");
    assert_eq!(scene.get("user", PAT).json()["username"], "ada");
    let own = scene.get("personal_access_tokens/self", "only-git").json();
    assert_eq!((own["active"].as_bool(), own["scopes"][0].as_str()), (Some(true), Some("read_repository")));
    let project = scene.get("projects/group%2Fsub%2Fweb", PAT);
    assert_eq!(project.header("ratelimit-limit"), Some("2000"));
    let project = project.json();
    assert_eq!(project["default_branch"], "main");
    assert_eq!(project["http_url_to_repo"], format!("{}/group/sub/web.git", scene.server().url()));
    assert_eq!(
        scene.get(&format!("projects/{}", project["id"]), PAT).json()["path_with_namespace"],
        "group/sub/web"
    );
    assert_eq!(scene.get("projects?search=web", PAT).json().as_array().unwrap().len(), 1);
    assert_eq!(scene.get("projects?search=web", "glpat-bob").json().as_array().unwrap().len(), 0);
    let branches = scene.get("projects/1/repository/branches", PAT).json();
    assert_eq!(branches[1]["commit"]["id"], scene.sample.commit("main"));
    assert_eq!(scene.get("groups/group%2Fsub", PAT).json()["full_path"], "group/sub");
    let url = format!("{}/api/v4/version", scene.server().url());
    let bearer = curl(&scene.authority, &url, &["-H", "Authorization: Bearer oauth"]);
    assert_eq!(bearer.status, 200);
    let url = format!("{}/oauth/token/info", scene.server().url());
    let info = curl(&scene.authority, &url, &["-H", "Authorization: Bearer oauth"]).json();
    assert_eq!((info["scope"][0].as_str(), info["expires_in"].as_u64()), (Some("api"), Some(7200)));
    assert_eq!(scene.get("user", "group").json()["username"], "group_1_bot_ada");
    assert_eq!(scene.get("groups?search=sub", PAT).json()[0]["full_path"], "group/sub");
    let schemes = scene.server().requests();
    assert_eq!(schemes[0].authorization_scheme.as_deref(), Some("PRIVATE-TOKEN"));
}

#[test]
fn the_api_says_no_in_its_own_words() {
    let scene = Scene::start(Gitlab::default());
    let seen = scene.get("version", "wrong");
    assert_eq!((seen.status, seen.json()["message"].as_str()), (401, Some("401 Unauthorized")));
    for (token, word) in [("old", "expired"), ("gone", "revoked")] {
        let seen = scene.get("version", token);
        assert_eq!((seen.status, seen.json()["error"].as_str()), (401, Some("invalid_token")));
        assert!(seen.json()["error_description"].as_str().unwrap().contains(word));
    }
    let seen = scene.get("version", "only-git");
    assert_eq!((seen.status, seen.json()["error"].as_str()), (403, Some("insufficient_scope")));
    assert_eq!(seen.json()["scope"], "api read_api read_user");
    assert_eq!(scene.get("version", "deploy").status, 401);
    let url = format!("{}/api/v4/version", scene.server().url());
    assert_eq!(curl(&scene.authority, &url, &["-H", &basic("ada", PAT)]).status, 401);
    let seen = scene.get("projects/group%2Fsub%2Fweb", "glpat-bob");
    assert_eq!((seen.status, seen.json()["message"].as_str()), (404, Some("404 Project Not Found")));
    let seen = scene.get("projects/old%2Fweb", PAT);
    let moved = format!("{}/api/v4/projects/1", scene.server().url());
    assert_eq!((seen.status, seen.header("location")), (301, Some(moved.as_str())));
    scene.server().set_fault(Fault::RateLimited { retry_after: 3 });
    let seen = scene.get("version", PAT);
    assert_eq!(
        (seen.status, seen.header("retry-after"), seen.body.as_str()),
        (429, Some("3"), "Retry later\n")
    );
    assert_eq!(seen.header("content-type"), Some("text/plain"));
}

#[test]
fn calls_appear_with_their_release_and_a_proxy_can_spoil_paths() {
    let scene =
        Scene::start(Gitlab { version: "15.1.0".to_owned(), decodes_slashes: true, ..Gitlab::default() });
    assert_eq!(scene.get("metadata", PAT).status, 404);
    assert_eq!(scene.get("personal_access_tokens/self", PAT).status, 404);
    assert_eq!(scene.get("projects/group%2Fsub%2Fweb", PAT).status, 404);
    assert_eq!(scene.get("projects/1", PAT).status, 200);
}

#[test]
fn git_clones_with_and_without_the_suffix_and_after_a_move() {
    let scene = Scene::start(under_root());
    let base = scene.server().url();
    for (number, path) in ["group/sub/web.git", "group/sub/web", "old/web.git"].iter().enumerate() {
        let target = scene.scratch.path().join(number.to_string());
        let url = format!("{base}/{path}");
        let arguments = ["clone", "-q", &url, target.to_str().unwrap()];
        let (succeeded, text) = git_with(&scene.authority, &basic("any", PAT), &arguments);
        assert!(succeeded, "{path}: {text}");
        assert_eq!(run_git(&target, ["rev-parse", "HEAD"]), scene.sample.commit("main"));
    }
    let root = curl(&scene.authority, &format!("https://127.0.0.1:{}/", scene.server().port()), &[]);
    assert_eq!((root.status, root.header("location")), (302, Some("/gitlab/")));
}

#[test]
fn git_wants_basic_with_a_name() {
    let scene = Scene::start(Gitlab::default());
    let url = format!("{}/group/sub/web.git/info/refs?service=git-upload-pack", scene.server().url());
    for (user, secret, status) in [
        ("any", PAT, 200),
        ("", PAT, 401),
        ("ada", "secret", 200),
        ("carol", "secret", 401),
        ("gitlab-ci-token", "job", 200),
        ("oauth2", "oauth", 200),
        ("ada", "oauth", 401),
        ("gitlab+deploy-token-1", "deploy", 200),
        ("any", "only-git", 200),
        ("any", "only-api", 403),
        ("any", "glpat-bob", 404),
        ("any", "old", 401),
    ] {
        let seen = curl(&scene.authority, &url, &["-o", "/dev/null", "-D", "-", "-H", &basic(user, secret)]);
        assert_eq!(seen.status, status, "{user}");
        assert_eq!(seen.header("www-authenticate").is_some(), status == 401, "{user}");
    }
    let seen = curl(&scene.authority, &url, &["-H", &basic("carol", "secret")]);
    assert!(seen.body.contains("You must use a personal access token"), "{}", seen.body);
    let seen = curl(&scene.authority, &url, &["-H", &format!("Authorization: Bearer {PAT}")]);
    assert!(seen.status == 401 && seen.body.starts_with("HTTP Basic: Access denied"));
}
