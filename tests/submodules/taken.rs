//! What comes along, where and how, as git itself has it.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn submodules_stay_empty_unless_they_are_asked_for() {
    let (scene, _) = Scene::usual();
    let mut asked = scene.task();
    asked.request.submodules = Submodules::default();
    let outcome = asked.run().await;
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    assert_eq!(outcome.0["submodules"], json!([]));
    for path in ["libs/lib", "vendor/dep"] {
        assert!(entries(&scene.target().join(path)).is_empty());
    }
    assert_eq!(entries(&scene.target().join("libs")), ["lib", "other.txt"]);
    scene.assert_whole(&[]);
    assert!(scene.other.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_come_with_theirs_as_git_has_them_each_with_its_own_servers_credential() {
    on_both_engines(async || {
        let (scene, [lib, inner, dep]) = Scene::usual();
        let outcome = scene.task().run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["submodules"], json!(["libs/lib", "libs/lib/deep/inner", "vendor/dep"]));
        assert_eq!(outcome.0["files"], 3 + 3 + 1 + 1);
        assert_eq!(outcome.warnings(), Vec::<&str>::new());
        let facts = outcome.facts("checkout")["submodules"].as_array().unwrap().clone();
        assert_eq!(facts[1], json!({"path": "libs/lib/deep/inner", "commit": inner, "server": "main"}));
        assert_eq!(facts[2], json!({"path": "vendor/dep", "commit": dep, "server": "other"}));
        let mut stages: Vec<_> =
            outcome.0["stages"].as_array().unwrap().iter().map(|s| s["stage"].clone()).collect();
        let count = stages.len();
        stages.dedup();
        assert_eq!(stages.len(), count, "a stage stands twice: {:#}", outcome.0);
        scene.assert_whole(&[("libs/lib", &lib), ("libs/lib/deep/inner", &inner), ("vendor/dep", &dep)]);
        let target = scene.target();
        assert_eq!(entries(&target.join("libs/lib/deep/inner")), [".git", "inner.txt"]);
        assert_eq!(entries(&target.join(".git/modules")), ["dep.v1", "libs"]);
        assert!(target.join(".git/modules/libs/lib/modules/inner one/HEAD").is_file());
        assert!(!target.join(".git/modules/libs/lib/hooks").exists());
        // Each server accepts its own token alone, and was never asked with another one.
        for nginx in [&scene.main, &scene.other] {
            let requests = nginx.requests();
            let with_credential = requests.iter().filter(|line| line.ends_with("yes"));
            assert!(with_credential.clone().all(|line| line.ends_with("200 yes")), "{requests:?}");
            // What kind of server it is was found out once.
            assert_eq!(requests.len() - with_credential.count(), 2, "{requests:?}");
        }
        // Git has nothing left to do, and can do it all again by itself from what is here.
        assert_eq!(run_git(&target, ["submodule", "update", "--init", "--recursive", "--checkout"]), "");
        fs::remove_file(target.join("libs/lib/lib.txt")).unwrap();
        run_git(&target, ["submodule", "update", "--recursive", "--force", "--checkout"]);
        scene.assert_whole(&[("libs/lib", &lib), ("libs/lib/deep/inner", &inner), ("vendor/dep", &dep)]);
        run_git(&target, ["submodule", "deinit", "--all"]);
        assert!(entries(&target.join("libs/lib")).is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_and_a_depth_make_no_difference() {
    on_both_engines(async || {
        let (scene, [lib, inner, dep]) = Scene::usual();
        let mut asked = scene.task();
        asked.mirrors = Some(Arc::new(Mirrors::new(scene.directory.path().join("mirrors"), u64::MAX)));
        for turn in 0..3 {
            asked.request.want.depth = (turn == 2).then_some(1);
            let outcome = asked.run().await;
            assert!(outcome.succeeded(), "{:#}", outcome.0);
            assert_eq!(outcome.0["received_objects"] == 0, turn > 0, "{:#}", outcome.0);
            scene.assert_whole(&[("libs/lib", &lib), ("libs/lib/deep/inner", &inner), ("vendor/dep", &dep)]);
            fs::remove_dir_all(scene.target()).unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn named_ones_come_alone_and_without_theirs() {
    on_both_engines(async || {
        let (scene, [lib, ..]) = Scene::usual();
        let outcome = scene.task().named(&["libs/lib"]).run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["submodules"], json!(["libs/lib"]));
        assert!(entries(&scene.target().join("vendor/dep")).is_empty());
        assert!(entries(&scene.target().join("libs/lib/deep/inner")).is_empty());
        scene.assert_whole(&[("libs/lib", &lib)]);
        assert!(scene.other.requests().is_empty());
        fs::remove_dir_all(scene.target()).unwrap();
        let missing = scene.task().named(&["libs/lib", "libs/none"]).run().await;
        assert_eq!(missing.diagnosis(), ("path_not_found", "checkout"), "{:#}", missing.0);
        assert!(missing.0["diagnosis"]["summary"].as_str().unwrap().contains("libs/none"), "{:#}", missing.0);
        assert!(!scene.target().exists());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_git_leaves_out_come_only_where_they_are_named() {
    on_both_engines(async || {
        let (scene, [lib, ..]) = Scene::usual();
        let modules = run_git(&scene.bare("web"), ["show", "main:.gitmodules"]);
        let modules = modules.replace("path = \"libs/lib\"", "path = \"libs/lib\"\n\tupdate = none");
        let work = scene.directory.path().join("work");
        run_git(scene.directory.path(), ["clone", "-q", scene.bare("web").to_str().unwrap(), "work"]);
        fs::write(work.join(".gitmodules"), modules + "\n").unwrap();
        let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
        run_git(&work, [who.as_slice(), &["commit", "-q", "-a", "-m", "Leave it out"]].concat());
        run_git(&work, ["push", "-q", "origin", "main"]);
        let outcome = scene.task().run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["submodules"], json!(["vendor/dep"]));
        assert!(entries(&scene.target().join("libs/lib")).is_empty());
        fs::remove_dir_all(scene.target()).unwrap();
        let outcome = scene.task().named(&["libs/lib"]).run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        scene.assert_whole(&[("libs/lib", &lib)]);
        fs::remove_dir_all(work).unwrap();
        fs::remove_dir_all(scene.target()).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_outside_of_the_chosen_paths_do_not_come() {
    on_both_engines(async || {
        let (scene, [lib, inner, _]) = Scene::usual();
        let mut asked = scene.task();
        asked.request.paths = vec!["libs".to_owned()];
        let outcome = asked.run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["submodules"], json!(["libs/lib", "libs/lib/deep/inner"]));
        assert_eq!(entries(&scene.target()), [".git", "libs"]);
        scene.assert_whole(&[("libs/lib", &lib), ("libs/lib/deep/inner", &inner)]);
        assert!(scene.other.requests().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_ssh_relative_urls_lead_to_the_same_server() {
    on_both_engines(async || {
        let (scene, [lib, inner, _]) = Scene::usual();
        let key = Key::make(scene.directory.path(), "key", KeyKind::Ed25519, None);
        let mut plan = Sshd::plan(&[KeyKind::Ed25519]).authorize(&key);
        for name in ["lib", "inner", "web"] {
            plan = plan.serve(&format!("shop/{name}.git"), &scene.bare(name));
        }
        let sshd = plan.with_directive("AcceptEnv GIT_PROTOCOL").start();
        for name in ["lib", "inner"] {
            run_git(&scene.bare(name), ["config", "uploadpack.allowAnySHA1InWant", "true"]);
        }
        let mut asked = scene.task().named(&["libs/lib"]);
        asked.servers = vec![Server {
            proxy: Proxy::Direct,
            allow_loopback: true,
            credential: Some("key".into()),
            known_hosts_file: Some(sshd.known_hosts()),
            ..Server::new("ssh", None, RemoteUrl::parse(&sshd.url()).unwrap())
        }];
        asked.credentials.insert("key".into(), source(CredentialKind::SshKey, key.private_file.clone()));
        asked.request.target = TargetSpec::Url(format!("{}/shop/web.git", sshd.url()));
        let outcome = asked.run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        scene.assert_whole(&[("libs/lib", &lib)]);
        fs::remove_dir_all(scene.target()).unwrap();
        asked.request.submodules = Submodules { which: Which::All, skip_refused: true };
        let outcome = asked.run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["submodules"], json!(["libs/lib", "libs/lib/deep/inner"]));
        assert_eq!(outcome.warnings(), ["submodule_not_allowed"]);
        scene.assert_whole(&[("libs/lib", &lib), ("libs/lib/deep/inner", &inner)]);
    })
    .await;
}

#[test]
fn git_reads_gitmodules_as_the_tests_write_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("modules");
    fs::write(&file, "[submodule \"a\\\"b\"]\n\tpath = \"x\ty\" ; no\n").unwrap();
    let mut command = git();
    let listed =
        crate::support::process::command_line(command.args(["config", "--list", "--file"]).arg(&file));
    assert_eq!(listed, "submodule.a\"b.path=x\ty");
}
