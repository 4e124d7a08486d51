//! `sortie doctor`: every check with what makes it fail, who tries which credential, and what the bundle holds.

use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stand_ins::Fault;
use tempfile::TempDir;

use crate::secrets::assert_clean;
use crate::support::agent::{Agent, AgentPlan};
use crate::support::binary::{Output, Sortie, binary, isolate, sortie};
use crate::support::control_plane::{ControlPlane, secret_file};
use crate::support::nginx::Nginx;
use crate::support::process::{free_port, wait_until};
use crate::support::scene::{PAT, Scene};
use crate::support::sshd::{Key, KeyKind, Sshd};

const LIMIT: Duration = Duration::from_secs(60);

/// A configuration of its own, for agents that are not enrolled or do not run.
struct Setup {
    directory: TempDir,
    text: String,
}

impl Setup {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let text = format!(
            "[agent]\nname = \"a\"\nstate_dir = \"{}\"\ncontrol_socket = \"{}\"\n",
            path.join("state").display(),
            path.join("control.sock").display()
        );
        Self { directory, text }
    }

    fn with(mut self, toml: &str) -> Self {
        self.text.push_str(toml);
        self.text.push('\n');
        self
    }

    fn config(&self) -> PathBuf {
        let path = self.directory.path().join("config.toml");
        crate::support::process::write_private(&path, &self.text).unwrap();
        path
    }

    fn run(&self, arguments: &[&str]) -> Output {
        doctor(&self.config(), arguments)
    }
}

fn doctor(config: &Path, arguments: &[&str]) -> Output {
    let mut all = vec!["doctor", "--config", config.to_str().unwrap()];
    all.extend(arguments);
    sortie(all)
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("no {name}: {report:#}"))
}

fn status<'a>(report: &'a Value, name: &str) -> &'a str {
    check(report, name)["status"].as_str().unwrap()
}

fn summary<'a>(report: &'a Value, name: &str) -> &'a str {
    check(report, name)["summary"].as_str().unwrap()
}

/// The server and the credential of a scene as tables of a configuration.
fn tables(scene: &Scene, server: &str, base: &str, secret: &str) -> String {
    format!(
        "[servers.{server}]\nprovider = \"gitlab\"\nurl = \"{}{base}\"\ncredential = \"{server}_pat\"\nca_file = \"{}\"\n\
         [credentials.{server}_pat]\nkind = \"pat\"\nsecret = {secret}\n",
        scene.server().url(),
        scene.authority.ca_file().display()
    )
}

