//! Limits, depth and a cancel hold for all repositories together.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn submodules_in_submodules_end_somewhere() {
    on_both_engines(async || {
        let (scene, _) = Scene::usual();
        // Each commit has the one before as its submodule: the same repository again and again.
        let bare = scene.bare("web");
        let mut commit = repository(&bare, &[("end", "x")], &[]);
        run_git(&bare, ["update-ref", "refs/heads/kept", &commit]);
        for level in 1..=11 {
            let link = Link { path: "again", name: "again", url: "./../web.git", commit: &commit };
            commit = repository(&bare, &[("level", &level.to_string())], &[link]);
            run_git(&bare, ["update-ref", &format!("refs/heads/kept-{level}"), &commit]);
            if level == 10 {
                let outcome = scene.task().run().await;
                assert_eq!(outcome.0["submodules"].as_array().unwrap().len(), 10, "{:#}", outcome.0);
                assert_eq!(outcome.0["submodules"][9], ["again"; 10].join("/"));
                run_git(
                    &scene.target(),
                    ["submodule", "foreach", "--recursive", "--quiet", "git status --porcelain"],
                );
                fs::remove_dir_all(scene.target()).unwrap();
            }
        }
        let outcome = scene.task().run().await;
        assert_eq!(outcome.diagnosis(), ("too_large", "checkout"), "{:#}", outcome.0);
        assert!(!scene.target().exists());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_all_repositories_together() {
    on_both_engines(async || {
        let (scene, _) = Scene::usual();
        let cases: [fn(&mut Limits); 3] = [
            // The clone alone has three files, and its first submodule three more.
            |limits| limits.max_files = 7,
            |limits| limits.max_expanded_bytes = 250,
            |limits| limits.max_objects = 16,
        ];
        for (number, lower) in cases.into_iter().enumerate() {
            let mut asked = scene.task();
            lower(&mut asked.limits);
            let outcome = asked.run().await;
            assert_eq!(outcome.diagnosis(), ("too_large", "checkout"), "{number}: {:#}", outcome.0);
            assert!(!scene.target().exists());
            asked.request.submodules = Submodules::default();
            let outcome = asked.run().await;
            assert!(outcome.succeeded(), "{number}: {:#}", outcome.0);
            fs::remove_dir_all(scene.target()).unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_in_the_middle_takes_effect_at_once_and_leaves_nothing() {
    on_both_engines(async || {
        let (scene, [lib, ..]) = Scene::usual();
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/x.git", silent.local_addr().unwrap());
        let links = [
            Link { path: "a", name: "a", url: "../lib.git", commit: &lib },
            Link { path: "b", name: "b", url: &url, commit: &lib },
        ];
        repository(&scene.bare("web"), &[], &links);
        let mut asked = scene.task();
        let base = RemoteUrl::parse(&format!("https://{}", silent.local_addr().unwrap())).unwrap();
        asked.servers.push(Server { url: base, name: "silent".into(), ..asked.servers[1].clone() });
        let running = asked.run();
        tokio::pin!(running);
        // It is connected to once the first submodule is there.
        let _held = tokio::select! {
            held = silent.accept() => held.unwrap(),
            outcome = &mut running => panic!("{:#}", outcome.0),
        };
        asked.cancel.cancel();
        let cancelled_at = std::time::Instant::now();
        let outcome = running.await;
        assert!(cancelled_at.elapsed() < STOP_LIMIT, "{:?}", cancelled_at.elapsed());
        assert_eq!(outcome.diagnosis().0, "cancelled", "{:#}", outcome.0);
        let left = entries(scene.directory.path());
        assert!(!left.iter().any(|name| name.contains("target")), "{left:?}");
    })
    .await;
}
