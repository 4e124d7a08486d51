//! Bundles of one reference, taken by git.

use std::io;
use std::path::{Path, PathBuf};

use sortie::git::{BundleRequest, Bundled, Error, Limit, bundle};

use crate::git_transport::a_minute;
use crate::support::repository::{SampleRepository, git, run_git};

fn request(reference: &str, target: &str) -> BundleRequest {
    BundleRequest { reference: reference.to_owned(), target: target.to_owned(), max_bytes: u64::MAX }
}

/// Writes a bundle, lets git verify and clone it, and returns the clone.
fn cloned(repository: &Path, wanted: &BundleRequest, directory: &Path) -> (PathBuf, Bundled) {
    let file = directory.join("a.bundle");
    let mut bytes = Vec::new();
    let bundled = bundle(repository, wanted, &mut bytes, &a_minute()).unwrap();
    assert_eq!(bundled.bytes, bytes.len() as u64);
    std::fs::write(&file, &bytes).unwrap();
    run_git(repository, ["bundle", "verify", "--quiet", file.to_str().unwrap()]);
    let target = directory.join("clone");
    run_git(directory, ["clone", "--quiet", file.to_str().unwrap(), target.to_str().unwrap()]);
    run_git(&target, ["fsck", "--strict", "--no-dangling"]);
    assert_eq!(run_git(&target, ["status", "--porcelain"]), "");
    (target, bundled)
}

#[test]
fn a_repository_that_holds_more_gives_one_reference_with_its_history() {
    let directory = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&directory.path().join("sample"));
    let commit = sample.commit("main");
    let (target, bundled) = cloned(&sample.directory, &request("refs/heads/main", &commit), directory.path());
    assert!(!bundled.is_copied);
    assert_eq!(run_git(&target, ["rev-parse", "HEAD"]), commit);
    assert_eq!(run_git(&target, ["symbolic-ref", "HEAD"]), "refs/heads/main");
    let count = |repository: &Path, revision: &str| {
        run_git(repository, ["rev-list", "--objects", "--count", revision])
    };
    assert_eq!(count(&target, "HEAD"), count(&sample.directory, "main"));
    assert_eq!(bundled.objects.to_string(), count(&sample.directory, "main"));
    // Nothing of the other branch.
    assert_eq!(
        run_git(&target, ["rev-list", "--all", "--count"]),
        run_git(&sample.directory, ["rev-list", "--count", "main"])
    );
}

#[test]
fn a_tag_brings_its_own_object_and_a_commit_needs_no_name() {
    let directory = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&directory.path().join("sample"));
    let tag = run_git(&sample.directory, ["rev-parse", "v1.0"]);
    let (target, _) = cloned(&sample.directory, &request("refs/tags/v1.0", &tag), directory.path());
    assert_eq!(run_git(&target, ["rev-parse", "v1.0"]), tag);
    assert_eq!(run_git(&target, ["rev-parse", "HEAD"]), sample.commit("v1.0"));
    std::fs::remove_dir_all(&target).unwrap();
    let commit = sample.commit("main~1");
    let (target, _) = cloned(&sample.directory, &request("HEAD", &commit), directory.path());
    assert_eq!(run_git(&target, ["rev-parse", "HEAD"]), commit);
}

#[test]
fn the_only_pack_of_a_fresh_repository_is_taken_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let sample = SampleRepository::generated(&directory.path().join("sample"), 3000);
    let commit = sample.commit("main");
    let fresh = directory.path().join("fresh");
    let (from, to) = (format!("file://{}", sample.directory.display()), fresh.display().to_string());
    run_git(directory.path(), ["clone", "--quiet", "--bare", "--single-branch", "--no-tags", &from, &to]);
    run_git(&fresh, ["repack", "-adq"]);
    let (target, bundled) = cloned(&fresh, &request("refs/heads/main", &commit), directory.path());
    assert!(bundled.is_copied);
    assert_eq!(run_git(&target, ["rev-parse", "HEAD"]), commit);
    // A second reference may have brought more.
    run_git(&fresh, ["update-ref", "refs/heads/other", "main~1"]);
    std::fs::remove_dir_all(&target).unwrap();
    let (_, bundled) = cloned(&fresh, &request("refs/heads/main", &commit), directory.path());
    assert!(!bundled.is_copied);
    run_git(&fresh, ["update-ref", "-d", "refs/heads/other"]);
    // A pack that is not what its index knows is not handed on.
    let pack = std::fs::read_dir(fresh.join("objects/pack")).unwrap().map(|entry| entry.unwrap().path());
    let pack =
        pack.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "pack")).unwrap();
    let bytes = std::fs::read(&pack).unwrap();
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, &bytes[..bytes.len() - 1]).unwrap();
    let refused = bundle(&fresh, &request("refs/heads/main", &commit), &mut io::sink(), &a_minute());
    assert!(matches!(refused, Err(Error::PackCorrupt(_))), "{refused:?}");
}

#[test]
fn part_of_a_history_limits_and_a_cancel_give_no_bundle() {
    let directory = tempfile::tempdir().unwrap();
    let sample = SampleRepository::generated(&directory.path().join("sample"), 3000);
    let commit = sample.commit("main");
    let shallow = directory.path().join("shallow");
    let from = format!("file://{}", sample.directory.display());
    run_git(directory.path(), ["clone", "--quiet", "--bare", "--depth=1", &from, shallow.to_str().unwrap()]);
    let wanted = request("refs/heads/main", &commit);
    let refused = bundle(&shallow, &wanted, &mut io::sink(), &a_minute());
    assert!(matches!(refused, Err(Error::Shallow)), "{refused:?}");
    run_git(&sample.directory, ["update-ref", "refs/heads/other", "main~1"]);
    let limited = BundleRequest { max_bytes: 1000, ..wanted.clone() };
    let refused = bundle(&sample.directory, &limited, &mut io::sink(), &a_minute());
    assert!(matches!(refused, Err(Error::TooLarge { what: Limit::BundleBytes, limit: 1000 })), "{refused:?}");
    let control = a_minute();
    control.cancel.cancel();
    let refused = bundle(&sample.directory, &wanted, &mut io::sink(), &control);
    assert!(matches!(refused, Err(Error::Cancelled)), "{refused:?}");
    assert!(
        git().arg("-C").arg(&sample.directory).args(["fsck", "--strict"]).output().unwrap().status.success()
    );
}