/// An agent whose token is a credential of its unit, so that nobody but the daemon has it.
fn unit_agent(scene: &Scene) -> (AgentPlan, TempDir) {
    let credentials = tempfile::tempdir().unwrap();
    secret_file(credentials.path(), "lab-pat", PAT);
    let plan = Agent::plan("fra1-a")
        .with_toml(&tables(scene, "lab", "", "{ systemd = \"lab-pat\" }"))
        .with_env("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap());
    (plan, credentials)
}

#[test]
fn a_healthy_agent_passes_and_its_daemon_tries_the_credentials_of_the_unit() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let (plan, _credentials) = unit_agent(&scene);
    let spare = "[credentials.spare]\nkind = \"pat\"\nsecret = { systemd = \"no-such\" }\n\
                 [credentials.variable]\nkind = \"pat\"\nsecret = { env = \"SPARE_PAT\" }\n";
    let agent = plan.with_toml(spare).with_env("SPARE_PAT", "glpat-spare").start(&control_plane);
    let output = doctor(agent.config(), &["--json"]);
    let report = output.json();
    let names: Vec<_> =
        report["checks"].as_array().unwrap().iter().map(|c| c["check"].as_str().unwrap()).collect();
    let order = [
        "configuration",
        "files",
        "enrollment",
        "daemon",
        "clock",
        "proxy",
        "control_plane",
        "credential:spare",
        "credential:variable",
        "server:lab",
        "disk",
        "limits",
        "kernel",
        "unit",
    ];
    assert_eq!(names, order, "{report:#}");
    assert_eq!(report["schema"], "sortie.doctor.v1");
    for name in ["configuration", "files", "enrollment", "daemon", "clock", "proxy", "control_plane"] {
        assert_eq!(status(&report, name), "passed", "{report:#}");
    }
    let server = check(&report, "server:lab");
    assert_ne!(server["status"], "failed", "{server:#}");
    assert_eq!(
        (&server["facts"]["seen_by"], &server["report"]["schema"]),
        (&json!("daemon"), &json!("sortie.report.v1"))
    );
    assert_eq!(server["report"]["outcome"], "succeeded", "{server:#}");
    let variable = check(&report, "credential:variable");
    assert_eq!((&variable["status"], &variable["facts"]["seen_by"]), (&json!("passed"), &json!("daemon")));
    // The one thing that is wrong is what is to be done first.
    assert_eq!(status(&report, "credential:spare"), "failed");
    assert_eq!(
        (output.status, &report["first"]["check"]),
        (Some(1), &json!("credential:spare")),
        "{report:#}"
    );
    let only = doctor(agent.config(), &["--server", "lab"]);
    assert_eq!(only.status, Some(0), "{only:?}");
    assert!(only.stdout.contains("server:lab") && !only.stdout.contains("credential:spare"), "{only:?}");
}

#[test]
fn without_a_daemon_what_is_readable_is_tested_here_and_the_rest_says_how() {
    let (scene, other) = (Scene::small(), Scene::small());
    let setup = Setup::new();
    let file = secret_file(setup.directory.path(), "pat", PAT);
    let setup = setup
        .with(&tables(&scene, "lab", "", &format!("{{ file = \"{}\" }}", file.display())))
        .with(&tables(&other, "unit", "", "{ systemd = \"unit-pat\" }"));
    let report = setup.run(&["--json"]).json();
    assert_ne!(status(&report, "server:lab"), "failed", "{report:#}");
    assert_eq!(check(&report, "server:lab")["report"]["outcome"], "succeeded");
    let skipped = check(&report, "server:unit");
    assert_eq!(skipped["status"], "skipped", "{skipped:#}");
    let remedies = skipped["remedies"].to_string();
    assert!(remedies.contains("systemd-run") && remedies.contains("LoadCredential=unit-pat"), "{skipped:#}");
    assert_eq!(other.server().connections(), 0);
    assert_eq!(status(&report, "daemon"), "warned");
    assert!(check(&report, "daemon")["remedies"].to_string().contains("systemctl start"));
    let unknown = setup.run(&["--server", "nowhere"]);
    assert_eq!(unknown.status, Some(2), "{unknown:?}");
}

#[test]
fn a_refused_credential_is_sent_once_whatever_uses_it() {
    let scene = Scene::small();
    let setup = Setup::new();
    let file = secret_file(setup.directory.path(), "pat", "glpat-revoked-77");
    let second = format!(
        "[servers.second]\nprovider = \"gitlab\"\nurl = \"{}/shop\"\ncredential = \"lab_pat\"\nca_file = \"{}\"\n",
        scene.server().url(),
        scene.authority.ca_file().display()
    );
    let setup =
        setup.with(&tables(&scene, "lab", "", &format!("{{ file = \"{}\" }}", file.display()))).with(&second);
    let output = setup.run(&["--json"]);
    let report = output.json();
    assert_eq!(output.status, Some(1), "{report:#}");
    assert_eq!(status(&report, "server:lab"), "failed");
    assert!(summary(&report, "server:lab").contains("pat_rejected"), "{report:#}");
    assert_eq!(status(&report, "server:second"), "skipped", "{report:#}");
    let requests = scene.server().requests();
    let with_token = requests.iter().filter(|request| request.has_authorization).count();
    assert_eq!(with_token, 1, "{requests:?}");
    assert!(!output.stdout.contains("glpat-revoked-77"));
}

