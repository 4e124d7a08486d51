//! The configuration, the files' modes, the enrollment, the room and the proxies of this host.

use super::*;

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
