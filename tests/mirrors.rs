//! Mirrors: what one clone brings serves the next one, for the same identity alone and never without asking the server.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sortie::git::{CloneRequest, Cloned, Error, Means, MirrorPlace, Mirrors, Remote, Source, Want, clone};
use sortie::report::{Stage, StageLog};

use crate::clone::{STAGES, assert_whole, commit, entries, tree, write_object};
use crate::git_transport::{Https, TOKEN, a_minute, https};
use crate::support::repository::{SampleRepository, run_git};

const PLENTY: u64 = u64::MAX;

struct Scene {
    server: Https,
    mirrors: Arc<Mirrors>,
    root: PathBuf,
}

impl Scene {
    fn of(sample: fn(&Path) -> SampleRepository) -> Self {
        let server = https(sample);
        let root = server.directory.path().join("mirrors");
        let mirrors = Arc::new(Mirrors::new(root.clone(), PLENTY));
        Self { server, mirrors, root }
    }

    fn place(&self, remote: &Remote, identity: &str) -> MirrorPlace {
        self.mirrors.place(&remote.url, identity)
    }

    fn target(&self, name: &str) -> PathBuf {
        self.server.directory.path().join(name)
    }

    async fn cloned(&self, name: &str, want: Want, identity: &str) -> Result<Cloned, Error> {
        self.cloned_with(name, want, identity, &StageLog::default()).await
    }

    async fn cloned_with(
        &self,
        name: &str,
        want: Want,
        identity: &str,
        log: &StageLog,
    ) -> Result<Cloned, Error> {
        let remote = self.server.remote(Some(TOKEN)).await;
        let request = CloneRequest {
            want,
            paths: Vec::new(),
            target: self.target(name),
            means: Means { mirror: Some(self.place(&remote, identity)), ..Means::default() },
            announce: None,
        };
        clone(&remote, &request, &a_minute(), log).await
    }

