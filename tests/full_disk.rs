//! A disk that fills up in the middle of a clone, and the control plane's disk for artifacts: what is told, what is left,
//! and that everything goes on once there is room.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sortie::git::Engine;
use stand_ins::Fault;

use crate::clone::{commit, entries, tree, write_object};
use crate::support::agent::Agent;
use crate::support::control_plane::{ControlPlane, ServeSettings};
use crate::support::process::{command_line, wait_until};
use crate::support::repository::run_git;
use crate::support::scene::Scene;
use crate::support::small_disk::{Way, way};

const MIB: u64 = 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(60);

/// An agent whose state directory has a small disk of its own.
struct Narrow {
    scene: Scene,
    control_plane: ControlPlane,
    agent: Agent,
}

impl Narrow {
    fn start(scene: Scene, engine: Engine, toml: &str) -> Self {
        let control_plane = ControlPlane::start();
        let toml = format!("[git]\nengine = \"{}\"\n{toml}", engine.as_str());
        let agent = scene.agent("fra1-a").with_small_state(64).with_toml(&toml).start(&control_plane);
        Self { scene, control_plane, agent }
    }

    fn run(&self, more: &Value) -> Value {
        let mut task = self.scene.clone_task(json!({}));
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.control_plane.run_task(&task)
    }

    /// Runs a clone with room for so many bytes, which has to end at one of these stages with `disk_full`, and again with
    /// all the room that there is.
    fn fills_up(&self, more: &Value, bytes: u64, stages: &[&str]) -> Value {
        let before = self.left();
        self.agent.leave_room(Some(bytes));
        let failed = self.run(more);
        let diagnosis = &failed["result"]["diagnosis"];
        assert_eq!(diagnosis["code"], "disk_full", "{failed:#}");
        let stage = diagnosis["stage"].as_str().unwrap();
        assert!(stages.contains(&stage), "{stage} is none of {stages:?}: {failed:#}");
        let remedies = diagnosis["remedies"].to_string();
        assert!(remedies.contains("Free space on the file system"), "{remedies}");
        assert!(failed["result"]["path"].is_null());
        assert_eq!(self.left(), before, "something is left");
        self.agent.leave_room(None);
        let done = self.run(more);
        assert_eq!(done["outcome"], "succeeded", "{done:#}");
        done["result"].clone()
    }

    /// What lies where clones grow.
    fn left(&self) -> Vec<String> {
        let below = |name: &'static str| {
            let path = self.agent.state(name);
            let names = if path.exists() { entries(&path) } else { Vec::new() };
            names.into_iter().map(move |entry| format!("{name}/{entry}"))
        };
        ["workspaces", "tmp", "placed"].into_iter().flat_map(below).collect()
    }

    fn mirror(&self) -> PathBuf {
        let mirrors = self.agent.state("mirrors");
        let mut found = entries(&mirrors).into_iter().map(|name| mirrors.join(name));
        found.find(|path| path.join("objects").is_dir()).expect("a mirror")
    }

    /// Sees that git finds nothing wrong with the mirror, and that nothing is in it that does not belong there.
    fn assert_mirror_is_whole(&self) {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("copy.git");
        // Git does not find its way through the directory by which another process is seen.
        command_line(Command::new("cp").arg("-a").arg(self.mirror()).arg(&copy));
        assert_eq!(run_git(&copy, ["fsck", "--no-dangling"]), "");
        let packs = entries(&copy.join("objects/pack"));
        let is_known = |name: &String| name.ends_with(".pack") || name.ends_with(".idx");
        assert!(packs.iter().all(is_known), "{packs:?}");
        assert!(!self.agent.log().contains("a mirror is damaged"), "{}", self.agent.log());
    }
}

