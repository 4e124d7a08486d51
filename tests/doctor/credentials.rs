//! Who tries which credential, and how often.

use super::*;

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
