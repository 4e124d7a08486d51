//! What configurations are taken and how wrong ones are named.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::Write as _;

use super::*;

fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let variables: HashMap<_, _> =
        variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Config::load(&[file.path().to_owned()], &variables)
}

fn load(text: &str) -> Result<Config, ConfigError> {
    load_with(text, &[])
}

fn problem(text: &str) -> String {
    let message = load(text).unwrap_err().to_string();
    message.split_once(": ").map_or(message.clone(), |(_, problem)| problem.to_owned())
}

const GOOD: &str = r#"
[agent]
name = "fra1-a"
tags = ["dc:fra1", "ado"]
[control_plane]
url = "https://sortie.example.com"
[servers.ado]
provider = "azure-devops"
url = "https://ado.corp.example/DefaultCollection"
credential = "ado_pat"
[credentials.ado_pat]
kind = "pat"
secret = { systemd = "ado-pat" }
[log]
[health]
[limits]
"#;

#[test]
fn a_configuration_is_read_with_its_defaults() {
    let config = load(GOOD).unwrap();
    assert_eq!((config.agent.max_tasks, config.agent.state_dir.to_str()), (4, Some("/var/lib/sortie")));
    assert_eq!(config.servers[0].url.to_string(), "https://ado.corp.example/DefaultCollection");
    assert_eq!(config.credentials["ado_pat"].secret, SecretSource::Systemd("ado-pat".into()));
}

#[test]
fn what_is_shown_loads_again() {
    let shown = load(GOOD).unwrap().show();
    assert_eq!(load(&shown).unwrap().show(), shown);
}

#[test]
fn host_keys_are_pinned_by_key_and_by_fingerprint() {
    let pinned =
        |pin: &str| GOOD.replace("[credentials.", &format!("host_keys = [\"{pin}\"]\n[credentials."));
    let fingerprint = "ssh-rsa SHA256:ohD8VZEXGWo6Ez8GSEJQ9WpafgLFsOfLOtGGQCQo6Og";
    let config = load(&pinned(fingerprint)).unwrap();
    assert_eq!(config.servers[0].host_keys[0].to_string(), fingerprint);
    let shown = config.show();
    assert_eq!(load(&shown).unwrap().show(), shown);
    let refused = problem(&pinned("ado.corp.example ssh-rsa AAAA"));
    assert!(refused.starts_with("`servers.ado.host_keys` expects lines like ssh-ed25519 AAAA"), "{refused}");
}

#[test]
fn a_credential_for_rest_is_a_token_that_is_declared() {
    let with = |credential: &str, more: &str| {
        let key = format!("credential = \"ado_pat\"\napi_credential = \"{credential}\"");
        GOOD.replace("credential = \"ado_pat\"", &key) + more
    };
    let key = "[credentials.key]\nkind = \"ssh-key\"\nsecret = { env = \"KEY\" }";
    let config = load(&with("ado_pat", "")).unwrap();
    assert_eq!(config.servers[0].api_credential.as_deref(), Some("ado_pat"));
    assert!(config.show().contains("api_credential"));
    assert!(problem(&with("ado_pta", "")).contains("is `ado_pat` meant?"));
    let problem = problem(&with("key", key));
    assert!(problem.contains("servers.ado.api_credential") && problem.contains("pat or bearer"), "{problem}");
}

#[test]
fn an_ssh_agent_is_a_source_of_keys_alone() {
    let agent = "{ agent = \"/run/agent\", key = \"SHA256:ohD8VZEXGWo6Ez8GSEJQ9WpafgLFsOfLOtGGQCQo6Og\" }";
    let with_agent = GOOD.replace("{ systemd = \"ado-pat\" }", agent);
    let expected = "`credentials.ado_pat.secret` expects agent and key only";
    assert!(problem(&with_agent).starts_with(expected), "{}", problem(&with_agent));
    let of_key = with_agent.replace("\"pat\"", "\"ssh-key\"");
    let shown = load(&of_key).unwrap().show();
    assert!(shown.contains("agent = \"/run/agent\""), "{shown}");
    assert_eq!(load(&shown).unwrap().show(), shown);
    let both = of_key.replace("{ agent", "{ env = \"KEY\", agent");
    assert!(problem(&both).contains("no other source"), "{}", problem(&both));
    let bad = of_key.replace("SHA256:oh", "MD5:");
    assert!(problem(&bad).starts_with("`credentials.ado_pat.secret.key` expects"), "{}", problem(&bad));
}

#[test]
fn health_is_told_nowhere_but_on_this_very_host() {
    assert_eq!(load(GOOD).unwrap().health, None);
    let with = |listen: &str| GOOD.replace("[health]", &format!("[health]\nlisten = \"{listen}\""));
    for (written, shown) in [
        ("127.0.0.1:7801", "127.0.0.1:7801"),
        ("127.8.0.1:0", "127.8.0.1:0"),
        ("[::1]:7801", "[::1]:7801"),
        ("unix:/run/sortie/health.sock", "unix:/run/sortie/health.sock"),
        ("/run/sortie/health.sock", "unix:/run/sortie/health.sock"),
    ] {
        let config = load(&with(written)).unwrap();
        assert_eq!(config.health.as_ref().map(ToString::to_string).as_deref(), Some(shown));
        assert_eq!(load(&config.show()).unwrap().show(), config.show());
    }
    for listen in [
        "0.0.0.0:7801",
        "192.0.2.7:7801",
        "[::]:7801",
        "[::ffff:127.0.0.1]:7801",
        "127.0.0.1",
        "7801",
        ":7801",
    ]
    .into_iter()
    .chain(["localhost:7801", "unix:health.sock", "unix:", "/", "http://127.0.0.1:7801", ""])
    {
        let problem = problem(&with(listen));
        let named =
            problem.starts_with("`health.listen` expects a loopback address with a port, such as 127");
        assert!(named, "{listen}: {problem}");
    }
    let variable = [("SORTIE__HEALTH__LISTEN", "127.0.0.1:7802")];
    assert!(load_with(GOOD, &variable).unwrap().health.is_some());
}