#[test]
fn a_refused_token_for_the_api_beside_git_is_sent_once_and_alone_counts_as_refused() {
    let scene = Scene::small();
    let setup = Setup::new();
    let path = setup.directory.path();
    let (token, password) = (secret_file(path, "api", "glpat-revoked-79"), secret_file(path, "pw", "secret"));
    let server = |name: &str, api: &str| {
        format!(
            "[servers.{name}]\nprovider = \"gitlab\"\nurl = \"{}/{name}\"\ncredential = \"pw\"\n{api}ca_file = \"{}\"\n",
            scene.server().url(),
            scene.authority.ca_file().display()
        )
    };
    let api = "api_credential = \"api\"\n";
    let setup = setup
        .with(&format!(
            "[credentials.api]\nkind = \"pat\"\nsecret = {{ file = \"{}\" }}\n\
             [credentials.pw]\nkind = \"password\"\nusername = \"ada\"\nsecret = {{ file = \"{}\" }}\n",
            token.display(),
            password.display()
        ))
        .with(&server("one", api))
        .with(&server("two", api))
        .with(&server("git", ""));
    let report = setup.run(&["--json"]).json();
    let requests = scene.server().requests();
    let with_token =
        requests.iter().filter(|r| r.authorization_scheme.as_deref() == Some("PRIVATE-TOKEN")).count();
    assert_eq!(with_token, 1, "{requests:?}\n{report:#}");
    let skipped = ["one", "two"].map(|name| status(&report, &format!("server:{name}")) == "skipped");
    assert_eq!(skipped.iter().filter(|skipped| **skipped).count(), 1, "{report:#}");
    assert_ne!(status(&report, "server:git"), "skipped", "the password was not refused: {report:#}");
}

#[test]
fn a_refused_credential_of_the_unit_is_sent_once_by_the_daemon_and_never_from_here() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let (plan, credentials) = unit_agent(&scene);
    secret_file(credentials.path(), "lab-pat", "glpat-revoked-78");
    let agent = plan.start(&control_plane);
    let output = doctor(agent.config(), &["--json"]);
    let report = output.json();
    assert_eq!((output.status, status(&report, "server:lab")), (Some(1), "failed"), "{report:#}");
    assert_eq!(check(&report, "server:lab")["facts"]["seen_by"], "daemon");
    let requests = scene.server().requests();
    let with_token = requests.iter().filter(|request| request.has_authorization).count();
    assert_eq!(with_token, 1, "{requests:?}");
    assert!(!output.stdout.contains("glpat-revoked-78"));
}

#[test]
fn a_base_that_is_no_repository_is_reached_and_said_so() {
    let scene = Scene::small();
    let path = scene.scratch();
    let nginx = Nginx::plan(path).start(&scene.authority);
    let key = Key::make(path, "key", KeyKind::Ed25519, None);
    let sshd = Sshd::plan(&[KeyKind::Ed25519])
        .authorize(&key)
        .serve("shop/web.git", &scene.sample.directory)
        .start();
    let other = Key::make(path, "other", KeyKind::Ed25519, None);
    let keyed = |name: &str, key: &Key| {
        format!(
            "[servers.{name}]\nprovider = \"git\"\nurl = \"{}\"\ncredential = \"{name}\"\nknown_hosts_file = \"{}\"\n\
             [credentials.{name}]\nkind = \"ssh-key\"\nsecret = {{ file = \"{}\" }}\n",
            sshd.url(),
            sshd.known_hosts().display(),
            key.private_file.display()
        )
    };
    let plain = format!(
        "[servers.plain]\nprovider = \"git\"\nurl = \"{}\"\nca_file = \"{}\"\n",
        nginx.url(),
        scene.authority.ca_file().display()
    );
    let setup = Setup::new().with(&plain).with(&keyed("keyed", &key)).with(&keyed("stranger", &other));
    let report = setup.run(&["--json"]).json();
    for server in ["server:plain", "server:keyed"] {
        assert_eq!(status(&report, server), "warned", "{:#}", check(&report, server));
        assert!(check(&report, server)["remedies"].to_string().contains("--repository"), "{report:#}");
    }
    assert_eq!(status(&report, "server:stranger"), "failed", "{report:#}");
    assert!(summary(&report, "server:stranger").contains("ssh_key_rejected"), "{report:#}");
}

