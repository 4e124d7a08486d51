//! What keeps a clone from its end, each cause brought about for real and named by its code.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use sortie::git::{Error, Limit, Limits};
use sortie::provider::Provider;
use stand_ins::Authority;

use crate::clone::{commit, entries, on_both_engines, tree, wanted, write_object};
use crate::git_transport::{TOKEN, a_minute, https};
use crate::support::binary::{binary, isolate};
use crate::support::nginx::Nginx;
use crate::support::process::{START_LIMIT, require, wait_until};
use crate::support::repository::{SampleRepository, run_git};
use crate::support::scene::Scene;
use crate::support::{control_plane::ControlPlane, control_plane::secret_file};
use crate::trial::Trial;

struct Lab {
    scratch: tempfile::TempDir,
    authority: Authority,
    sample: SampleRepository,
    nginx: Nginx,
}

impl Lab {
    fn start() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let sample = SampleRepository::small(&scratch.path().join("web.git"));
        let authority = Authority::create(scratch.path()).unwrap();
        let nginx = Nginx::plan(scratch.path()).accept_pat(TOKEN).start(&authority);
        Self { scratch, authority, sample, nginx }
    }

    fn trial(&self) -> Trial {
        let url = format!("{}/web.git", self.nginx.url());
        Trial::of(Some(Provider::Git), &self.nginx.url(), &url).trust(self.authority.ca_file()).pat(TOKEN)
    }

    fn target(&self) -> std::path::PathBuf {
        self.scratch.path().join("targets/web")
    }

    fn nothing_is_left(&self) -> bool {
        !self.scratch.path().join("targets").exists()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_hostile_trees_have_their_codes() {
    let lab = Lab::start();
    let limited = lab.trial().limited(Limits { max_files: 3, ..Limits::default() });
    let outcome = Box::pin(limited.clone_into(&lab.target())).await;
    assert_eq!(outcome.diagnosis(), ("too_large", "checkout"), "{:#}", outcome.0);
    assert!(lab.nothing_is_left());
    let repository = &lab.sample.directory;
    let evil = write_object(repository, "blob", b"evil\n");
    let hooks = tree(repository, &[("100755", "post-checkout", &evil)]);
    let git_directory = tree(repository, &[("40000", "hooks", &hooks)]);
    commit(repository, "main", &tree(repository, &[("40000", ".git", &git_directory)]));
    let outcome = Box::pin(lab.trial().clone_into(&lab.target())).await;
    assert_eq!(outcome.diagnosis(), ("unsafe_path", "checkout"), "{:#}", outcome.0);
    assert!(outcome.0["diagnosis"]["summary"].as_str().unwrap().contains("`.git`"), "{:#}", outcome.0);
    assert!(lab.nothing_is_left());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_of_a_tree_or_a_file_is_no_commit() {
    on_both_engines(async || {
        let lab = Lab::start();
        let repository = &lab.sample.directory;
        let file = write_object(repository, "blob", b"a public key\n");
        for (tag, kind, object) in [("key", "blob", &file), ("files", "tree", &tree(repository, &[]))] {
            run_git(repository, ["tag", tag, object]);
            let outcome = Box::pin(lab.trial().clone_at(Some(tag), None, &lab.target())).await;
            assert_eq!(outcome.diagnosis(), ("reference_not_a_commit", "references"), "{:#}", outcome.0);
            let summary = outcome.0["diagnosis"]["summary"].as_str().unwrap();
            assert!(summary.contains(&format!("`refs/tags/{tag}` is a {kind}")), "{summary}");
            assert!(lab.nothing_is_left());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_lacks_an_object_is_damaged() {
    let lab = Lab::start();
    let repository = &lab.sample.directory;
    // A tree that names a file which nobody has: git serves it, because it does not look into trees that it sends whole.
    let nowhere = "1".repeat(40);
    commit(repository, "main", &tree(repository, &[("100644", "file", &nowhere)]));
    let outcome = Box::pin(lab.trial().clone_into(&lab.target())).await;
    // Older servers send what they have, newer ones give up before they begin.
    let code = outcome.diagnosis().0;
    assert!(["pack_corrupt", "server_gave_up"].contains(&code), "{:#}", outcome.0);
    assert!(lab.nothing_is_left());
}

#[test]
fn workspaces_that_have_used_up_their_room_are_a_full_disk() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let _agent = scene.agent("fra1-a").with_toml("[workspaces]\nbytes = 1\n").start(&control_plane);
    let first = control_plane.run_task(&scene.clone_task(json!({})));
    assert_eq!(first["outcome"], "succeeded", "{first:#}");
    let second = control_plane.run_task(&scene.clone_task(json!({})));
    assert_eq!(second["result"]["diagnosis"]["code"], "disk_full", "{second:#}");
    let remedies = second["result"]["diagnosis"]["remedies"].to_string();
    assert!(
        remedies.contains("workspaces.bytes") && remedies.contains("sortie workspaces prune"),
        "{remedies}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_refused_by_what_the_pack_says_of_it_in_little_memory() {
    const ZEROS: usize = 300 * 1024 * 1024;
    /// Less than the file has: it was not unpacked into memory.
    const MAX_MEMORY_KIB: u64 = 128 * 1024;
    let lab = Lab::start();
    let work = lab.scratch.path().join("work");
    run_git(
        lab.scratch.path(),
        ["clone", "-q", lab.sample.directory.to_str().unwrap(), work.to_str().unwrap()],
    );
    fs::write(work.join("zeros.bin"), vec![0; ZEROS]).unwrap();
    run_git(&work, ["add", "--all"]);
    run_git(&work, ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "-qm", "zeros"]);
    run_git(&work, ["push", "-q", "origin", "HEAD:refs/heads/main"]);
    fs::remove_dir_all(&work).unwrap();
    let (told, pat) = (lab.scratch.path().join("memory"), secret_file(lab.scratch.path(), "pat", TOKEN));
    let config = lab.scratch.path().join("config.toml");
    let (url, ca_file) = (lab.nginx.url(), lab.authority.ca_file().display().to_string());
    let state = lab.scratch.path().join("state");
    fs::write(
        &config,
        format!(
            "[agent]\nstate_dir = \"{}\"\n[limits]\nblob_bytes = 1000000\n[servers.lab]\nprovider = \"git\"\n\
             url = \"{url}\"\nca_file = \"{ca_file}\"\nallow_loopback = true\n",
            state.display()
        ),
    )
    .unwrap();
    let mut command = Command::new(require("/usr/bin/time", "time"));
    isolate(&mut command, lab.scratch.path());
    command.args(["--format=%M", "--output"]).arg(&told).arg(binary("sortie")).arg("clone");
    command.args(["--json", "--server", "lab", "--repository", "web.git", "--config"]).arg(&config);
    command.arg("--pat-file").arg(&pat).arg(lab.target());
    let output = command.output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["diagnosis"]["code"], "too_large", "{report:#}");
    assert!(lab.nothing_is_left());
    let memory = fs::read_to_string(&told).unwrap();
    let memory_kib: u64 = memory.lines().last().unwrap().trim().parse().unwrap();
    assert!(memory_kib < MAX_MEMORY_KIB, "{memory_kib} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_files_together_have_a_limit_that_holds_while_they_are_written() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let remote = server.remote(Some(TOKEN)).await;
        let target = server.directory.path().join("limited/web");
        let mut control = a_minute();
        control.limits.max_expanded_bytes = 40;
        let log = sortie::report::StageLog::default();
        let refused = sortie::git::clone(&remote, &wanted(None, &target), &control, &log).await;
        assert!(
            matches!(refused, Err(Error::TooLarge { what: Limit::ExpandedBytes, limit: 40 })),
            "{refused:?}"
        );
        assert!(!server.directory.path().join("limited").exists());
    })
    .await;
}

/// Kills a daemon with a signal that it cannot answer, in the middle of a clone, and sees what the next one finds.
#[test]
fn a_clone_that_is_killed_leaves_nothing_but_a_mirror_that_can_be_used() {
    for cut_after in [200, 20_000, 200_000] {
        let scene = Scene::generated(5_000);
        let control_plane = ControlPlane::start();
        let mut agent = scene.agent("fra1-a").start(&control_plane);
        scene.server().set_fault_at("git-upload-pack", stand_ins::Fault::PauseAfter { bytes: cut_after });
        let _id = control_plane.post_task(&scene.clone_task(json!({})));
        scene.wait_for_request("the pack is on its way", |request| request.path.ends_with("git-upload-pack"));
        agent.kill();
        scene.server().clear_fault();
        agent.restart();
        agent.wait_until_connected(&control_plane);
        let state = agent.directory().join("state");
        wait_until("what was left is swept", START_LIMIT, || {
            is_empty(&state.join("workspaces")) && is_empty(&state.join("tmp"))
        });
        let done = control_plane.run_task(&scene.clone_task(json!({})));
        assert_eq!(done["outcome"], "succeeded", "{done:#}");
        crate::clone::assert_whole(Path::new(done["result"]["path"].as_str().unwrap()));
        for mirror in entries(&state.join("mirrors")).iter().filter(|name| name.ends_with(".git")) {
            let packs = entries(&state.join("mirrors").join(mirror).join("objects/pack"));
            assert!(packs.iter().all(|name| name.starts_with("pack-")), "{packs:?}");
        }
    }
}

fn is_empty(directory: &Path) -> bool {
    !directory.exists() || entries(directory).iter().all(|name| !name.starts_with('.'))
}

#[test]
fn what_a_killed_program_left_beside_its_target_is_swept_by_the_next_one() {
    let lab = Lab::start();
    let targets = lab.scratch.path().join("targets");
    let left = targets.join(".web.sortie-abcdef");
    fs::create_dir_all(left.join("part")).unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(&left).unwrap().set_modified(long_ago).unwrap();
    let held = targets.join(".web.sortie-ghijkl");
    fs::create_dir_all(&held).unwrap();
    let holder = fs::File::open(&held).unwrap();
    holder.set_modified(long_ago).unwrap();
    holder.lock().unwrap();
    let pat = secret_file(lab.scratch.path(), "pat", TOKEN);
    let mut command = Command::new(binary("sortie"));
    isolate(&mut command, lab.scratch.path()).args(["clone", "--provider", "git", "--pat-file"]).arg(&pat);
    command.arg("--ca-file").arg(lab.authority.ca_file()).arg(format!("{}/web.git", lab.nginx.url()));
    assert!(command.arg(lab.target()).output().unwrap().status.success());
    assert_eq!(entries(&targets), [".web.sortie-ghijkl", "web"]);
}