/// Bytes that nothing makes smaller.
fn noise(length: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// A repository with one file more, of these bytes.
fn with_file(content: &[u8]) -> Scene {
    let scene = Scene::small();
    add_file(&scene, content);
    scene
}

fn add_file(scene: &Scene, content: &[u8]) {
    let repository = &scene.sample.directory;
    let blob = write_object(repository, "blob", content);
    commit(repository, "main", &tree(repository, &[("100644", "large.bin", &blob)]));
}

const NO_MIRRORS: &str = "[mirrors]\nenabled = false\n";
const ENGINES: [Engine; 2] = [Engine::Gix, Engine::Libgit2];

#[test]
fn it_fills_up_while_the_pack_comes() {
    for engine in ENGINES {
        let all = Narrow::start(with_file(&noise(12 * MIB)), engine, NO_MIRRORS);
        all.fills_up(&json!({}), 4 * MIB, &["receive"]);
        all.fills_up(&json!({"deliver": "none"}), 4 * MIB, &["receive"]);
        all.fills_up(&json!({"deliver": "archive"}), 4 * MIB, &["receive"]);
        all.fills_up(&json!({"deliver": "bundle"}), 4 * MIB, &["receive"]);
    }
}

fn fills_up_while_the_index_is_written(engine: Engine) {
    let scene = Scene::generated(30_000);
    let pack = fs::read_dir(scene.sample.directory.join("objects/pack")).unwrap();
    let packs =
        pack.map(Result::unwrap).filter(|entry| entry.path().extension().is_some_and(|e| e == "pack"));
    let bytes: u64 = packs.map(|entry| entry.metadata().unwrap().len()).sum();
    let all = Narrow::start(scene, engine, NO_MIRRORS);
    // An index has 28 bytes for each object and more. Where each file is limited, already the pack is too large.
    let (bytes, stages) = match way() {
        Way::Mount(_) => (bytes + MIB / 2, &["index"][..]),
        Way::FileSize => (bytes / 2, &["receive"][..]),
    };
    all.fills_up(&json!({}), bytes, stages);
    all.fills_up(&json!({"deliver": "archive"}), bytes, stages);
}

#[test]
fn it_fills_up_while_the_index_is_written() {
    for engine in ENGINES {
        fills_up_while_the_index_is_written(engine);
    }
}

#[test]
fn it_fills_up_while_files_are_written() {
    for engine in ENGINES {
        let all = Narrow::start(with_file(&vec![0; 16 * 1024 * 1024]), engine, NO_MIRRORS);
        let done = all.fills_up(&json!({}), 8 * MIB, &["checkout"]);
        assert_eq!(done["files"], 1);
        // An archive holds the same file and needs no room for it.
        all.agent.leave_room(Some(8 * MIB));
        let archive = all.run(&json!({"deliver": "archive"}));
        assert_eq!(archive["outcome"], "succeeded", "{archive:#}");
    }
}

#[test]
fn it_fills_up_while_an_object_of_lfs_comes() {
    let content = noise(12 * MIB);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &content);
    let oid: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let text =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {}\n", content.len());
    for engine in ENGINES {
        let scene = Scene::small();
        let repository = &scene.sample.directory;
        let objects = repository.with_extension("lfs");
        fs::create_dir(&objects).unwrap();
        fs::write(objects.join(&oid), &content).unwrap();
        let pointer = write_object(repository, "blob", text.as_bytes());
        let attributes = write_object(repository, "blob", b"*.bin filter=lfs -text\n");
        let files = [("100644", ".gitattributes", &attributes), ("100644", "large.bin", &pointer)];
        commit(
            repository,
            "main",
            &tree(repository, &files.map(|(mode, name, oid)| (mode, name, oid.as_str()))),
        );
        let all = Narrow::start(scene, engine, NO_MIRRORS);
        let wanted = json!({"lfs": true});
        if let Way::Mount(_) = way() {
            // What has no room is not even asked for.
            all.fills_up(&wanted, 8 * MIB, &["checkout"]);
        }
        all.scene.server().set_fault_at("/gitlab-lfs/objects/", Fault::PauseAfter { bytes: 100_000 });
        let mut task = all.scene.clone_task(json!({}));
        task["lfs"] = true.into();
        all.scene.server().clear_requests();
        let id = all.control_plane.post_task(&task);
        all.scene
            .wait_for_request("the object comes", |request| request.path.contains("/gitlab-lfs/objects/"));
        all.agent.leave_room(Some(2 * MIB));
        all.scene.server().clear_fault();
        let failed = all.control_plane.wait_task(&id, LIMIT);
        let diagnosis = &failed["result"]["diagnosis"];
        assert_eq!((&diagnosis["code"], &diagnosis["stage"]), (&json!("disk_full"), &json!("checkout")));
        let left = all.left();
        assert!(left.iter().all(|name| !name.contains(&id)), "{left:?}");
        all.agent.leave_room(None);
        let done = all.run(&wanted);
        assert_eq!((&done["outcome"], &done["result"]["lfs_pointers"]), (&json!("succeeded"), &json!(0)));
    }
}