#[test]
fn a_daemon_carries_out_one_doctor_at_a_time_and_ends_with_its_client() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let (plan, _credentials) = unit_agent(&scene);
    let mut agent = plan.start(&control_plane);
    scene.server().set_fault(Fault::Stall);
    let first = Sortie::new();
    let mut running = first.start(["doctor", "--config", agent.config().to_str().unwrap()]);
    scene.wait_for_request("the daemon is at work", |_| true);
    let second = doctor(agent.config(), &["--json"]).json();
    assert_eq!(status(&second, "server:lab"), "skipped");
    assert!(summary(&second, "server:lab").contains("another doctor"), "{second:#}");
    running.interrupt();
    assert_eq!(running.wait(LIMIT).and_then(|status| status.code()), Some(130));
    wait_until("the daemon is free", LIMIT, || {
        let report = doctor(agent.config(), &["--json", "--deadline", "2"]).json();
        summary(&report, "server:lab").contains("deadline_exceeded")
    });
    // One that is at work does not hold the daemon's end up.
    let _third = first.start(["doctor", "--config", agent.config().to_str().unwrap()]);
    scene.server().clear_requests();
    scene.wait_for_request("the daemon is at work again", |_| true);
    let begun = Instant::now();
    agent.terminate();
    assert_eq!(agent.wait(LIMIT).and_then(|status| status.code()), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_wrong_configuration_ends_with_78_and_names_the_key() {
    let setup = Setup::new().with("[servers.ado]\nurll = \"https://x\"");
    let output = setup.run(&["--json"]);
    let report = output.json();
    assert_eq!((output.status, status(&report, "configuration")), (Some(78), "failed"), "{report:#}");
    assert!(summary(&report, "configuration").contains("`url` meant"), "{report:#}");
    let missing = sortie(["doctor", "--json", "--config", "/nonexistent/config.toml"]);
    assert_eq!(missing.status, Some(78));
    assert!(
        missing.json()["first"]["remedy"].as_str().unwrap().contains("config.example.toml"),
        "{missing:?}"
    );
    let empty = Setup::new().run(&["--json"]).json();
    assert_eq!(status(&empty, "configuration"), "warned", "{empty:#}");
}

#[test]
fn modes_that_let_others_in_are_named_with_the_chmod() {
    let setup = Setup::new();
    let path = setup.directory.path().to_owned();
    let (token, key) = (secret_file(&path, "token", "x"), secret_file(&path, "key", "x"));
    let setup = setup.with(&format!(
        "[credentials.a]\nkind = \"pat\"\nsecret = {{ file = \"{}\" }}\n\
         [credentials.b]\nkind = \"ssh-key\"\nsecret = {{ file = \"{}\" }}\n",
        token.display(),
        key.display()
    ));
    let config = setup.config();
    let set =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let files = |what: &str| {
        let report = doctor(&config, &["--json"]).json();
        let files = check(&report, "files").clone();
        assert!(what.is_empty() || files["remedies"].to_string().contains(what), "{files:#}");
        files["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(files(""), "passed");
    set(&token, 0o644);
    assert_eq!(files("chmod o-r"), "warned");
    set(&key, 0o640);
    assert_eq!(files("chmod 0600"), "failed");
    set(&key, 0o600);
    set(&config, 0o666);
    assert_eq!(files("chmod go-w"), "failed");
    set(&config, 0o600);
    set(&path, 0o777);
    assert_eq!(files("chmod go-w"), "failed");
    set(&path, 0o700);
    std::fs::create_dir(path.join("state")).unwrap();
    set(&path.join("state"), 0o755);
    assert_eq!(files("chmod 0700"), "warned");
    std::fs::remove_file(&token).unwrap();
    assert_eq!(files("Put the secret into"), "failed");
}

#[test]
fn enrollment_is_judged_by_the_state_directory() {
    let setup = Setup::new().with("[control_plane]\nurl = \"http://127.0.0.1:1\"");
    let report = setup.run(&["--json"]).json();
    assert_eq!(status(&report, "enrollment"), "failed");
    assert!(check(&report, "enrollment")["remedies"].to_string().contains("sortie enroll"), "{report:#}");
    let state = setup.directory.path().join("state");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(state.join("identity.json"), "{}").unwrap();
    let report = setup.run(&["--json"]).json();
    assert!(summary(&report, "enrollment").contains("is damaged"), "{report:#}");
    std::fs::remove_file(state.join("identity.json")).unwrap();
    enrolled(&state, "http://127.0.0.1:2");
    let report = setup.run(&["--json"]).json();
    assert!(summary(&report, "enrollment").contains("enrolled at http://127.0.0.1:2"), "{report:#}");
    let waiting = Setup::new()
        .with("[control_plane]\nurl = \"http://127.0.0.1:1\"\nenrollment_token = { env = \"TOKEN\" }")
        .run(&["--json"])
        .json();
    assert_eq!(status(&waiting, "enrollment"), "warned");
}

fn enrolled(state: &Path, url: &str) {
    use sortie::identity;
    let key = identity::prepare(state, url).unwrap();
    let identity = identity::Identity { agent_id: "a1".into(), control_plane: url.into(), key };
    identity::store(state, &identity).unwrap();
}

#[test]
fn a_control_plane_that_cannot_be_reached_is_diagnosed_like_a_server() {
    let scene = Scene::small();
    let at = |keys: &str| Setup::new().with(&format!("[control_plane]\n{keys}")).run(&["--json"]).json();
    let closed = at(&format!("url = \"http://127.0.0.1:{}\"", free_port()));
    assert_eq!(check(&closed, "control_plane")["facts"]["code"], "connection_refused", "{closed:#}");
    assert_eq!(status(&closed, "clock"), "skipped");
    let stages = &check(&closed, "control_plane")["report"]["stages"];
    assert_eq!(
        (&stages[0]["stage"], &stages[1]["status"]),
        (&json!("resolve"), &json!("failed")),
        "{closed:#}"
    );

    let control_plane = ControlPlane::start_with_tls(&scene.authority);
    let untrusted = at(&format!("url = \"{}\"", control_plane.url()));
    let found = check(&untrusted, "control_plane");
    assert_eq!(found["facts"]["code"], "tls_untrusted_issuer", "{untrusted:#}");
    assert!(found["remedies"].to_string().contains("[control_plane]"), "{found:#}");
    let ca_file = scene.authority.ca_file().display();
    let trusted = at(&format!("url = \"{}\"\nca_file = \"{ca_file}\"", control_plane.url()));
    assert_eq!(
        (status(&trusted, "control_plane"), status(&trusted, "clock")),
        ("passed", "passed"),
        "{trusted:#}"
    );

    let other = at(&format!("url = \"{}\"\nca_file = \"{ca_file}\"", scene.server().url()));
    let found = check(&other, "control_plane");
    assert_eq!(found["status"], "failed", "{other:#}");
    assert!(found["summary"].as_str().unwrap().contains("upgrade"), "{found:#}");
    let prefixed = at(&format!("url = \"{}/wrong\"\nca_file = \"{ca_file}\"", control_plane.url()));
    assert!(check(&prefixed, "control_plane")["remedies"].to_string().contains("/agent/v1"), "{prefixed:#}");
}

/// A control plane whose clock is wrong: it takes upgrades, and tells its date at /healthz.
async fn serve_date(listener: tokio::net::TcpListener, date: String) {
    use tokio::io::AsyncWriteExt as _;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut first = [0; 12];
        while stream.peek(&mut first).await.unwrap() < first.len() {
            stream.readable().await.unwrap();
        }
        if first.starts_with(b"GET /healthz") {
            let answer = format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            continue;
        }
        #[allow(clippy::result_large_err)]
        let subprotocol = |_: &Request, mut response: Response| {
            response.headers_mut().insert("Sec-WebSocket-Protocol", "sortie.v1".parse().unwrap());
            Ok(response)
        };
        // The connection that only measures the way is closed without a request.
        let _ = tokio_tungstenite::accept_hdr_async(stream, subprotocol).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_told_with_its_offset() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let setup =
        Setup::new().with(&format!("[control_plane]\nurl = \"http://{}\"", listener.local_addr().unwrap()));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(serve_date(listener, "Fri, 20 Nov 2020 04:00:00 GMT".to_owned()));
    let output = tokio::task::spawn_blocking(move || setup.run(&["--json"])).await.unwrap();
    let report = output.json();
    assert_eq!(
        (status(&report, "control_plane"), status(&report, "clock")),
        ("passed", "failed"),
        "{report:#}"
    );
    let clock = check(&report, "clock");
    assert!(clock["facts"]["offset_seconds"].as_i64().unwrap() > 86_400, "{clock:#}");
    assert!(clock["remedies"].to_string().contains("timedatectl"), "{clock:#}");
}

#[test]
fn a_daemon_that_is_not_connected_or_goes_by_another_configuration_is_told() {
    let scene = Scene::small();
    let mut control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").start(&control_plane);
    let text = std::fs::read_to_string(agent.config()).unwrap();
    std::fs::write(agent.config(), text.replace("max_tasks = 4", "max_tasks = 5")).unwrap();
    let report = doctor(agent.config(), &["--json"]).json();
    assert_eq!(status(&report, "daemon"), "warned");
    assert!(check(&report, "daemon")["remedies"].to_string().contains("systemctl restart"), "{report:#}");
    control_plane.kill();
    wait_until("the daemon has noticed", LIMIT, || {
        status(&doctor(agent.config(), &["--json", "--deadline", "5"]).json(), "daemon") == "failed"
    });
    control_plane.restart();
}

#[test]
fn proxies_are_shown_without_their_passwords_and_wrong_ones_fail() {
    let far = "[servers.far]\nprovider = \"git\"\nurl = \"https://git.invalid\"";
    let setup = Setup::new().with(far);
    let config = setup.config();
    let run = |value: &str| {
        let program = Sortie::new().env("HTTPS_PROXY", value).env("NO_PROXY", "corp.example");
        let output = program.run(["doctor", "--json", "--config", config.to_str().unwrap()]);
        assert!(!format!("{output:?}").contains("hunter2"), "{output:?}");
        output.json()
    };
    let good = run(&format!("http://ada:hunter2@127.0.0.1:{}", free_port()));
    let proxy = check(&good, "proxy");
    assert_eq!(proxy["status"], "passed", "{proxy:#}");
    assert!(proxy["summary"].as_str().unwrap().starts_with("far through 127.0.0.1:"), "{proxy:#}");
    assert_eq!(proxy["facts"]["variables"]["NO_PROXY"], "corp.example");
    let bad = run("gopher://ada:hunter2@proxy.example");
    assert_eq!(status(&bad, "proxy"), "failed", "{bad:#}");
}

#[test]
fn little_room_and_small_limits_are_told() {
    let setup = Setup::new().with("[limits]\nbytes = 9000000000000000000\n");
    let config = setup.config();
    let report = doctor(&config, &["--json"]).json();
    assert_eq!(status(&report, "disk"), "warned", "{report:#}");
    assert!(check(&report, "disk")["remedies"].to_string().contains("limits.bytes"));
    let mut shell = Command::new("sh");
    isolate(&mut shell, setup.directory.path());
    shell
        .args(["-c", "ulimit -n 100 && exec \"$0\" doctor --json --config \"$1\""])
        .arg(binary("sortie"))
        .arg(&config);
    let output = shell.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((status(&report, "limits"), output.status.code()), ("failed", Some(1)), "{report:#}");
    assert!(check(&report, "limits")["remedies"].to_string().contains("LimitNOFILE"));
}

#[test]
fn hostile_names_do_not_reach_the_terminal() {
    let setup = Setup::new();
    let file = setup.directory.path().join("con\u{1b}[2Jfig.toml");
    std::fs::write(&file, &setup.text).unwrap();
    let output = sortie(["doctor", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status, Some(0), "{output:?}");
    assert!(output.stdout.contains("fig.toml") && !output.stdout.contains('\u{1b}'), "{output:?}");
    assert!(output.stdout.contains("What to do first ("), "{output:?}");
}

#[test]
fn the_bundle_is_private_whole_and_without_any_secret() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let proxy_password = "proxy-canary-8b1e";
    let (plan, _credentials) = unit_agent(&scene);
    let second = secret_file(plan.directory(), "second", "glpat-second-canary");
    let agent = plan
        .with_toml(&tables(&scene, "other", "/shop", &format!("{{ file = \"{}\" }}", second.display())))
        .start(&control_plane);
    let identity: Value = serde_json::from_str(
        &std::fs::read_to_string(agent.directory().join("state/identity.json")).unwrap(),
    )
    .unwrap();
    let secrets = [PAT, "glpat-second-canary", proxy_password, identity["private_key"].as_str().unwrap()];
    let bundle = agent.directory().join("support.tar.gz");
    let run = |arguments: &[&str]| {
        let program = Sortie::new().env("ALL_PROXY", &format!("http://ada:{proxy_password}@127.0.0.1:9"));
        let config = agent.config().to_str().unwrap();
        program.run([&["doctor", "--config", config], arguments].concat())
    };
    let output = run(&["--bundle", bundle.to_str().unwrap()]);
    assert!(output.stdout.contains("support.tar.gz"), "{output:?}");
    assert_clean("the output", format!("{}{}", output.stdout, output.stderr).as_bytes(), &secrets);
    assert_clean("the JSON", run(&["--json"]).stdout.as_bytes(), &secrets);
    let told = sortie(["status", "--json", "--config", agent.config().to_str().unwrap()]);
    assert_clean("the status", told.stdout.as_bytes(), &secrets);

    assert_eq!(std::fs::metadata(&bundle).unwrap().mode() & 0o777, 0o600);
    let packed = std::fs::File::open(&bundle).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert!(!content.is_empty(), "{name} is empty");
        assert_clean(&name, &content, &secrets);
        if name.ends_with("doctor.json") {
            let report: Value = serde_json::from_slice(&content).unwrap();
            assert_eq!(check(&report, "server:lab")["report"]["outcome"], "succeeded", "{report:#}");
        }
        if name.ends_with("status.json") {
            let status: Value = serde_json::from_slice(&content).unwrap();
            assert_eq!(status["agent"]["name"], "fra1-a");
        }
        names.push(name);
    }
    let files = ["README.txt", "doctor.json", "status.json", "config.toml", "version.txt"];
    assert_eq!(names, files.map(|file| format!("sortie-support/{file}")));

    let before = std::fs::read(&bundle).unwrap();
    let again = run(&["--bundle", bundle.to_str().unwrap()]);
    assert_eq!(again.status, Some(1), "{again:?}");
    assert!(again.stderr.contains("not overwritten"), "{again:?}");
    assert_eq!(std::fs::read(&bundle).unwrap(), before);
}
