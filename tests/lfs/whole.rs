//! What is fetched is what Debian's git-lfs fetches, and git calls it clean.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_what_debians_git_lfs_makes_of_it() {
    for provider in [Provider::Gitlab, Provider::AzureDevOps] {
        let scene = Scene::start();
        let remote = scene.cloned(provider).await;
        let (control, log) = (a_minute(), StageLog::default());
        let fetched = scene.fetch(&remote, &control, &log).await.unwrap();
        log.pass();
        scene.assert_whole();
        let bytes: usize =
            scene.files.iter().filter(|(path, _)| *path != "small.bin").map(|(_, f)| f.0.len()).sum();
        assert_eq!((fetched.objects, fetched.bytes), (scene.files.len() as u64 - 1, bytes as u64));
        assert_eq!(
            (control.transfer.lfs_bytes(), control.transfer.total_lfs_bytes()),
            (bytes as u64, bytes as u64)
        );
        assert_eq!(log.records()[0].facts["lfs_objects"], fetched.objects);
        let batches = scene.server(provider).requests().iter().filter(|r| r.path.ends_with("/batch")).count();
        assert_eq!(batches, 2, "at most a hundred objects a request");

        let theirs = scene.scratch.path().join("theirs");
        let url = scene.url(provider);
        command_line(scene.with_git_lfs().args(["clone", "-q", &url]).arg(&theirs));
        let (ours, theirs) = (tree(&scene.target()), tree(&theirs));
        assert!(ours == theirs, "{:?}\n{:?}", ours.keys(), theirs.keys());
        assert_eq!(ours[Path::new("notes.txt")].0, pointer(&content(1, 11)).as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn git_and_git_lfs_call_the_result_clean() {
    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap();
    let target = scene.target();
    // The index knows the files as they are, so that nobody has to read them to know that they are unchanged.
    let known = run_git(&target, ["ls-files", "--debug", "media/big.bin"]);
    assert!(known.contains(&format!("size: {}", 5 * MIB + 17)), "{known}");
    let index = fs::File::options().write(true).open(target.join(".git/index")).unwrap();
    index.set_modified(std::time::SystemTime::now() + Duration::from_secs(10)).unwrap();
    assert_eq!(run_git(&target, ["status", "--porcelain"]), "", "without any filter");
    assert_eq!(scene.run_with_git_lfs(&target, &["status", "--porcelain", "--ignored"]), "");
    assert_eq!(run_git(&target, ["diff", "HEAD", "--stat"]), "");
    assert!(scene.run_with_git_lfs(&target, &["lfs", "fsck"]).contains("OK"));
    let listed = scene.run_with_git_lfs(&target, &["lfs", "ls-files"]);
    let is_there = |line: &str| line.contains(" * ") || line.ends_with(" - notes.txt");
    assert!(listed.lines().all(is_there), "all objects are there: {listed}");
    // A change is seen, and git-lfs brings the file back from the clone's own objects.
    fs::remove_file(target.join("bin/run.bin")).unwrap();
    scene.run_with_git_lfs(&target, &["checkout", "bin/run.bin"]);
    scene.assert_whole();
    fs::write(target.join("small.bin"), "changed").unwrap();
    assert_eq!(scene.run_with_git_lfs(&target, &["status", "--porcelain"]), " M small.bin");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_takes_objects_along_where_it_is_asked_and_names_the_one_that_it_lacks() {
    for (provider, flag) in [(Provider::Gitlab, "gitlab"), (Provider::AzureDevOps, "azure-devops")] {
        let site = Scene::start();
        let pat = secret_file(site.scratch.path(), "pat", TOKEN);
        let cloned = |name: &str, more: &[&str]| {
            let target = site.scratch.path().join(name);
            let mut command = Command::new(binary("sortie"));
            isolate(&mut command, site.scratch.path()).args(["clone", "--json", "--provider", flag]);
            command.arg("--pat-file").arg(&pat).arg("--ca-file").arg(site.authority.ca_file()).args(more);
            let output = command.arg(site.url(provider)).arg(&target).output().unwrap();
            (serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap(), target)
        };
        let (report, target) = cloned("with", &["--lfs"]);
        assert_eq!(report["outcome"], "succeeded", "{report:#}");
        // The one that only looks like a pointer stays one.
        assert_eq!(report["lfs_pointers"], 1, "{report:#}");
        for (path, (content, _)) in &site.files {
            assert!(fs::read(target.join(path)).unwrap() == *content, "{path}");
        }
        let (report, target) = cloned("without", &[]);
        assert_eq!(report["lfs_pointers"], site.files.len() + 1, "{report:#}");
        assert!(fs::read(target.join("media/big.bin")).unwrap().starts_with(b"version https://git-lfs"));
        fs::remove_file(site.object("media/big.bin")).unwrap();
        let (report, target) = cloned("lacking", &["--lfs"]);
        assert_eq!(report["diagnosis"]["code"], "lfs_failed", "{report:#}");
        assert!(report["diagnosis"]["summary"].as_str().unwrap().contains("media/big.bin"), "{report:#}");
        assert!(!target.exists());
    }
}