#[test]
fn a_mirror_whose_disk_fills_up_stays_usable() {
    for engine in ENGINES {
        let all = Narrow::start(Scene::small(), engine, "");
        let first = all.run(&json!({}));
        assert_eq!(first["outcome"], "succeeded", "{first:#}");
        add_file(&all.scene, &noise(12 * MIB));
        all.agent.leave_room(Some(4 * MIB));
        let failed = all.run(&json!({}));
        let diagnosis = &failed["result"]["diagnosis"];
        assert_eq!(diagnosis["code"], "disk_full", "{failed:#}");
        // What completes a pack writes an entry once all of it is there.
        assert!(["receive", "index"].contains(&diagnosis["stage"].as_str().unwrap()), "{diagnosis:#}");
        // What was there before still serves, without room for more.
        let again = all.run(&json!({"reference": "v1.0"}));
        assert_eq!((&again["outcome"], &again["result"]["source"]), (&json!("succeeded"), &json!("mirror")));
        all.assert_mirror_is_whole();
        all.agent.leave_room(None);
        let done = all.run(&json!({}));
        assert_eq!((&done["outcome"], &done["result"]["source"]), (&json!("succeeded"), &json!("mirror")));
        all.assert_mirror_is_whole();
    }
}

#[test]
fn a_mirror_that_has_no_room_to_begin_with_is_none() {
    let all = Narrow::start(with_file(&noise(12 * MIB)), Engine::Gix, "");
    let done = all.fills_up(&json!({}), 4 * MIB, &["receive", "index"]);
    assert_eq!(done["source"], "mirror");
    all.assert_mirror_is_whole();
}

#[test]
fn a_control_plane_without_room_for_an_artifact_says_so_and_takes_it_later() {
    let scene = with_file(&noise(12 * MIB));
    let control_plane =
        ControlPlane::start_with(ServeSettings { artifacts_mebibytes: Some(64), ..ServeSettings::default() });
    let _agent = scene.agent("fra1-a").start(&control_plane);
    let mut task = scene.clone_task(json!({}));
    for deliver in ["archive", "bundle"] {
        task["deliver"] = deliver.into();
        control_plane.leave_room(Some(4 * MIB));
        let failed = control_plane.run_task(&task);
        let diagnosis = &failed["result"]["diagnosis"];
        assert_eq!((&diagnosis["code"], &diagnosis["stage"]), (&json!("delivery_failed"), &json!("deliver")));
        let summary = diagnosis["summary"].as_str().unwrap();
        assert!(summary.contains("the artifact store is full"), "{summary}");
        assert!(diagnosis["remedies"].to_string().contains("enlarge the disk"), "{diagnosis:#}");
        let files = || {
            let found = entries(&control_plane.artifacts());
            found.into_iter().filter(|name| name != "filler").collect::<Vec<_>>()
        };
        wait_until("nothing of it is left", LIMIT, || files().is_empty());
        control_plane.leave_room(None);
        let done = control_plane.run_task(&task);
        assert_eq!(done["outcome"], "succeeded", "{done:#}");
        let id = done["result"]["artifact"]["id"].as_str().unwrap();
        assert_eq!(files(), [id]);
        let path = format!("/api/v1/artifacts/{id}");
        assert_eq!(control_plane.request(reqwest::Method::DELETE, &path, None).status, 204);
        wait_until("it is removed", LIMIT, || files().is_empty());
    }
}

#[test]
fn a_workspace_of_which_no_note_can_be_taken_is_no_success() {
    let scene = Scene::generated(5_000);
    let control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").start(&control_plane);
    let id = scene.begin_clone(&control_plane);
    // Where the note belongs there is something that no file takes the place of.
    let note = format!("{id}-1.json");
    let in_the_way = agent.state("workspaces").join(&note);
    fs::create_dir_all(in_the_way.join("x")).unwrap();
    scene.server().clear_fault();
    let failed = control_plane.wait_task(&id, LIMIT);
    let diagnosis = &failed["result"]["diagnosis"];
    assert_eq!((&diagnosis["code"], &diagnosis["stage"]), (&json!("delivery_failed"), &json!("deliver")));
    assert!(diagnosis["remedies"].to_string().contains(&note), "{diagnosis:#}");
    let left = entries(&agent.state("workspaces"));
    assert!(left.is_empty() || left == [note], "{left:?}");
}
