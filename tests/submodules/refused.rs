//! What is not declared, what is not there, and names that lead elsewhere.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_declared_gets_no_connection_and_fails_the_clone_or_is_left_out() {
    let (scene, [lib, ..]) = Scene::usual();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    stranger.set_nonblocking(true).unwrap();
    let port = stranger.local_addr().unwrap().port();
    let links = |url: &'static str| {
        let url = url.replace("PORT", &port.to_string());
        let good = Link { path: "good", name: "good", url: "../lib.git", commit: &lib };
        let bad = Link { path: "bad", name: "bad", url: &url, commit: &lib };
        repository(&scene.bare("web"), &[], &[bad, good]);
    };
    for (url, shown) in [
        ("https://127.0.0.1:PORT/x.git?token=canary-query", "https://127.0.0.1:"),
        ("https://127.0.0.1:PORT/x.git", "https://127.0.0.1:"),
        ("https://canary-user:canary-password@127.0.0.1:PORT/x.git", "127.0.0.1:"),
        ("ssh://git@127.0.0.1:PORT/x.git", "ssh://127.0.0.1:"),
        ("http://127.0.0.1:PORT/x.git", "http://127.0.0.1:"),
        ("git://127.0.0.1:PORT/x.git", "git://127.0.0.1:"),
        ("../../../../x.git", "x.git"),
        ("ext::sh -c touch% canary", "ext::sh"),
        ("file:///etc", "file:///etc"),
        ("/etc", "/etc"),
        ("--upload-pack=touch canary", "--upload-pack"),
        ("-u./canary:x", "-u"),
    ] {
        links(url);
        let outcome = scene.task().run().await;
        assert_eq!(outcome.diagnosis(), ("submodule_not_allowed", "checkout"), "{url}: {:#}", outcome.0);
        let text = outcome.0.to_string();
        assert!(
            text.contains("`bad`") && text.contains(shown) && !text.contains("canary-"),
            "{url}: {:#}",
            outcome.0
        );
        assert!(!scene.target().exists());
        let asked_for_submodules = scene.main.requests().iter().any(|line| line.contains("lib.git"));
        assert!(!asked_for_submodules, "policy is asked about all before anything is fetched");
    }
    let outcome = scene.task().skipping().run().await;
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    assert_eq!(outcome.warnings(), ["submodule_not_allowed"]);
    assert_eq!(outcome.0["submodules"][0], "good");
    assert_eq!(outcome.stages("warned"), ["checkout"]);
    assert!(entries(&scene.target().join("bad")).is_empty());
    assert!(stranger.accept().is_err(), "somebody connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_submodule_lacks_is_told_with_its_name_and_leaves_nothing() {
    on_both_engines(async || {
        let (scene, [lib, ..]) = Scene::usual();
        let nowhere = "1".repeat(40);
        for (url, commit, code) in [
            ("../missing.git", lib.as_str(), "repository_not_found_or_denied"),
            ("../lib.git", nowhere.as_str(), "reference_not_found"),
        ] {
            repository(&scene.bare("web"), &[], &[Link { path: "a/lib", name: "x", url, commit }]);
            let outcome = scene.task().run().await;
            assert_eq!(outcome.diagnosis(), (code, "checkout"), "{:#}", outcome.0);
            assert!(
                outcome.0["diagnosis"]["summary"].as_str().unwrap().contains("`a/lib`"),
                "{:#}",
                outcome.0
            );
            assert!(!scene.target().exists());
        }
        // The other server's own token is refused there: the name of the first one's must not be tried.
        let (scene, _) = Scene::usual();
        write_private(&scene.directory.path().join("wrong"), "wrong").unwrap();
        let mut asked = scene.task();
        asked
            .credentials
            .insert("other".into(), source(CredentialKind::Pat, scene.directory.path().join("wrong")));
        let outcome = asked.run().await;
        assert_eq!(outcome.diagnosis(), ("pat_rejected", "checkout"), "{:#}", outcome.0);
        assert!(
            outcome.0["diagnosis"]["summary"].as_str().unwrap().contains("`vendor/dep`"),
            "{:#}",
            outcome.0
        );
        let left: Vec<_> = entries(scene.directory.path());
        assert!(!left.iter().any(|name| name.contains("target")), "{left:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_paths_that_lead_elsewhere_are_refused() {
    on_both_engines(async || {
    let (scene, [lib, ..]) = Scene::usual();
    let link = |path, name| Link { path, name, url: "../lib.git", commit: &lib };
    let cases = [
        vec![link("a", "../../x")],
        vec![link("a", "..")],
        vec![link("a", "x/../../hooks")],
        vec![link("a", "..\\\\..\\\\x")],
        vec![link("a", ".git")],
        vec![link("a", "/etc/x")],
        vec![link("a", "-x")],
        vec![link("a", "")],
        vec![link("a\r", "cr")],
        vec![link("--upload-pack=x", "dash")],
        vec![link("a", "one"), link("b", "one/hooks")],
        vec![link("a", "one"), link("b", "ONE")],
    ];
    for links in cases {
        let shown = links.iter().map(|link| format!("{:?} {:?}", link.path, link.name)).collect::<Vec<_>>();
        repository(&scene.bare("web"), &[], &links);
        let outcome = scene.task().run().await;
        assert_eq!(outcome.diagnosis(), ("unsafe_path", "checkout"), "{shown:?}: {:#}", outcome.0);
        assert!(!scene.target().exists() && !scene.directory.path().join("x").exists());
    }
    for modules in ["[submodule \"a\"\n", "\u{0}\n", "[submodule \"a\"]\npath = \"a\n"] {
        repository_with(&scene.bare("web"), &[], &[link("a", "a")], modules);
        let outcome = scene.task().run().await;
        assert_eq!(outcome.diagnosis(), ("unsafe_path", "checkout"), "{modules:?}: {:#}", outcome.0);
    }
    // What leads elsewhere and is no entry of the commit is not looked at, and neither is a file that it includes.
    let modules = "[include]\npath = /etc/hostname\n[submodule \"x\"]\nupdate = !touch canary\n[submodule \"../../x\"]\npath = ../../x\nurl = ../lib.git\n";
    repository_with(&scene.bare("web"), &[], &[link("a", "a")], modules);
    let outcome = scene.task().run().await;
    assert!(outcome.succeeded() && outcome.0["submodules"] == json!([]), "{:#}", outcome.0);
    assert_eq!(entries(&scene.target()), [".git", ".gitmodules", "a"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_on_the_way_to_a_submodule_leads_nowhere() {
    on_both_engines(async || {
        let (scene, [lib, ..]) = Scene::usual();
        let bare = scene.bare("web");
        let hook = "#!/bin/sh\ntouch canary\n";
        let evil = repository(&scene.bare("evil"), &[("y/hooks/post-checkout", hook)], &[]);
        // One name as a link and as a directory, which no tool of git's writes.
        let modules = "[submodule \"x/y\"]\npath = A/modules/x\nurl = ../evil.git\n";
        repository_with(
            &bare,
            &[],
            &[Link { path: "A/modules/x", name: "x/y", url: "", commit: &evil }],
            modules,
        );
        let tree = run_git(&bare, ["rev-parse", "main:A"]);
        let blob = run_git(&bare, ["rev-parse", "main:.gitmodules"]);
        let file = scene.directory.path().join("link");
        fs::write(&file, ".git").unwrap();
        let link = run_git(&bare, ["hash-object", "-w", file.to_str().unwrap()]);
        for name in ["A", "a"] {
            let mut raw = Vec::new();
            let sorted = [("100644", ".gitmodules", &blob), ("40000", "A", &tree), ("120000", name, &link)];
            for (mode, name, oid) in sorted {
                raw.extend(format!("{mode} {name}\0").bytes());
                raw.extend((0..20).map(|at| u8::from_str_radix(&oid[at * 2..at * 2 + 2], 16).unwrap()));
            }
            fs::write(&file, raw).unwrap();
            let root =
                run_git(&bare, ["hash-object", "-w", "-t", "tree", "--literally", file.to_str().unwrap()]);
            let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
            let commit = run_git(&bare, [who.as_slice(), &["commit-tree", "-m", "x", &root]].concat());
            run_git(&bare, ["update-ref", "refs/heads/main", &commit]);
            let outcome = scene.task().run().await;
            if name == "A" {
                assert_eq!(outcome.diagnosis(), ("unsafe_path", "checkout"), "{:#}", outcome.0);
                assert!(!scene.target().exists());
            } else {
                // Where case counts these are two names, and the submodule lies below the directory.
                assert!(outcome.succeeded(), "{:#}", outcome.0);
                assert!(scene.target().join("A/modules/x/y/hooks/post-checkout").is_file());
                assert!(!scene.target().join(".git/modules/x/y/hooks").exists());
                scene.assert_whole(&[("A/modules/x", &evil)]);
            }
        }
        assert!(!lib.is_empty());
    })
    .await;
}