    fn packs(&self) -> Vec<PathBuf> {
        let mirror = fs::read_dir(&self.root).unwrap().map(|entry| entry.unwrap().path());
        let mirror = mirror.filter(|path| path.extension().is_some_and(|e| e == "git"));
        let packs = mirror.flat_map(|path| fs::read_dir(path.join("objects/pack")).unwrap());
        let mut packs: Vec<PathBuf> = packs.map(|entry| entry.unwrap().path()).collect();
        packs.sort();
        packs
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_clone_receives_nothing_and_is_as_whole_as_the_first() {
    let scene = Scene::of(SampleRepository::small);
    let first = scene.cloned("first", Want::default(), "pat").await.unwrap();
    assert!(first.received_objects > 0);
    let second = scene.cloned("second", Want::default(), "pat").await.unwrap();
    assert_eq!((second.source, second.received_objects), (Source::Mirror, 0));
    assert_eq!(second.commit, first.commit);
    // What is cloned stands by itself: the mirror may go.
    fs::remove_dir_all(&scene.root).unwrap();
    assert_whole(&scene.target("first"));
    assert_whole(&scene.target("second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_is_all_that_comes() {
    let scene = Scene::of(SampleRepository::small);
    let first = scene.cloned("first", Want::default(), "pat").await.unwrap();
    let newer = scene.server.sample.add_commit("main", "src/shop/cart.txt", "empty\nbut for this\n");
    let second = scene.cloned("second", Want::default(), "pat").await.unwrap();
    assert_eq!((second.commit.as_str(), second.source), (newer.as_str(), Source::Mirror));
    assert!(second.received_objects > 0 && second.received_objects < first.received_objects, "{second:?}");
    assert_whole(&scene.target("second"));
    // A branch that was never asked for leans on what is there.
    let branch = Want { reference: Some("feature".into()), ..Want::default() };
    let third = scene.cloned("third", branch, "pat").await.unwrap();
    assert!(third.received_objects < first.received_objects);
    assert_whole(&scene.target("third"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_is_ended_by_a_limit_leaves_the_mirror_as_it_was() {
    let scene = Scene::of(SampleRepository::small);
    scene.cloned("first", Want::default(), "one").await.unwrap();
    let mirror = |scene: &Scene| {
        let found = fs::read_dir(&scene.root).unwrap().map(|entry| entry.unwrap().path());
        let directory = found.filter(|path| path.is_dir()).collect::<Vec<_>>();
        (fs::metadata(&directory[0]).unwrap().ino(), directory)
    };
    let (before, packs) = (mirror(&scene), scene.packs());
    let blob = write_object(&scene.server.sample.directory, "blob", &[7; 100_000]);
    let root = tree(&scene.server.sample.directory, &[("100644", "large", &blob)]);
    commit(&scene.server.sample.directory, "main", &root);
    let remote = scene.server.remote(Some(TOKEN)).await;
    let mut control = a_minute();
    control.limits.max_blob_bytes = 50_000;
    let means = Means { mirror: Some(scene.place(&remote, "one")), ..Means::default() };
    let target = scene.target("limited");
    let request = CloneRequest { want: Want::default(), paths: Vec::new(), target, means, announce: None };
    let log = StageLog::default();
    let refused = clone(&remote, &request, &control, &log).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    assert_eq!((mirror(&scene), scene.packs()), (before, packs));
    let references = log.records().iter().filter(|record| record.stage == Stage::References).count();
    assert_eq!(references, 1, "it was tried once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_takes_nothing_from_another_and_a_refused_one_nothing_at_all() {
    let scene = Scene::of(SampleRepository::small);
    let first = scene.cloned("first", Want::default(), "one").await.unwrap();
    let other = scene.cloned("other", Want::default(), "two").await.unwrap();
    assert_eq!(other.received_objects, first.received_objects);
    assert_eq!(scene.mirrors.list().unwrap().len(), 2);
    let remote = scene.server.remote(Some("wrong")).await;
    let request = CloneRequest {
        want: Want::default(),
        paths: Vec::new(),
        target: scene.target("refused"),
        means: Means { mirror: Some(scene.place(&remote, "one")), ..Means::default() },
        announce: None,
    };
    let refused = clone(&remote, &request, &a_minute(), &StageLog::default()).await;
    assert!(matches!(refused, Err(Error::Unauthorized { .. })), "{refused:?}");
    assert!(!scene.target("refused").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_mirror_is_made_anew_without_a_word_to_whoever_clones() {
    let scene = Scene::of(SampleRepository::small);
    for damage in 0..4 {
        let _ = scene.cloned(&format!("before-{damage}"), Want::default(), "pat").await.unwrap();
        for pack in scene.packs() {
            let is_pack = pack.extension().is_some_and(|extension| extension == "pack");
            let content = fs::read(&pack).unwrap();
            // A clone has the same file under another name, so that it must not be written to.
            fs::remove_file(&pack).unwrap();
            match damage {
                0 if is_pack => fs::write(&pack, &content[..content.len() / 2]).unwrap(),
                1 if is_pack => fs::write(&pack, vec![0; content.len()]).unwrap(),
                2 if !is_pack => fs::write(&pack, b"no index").unwrap(),
                3 if is_pack => {}
                _ => fs::write(&pack, &content).unwrap(),
            }
        }
        let name = format!("after-{damage}");
        let log = StageLog::default();
        let after = scene.cloned_with(&name, Want::default(), "pat", &log).await;
        let stages: Vec<Stage> = log.records().iter().map(|record| record.stage).collect();
        assert_eq!(stages, STAGES, "{damage}");
        assert_eq!(after.unwrap().commit, scene.server.sample.commit("main"), "{damage}");
        assert_whole(&scene.target(&name));
        assert_whole(&scene.target(&format!("before-{damage}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_at_once_fetch_once() {
    let scene = Scene::of(SampleRepository::small);
    let wants: Vec<String> = (0..8).map(|number| format!("clone-{number}")).collect();
    let clones = wants.iter().map(|name| scene.cloned(name, Want::default(), "pat"));
    let done: Vec<Cloned> =
        futures_util::future::join_all(clones).await.into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(done.iter().filter(|cloned| cloned.received_objects > 0).count(), 1, "{done:?}");
    for name in &wants {
        assert_whole(&scene.target(name));
    }
    assert_eq!(scene.packs().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_depth_is_cut_from_a_mirror_and_does_not_fill_one() {
    let scene = Scene::of(SampleRepository::small);
    let shallow = || Want { depth: Some(1), ..Want::default() };
    let cold = scene.cloned("cold", shallow(), "pat").await.unwrap();
    assert_eq!((cold.source, scene.packs_or_none()), (Source::Origin, 0));
    scene.cloned("whole", Want::default(), "pat").await.unwrap();
    let warm = scene.cloned("warm", shallow(), "pat").await.unwrap();
    assert_eq!((warm.source, warm.received_objects), (Source::Mirror, 0));
    let two = scene.cloned("two", Want { depth: Some(2), ..Want::default() }, "pat").await.unwrap();
    assert_eq!(two.source, Source::Mirror);
    for (name, commits) in [("cold", "1"), ("warm", "1"), ("two", "2"), ("whole", "3")] {
        let target = scene.target(name);
        assert_eq!(run_git(&target, ["rev-list", "--count", "HEAD"]), commits, "{name}");
        assert_whole(&target);
    }
}

impl Scene {
    fn packs_or_none(&self) -> usize {
        if self.root.exists() { self.packs().len() } else { 0 }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_and_tags_that_are_gone_or_moved_do_no_harm() {
    let scene = Scene::of(SampleRepository::small);
    let all = || Want { all_branches: true, tags: true, ..Want::default() };
    scene.cloned("first", all(), "pat").await.unwrap();
    let repository = &scene.server.sample.directory;
    let main = scene.server.sample.commit("main");
    run_git(repository, ["branch", "-D", "feature"]);
    // A name that cannot stand beside the old one, and a branch that was rewritten.
    run_git(repository, ["update-ref", "refs/heads/feature/deeper", &main]);
    run_git(repository, ["update-ref", "refs/heads/main", "main^"]);
    run_git(repository, ["tag", "-d", "light"]);
    let second = scene.cloned("second", all(), "pat").await.unwrap();
    assert_eq!(second.commit, scene.server.sample.commit("main"));
    let target = scene.target("second");
    assert_whole(&target);
    let names = run_git(&target, ["for-each-ref", "--format=%(refname)"]);
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        [
            "refs/heads/main",
            "refs/remotes/origin/HEAD",
            "refs/remotes/origin/feature/deeper",
            "refs/remotes/origin/main",
            "refs/tags/v1.0"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_that_was_used_longest_ago_makes_room() {
    let scene = Scene::of(SampleRepository::small);
    for identity in ["one", "two", "three"] {
        scene.cloned(identity, Want::default(), identity).await.unwrap();
    }
    scene.cloned("again", Want::default(), "one").await.unwrap();
    let listed = scene.mirrors.list().unwrap();
    assert_eq!(
        listed.iter().map(|mirror| mirror.identity.as_str()).collect::<Vec<_>>(),
        ["one", "three", "two"]
    );
    assert!(
        listed.iter().all(|mirror| mirror.bytes > 0 && mirror.packs == 1 && mirror.url.ends_with("/web.git"))
    );
    let gone = scene.mirrors.prune(listed[0].bytes * 2).unwrap();
    assert_eq!(gone.iter().map(|mirror| mirror.identity.as_str()).collect::<Vec<_>>(), ["two"]);
    let small = Arc::new(Mirrors::new(scene.root.clone(), 1));
    let remote = scene.server.remote(Some(TOKEN)).await;
    let means = Means { mirror: Some(small.place(&remote.url, "four")), ..Means::default() };
    let target = scene.target("four");
    let request = CloneRequest { want: Want::default(), paths: Vec::new(), target, means, announce: None };
    clone(&remote, &request, &a_minute(), &StageLog::default()).await.unwrap();
    let left = scene.mirrors.list().unwrap();
    assert_eq!(left.iter().map(|mirror| mirror.identity.as_str()).collect::<Vec<_>>(), ["four"]);
    for name in ["one", "two", "three", "again", "four"] {
        assert_whole(&scene.target(name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_packs_become_few_and_no_borrower_notices() {
    let scene = Scene::of(SampleRepository::small);
    for number in 0..14 {
        scene.server.sample.add_commit("main", &format!("new-{number}.txt"), "new\n");
        scene.cloned(&format!("clone-{number}"), Want::default(), "pat").await.unwrap();
    }
    assert_eq!(scene.mirrors.list().unwrap()[0].packs, 14);
    let mirrors = Arc::clone(&scene.mirrors);
    tokio::task::spawn_blocking(move || mirrors.repack()).await.unwrap();
    assert_eq!(scene.mirrors.list().unwrap()[0].packs, 2);
    let after = scene.cloned("after", Want::default(), "pat").await.unwrap();
    assert_eq!((after.source, after.received_objects), (Source::Mirror, 0));
    for name in ["clone-0", "clone-13", "after"] {
        assert_whole(&scene.target(name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_left_is_swept() {
    let scene = Scene::of(SampleRepository::small);
    scene.cloned("first", Want::default(), "pat").await.unwrap();
    let pack = scene.packs().remove(0);
    let directory = pack.parent().unwrap();
    for name in ["tmp_pack_abc", "tmp_idx_abc", "pack-0000000000000000000000000000000000000000.pack"] {
        fs::write(directory.join(name), "left").unwrap();
    }
    fs::create_dir(scene.root.join(".new-abc")).unwrap();
    scene.mirrors.sweep();
    assert_eq!(entries(directory).len(), 2, "{:?}", entries(directory));
    assert!(!scene.root.join(".new-abc").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_checked_is_not_taken() {
    let scene = Scene::of(SampleRepository::small);
    let first = scene.cloned("first", Want::default(), "pat").await.unwrap();
    let old = scene.packs();
    let mirror = old[0].ancestors().nth(3).unwrap();
    let names = fs::read(mirror.join("packed-refs")).unwrap();
    scene.server.sample.add_commit("main", "src/shop/cart.txt", "empty\nbut for this\n");
    let second = scene.cloned("second", Want::default(), "pat").await.unwrap();
    assert_eq!(scene.packs().len(), 2 * old.len());
    // As it is where a process was killed between a pack and the look at what it leads to.
    fs::write(mirror.join("packed-refs"), names).unwrap();
    let checked = old.iter().map(|path| format!("{}\n", path.file_name().unwrap().display()));
    fs::write(mirror.join("sortie-unchecked"), checked.collect::<String>()).unwrap();
    let third = scene.cloned("third", Want::default(), "pat").await.unwrap();
    assert_eq!((third.commit, third.source), (second.commit, Source::Mirror));
    assert_eq!(third.received_objects, second.received_objects, "what is new comes again");
    assert!(third.received_objects < first.received_objects, "and what is old does not");
    assert_whole(&scene.target("third"));
    assert!(!mirror.join("sortie-unchecked").exists());
    fs::write(mirror.join("sortie-unchecked"), "").unwrap();
    scene.mirrors.sweep();
    assert_eq!(scene.packs(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_fails_behind_its_pack_leaves_nothing_of_it() {
    let scene = Scene::of(SampleRepository::small);
    scene.cloned("first", Want::default(), "pat").await.unwrap();
    let old = scene.packs();
    scene.server.sample.add_commit("main", "src/shop/cart.txt", "empty\nbut for this\n");
    // libgit2 writes down where a history ends once the pack is there.
    let lock = old[0].ancestors().nth(3).unwrap().join("shallow.lock");
    fs::write(&lock, "").unwrap();
    let refused = scene.cloned("second", Want::default(), "pat").await;
    assert!(matches!(refused, Err(Error::Target { .. })), "{refused:?}");
    assert_eq!(scene.packs(), old);
    fs::remove_file(&lock).unwrap();
    assert!(scene.cloned("third", Want::default(), "pat").await.unwrap().received_objects > 0);
}