#[test]
fn the_environment_changes_what_files_declare() {
    let url = [("SORTIE__SERVERS__ADO__URL", "https://new.example/x"), ("SORTIE__AGENT__MAX_TASKS", "8")];
    let config = load_with(GOOD, &url).unwrap();
    assert_eq!(
        (config.servers[0].url.to_string().as_str(), config.agent.max_tasks),
        ("https://new.example/x", 8)
    );
    let tags = load_with(GOOD, &[("SORTIE__AGENT__TAGS", "a,b")]).unwrap();
    assert_eq!(tags.agent.tags, ["a", "b"]);
}

#[test]
fn the_environment_never_adds_a_server_or_a_credential() {
    for variable in
        ["SORTIE__SERVERS__ADO2__URL", "SORTIE__CREDENTIALS__OTHER__KIND", "SORTIE__servers__x__url"]
    {
        let error = load_with(GOOD, &[(variable, "https://evil.example")]).unwrap_err();
        assert!(matches!(error, ConfigError::EnvironmentAdds { .. }), "{variable}: {error}");
    }
    let unknown = load_with(GOOD, &[("SORTIE__AGENT__NAEM", "x")]).unwrap_err();
    assert_eq!(unknown.to_string(), "the environment: `agent.naem` is not a key; is `name` meant?");
}

#[test]
fn unknown_keys_name_the_file_and_the_nearest_key() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[servers.ado]\nurll = \"https://x\"\n").unwrap();
    let error = Config::load(&[file.path().to_owned()], &HashMap::new()).unwrap_err();
    let expected = format!("{}: `servers.ado.urll` is not a key; is `url` meant?", file.path().display());
    assert_eq!(error.to_string(), expected);
    let later = load("[control_plane]\nurl = \"https://x\"\ntrusted_signers = []\n").unwrap_err();
    assert!(matches!(later, ConfigError::NotSupportedYet { .. }), "{later}");
}

#[test]
fn every_wrong_value_is_named_with_what_is_expected() {
    let cases = [
        ("[agent]\nname = \"a b\"", "`agent.name` expects 1 to 64"),
        ("[agent]\ntags = [\"name:x\"]", "`agent.tags` expects"),
        ("[agent]\nmax_tasks = 0", "`agent.max_tasks` expects a whole number from 1 to 256"),
        ("[agent]\nmax_tasks = \"many\"", "`agent.max_tasks` expects"),
        ("[agent]\nstate_dir = \"var\"", "`agent.state_dir` expects an absolute path"),
        ("[control_plane]\nurl = \"http://sortie.example.com\"", "`control_plane.url` expects https://"),
        ("[control_plane]\n", "`control_plane.url` expects the base URL"),
        ("[servers.Ado]\nprovider = \"git\"", "`servers.Ado` expects a name of small letters"),
        ("[servers.ado]\nprovider = \"svn\"", "`servers.ado.provider` expects azure-devops, gitlab or git"),
        ("[servers.ado]\nprovider = \"git\"\nurl = \"file:///x\"", "`servers.ado.url` expects a URL, but"),
        (
            "[servers.ado]\nprovider = \"git\"\nurl = \"https://x\"\nproxy = \"http://u@p:1\"",
            "`servers.ado.proxy` expects",
        ),
        (
            "[servers.ado]\nprovider = \"git\"\nurl = \"https://x\"\ncredential = \"no\"",
            "`servers.ado.credential` expects",
        ),
        ("[credentials.a]\nkind = \"key\"", "`credentials.a.kind` expects pat, password, bearer or ssh-key"),
        ("[credentials.a]\nkind = \"pat\"", "`credentials.a.secret` expects exactly one of"),
        (
            "[credentials.a]\nkind = \"pat\"\nsecret = { file = \"/a\", env = \"B\" }",
            "`credentials.a.secret` expects exactly",
        ),
        (
            "[credentials.a]\nkind = \"pat\"\nsecret = { systemd = \"../x\" }",
            "`credentials.a.secret.systemd` expects",
        ),
        (
            "[credentials.a]\nkind = \"password\"\nsecret = { env = \"B\" }",
            "`credentials.a.username` expects",
        ),
        ("[log]\nlevel = \"loud\"", "`log.level` expects"),
        ("[agent", "is not valid TOML"),
    ];
    for (text, expected) in cases {
        let problem = problem(text);
        assert!(problem.contains(expected), "{text}: {problem}");
    }
}

#[test]
fn a_value_in_the_wrong_place_is_not_repeated() {
    let error = load("[credentials.a]\nkind = \"pat\"\nsecret = \"hunter2\"\n").unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn the_example_loads_and_names_every_key() {
    let example = include_str!("../../config.example.toml");
    load(example).unwrap();
    // Every commented key is valid, too: the comment sign is all that keeps it off.
    let uncommented: String =
        example.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect::<Vec<_>>().join("\n");
    load(&uncommented).unwrap();
    let shown = load(&uncommented).unwrap();
    assert_eq!(shown.limits, Limits::default(), "the limits that are shown are those that hold");
    let bare = load("").unwrap();
    assert_eq!(
        (shown.max_run, shown.agent.max_tasks, shown.agent.drain),
        (bare.max_run, bare.agent.max_tasks, bare.agent.drain)
    );
    for (table, keys) in raw::KEYS {
        for key in *keys {
            assert!(uncommented.contains(key), "{table}.{key}");
        }
    }
}
