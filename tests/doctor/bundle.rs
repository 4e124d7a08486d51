//! The bundle of `sortie doctor --bundle`.

use super::*;

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
