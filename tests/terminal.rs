//! What a person at a terminal sees: live rows while a test runs, and a clean table when it has ended.

use std::num::NonZero;

use stand_ins::Fault;

use crate::screen::Terminal;
use crate::support::process::write_private;
use crate::support::scene::{PAT, Scene};

fn on_terminal(scene: &Scene, columns: u16, more: &[&str]) -> Terminal {
    let file = scene.scratch().join("pat");
    write_private(&file, PAT).unwrap();
    let ca_file = scene.authority.ca_file().display().to_string();
    let mut arguments = vec!["test".to_owned(), scene.url()];
    arguments.extend(["--provider", "gitlab", "--pat-file"].map(ToOwned::to_owned));
    arguments.extend([file.display().to_string(), "--ca-file".into(), ca_file]);
    arguments.extend(more.iter().map(ToString::to_string));
    Terminal::start(NonZero::new(columns).unwrap(), scene.scratch(), &arguments)
}

/// A sign that turns while a stage runs.
fn spins(shown: &str) -> bool {
    shown.contains(|c: char| ('\u{2800}'..='\u{28ff}').contains(&c))
}

fn assert_one_table(terminal: &Terminal) {
    let shown = terminal.shown();
    let rows = |name: &str| shown.lines().filter(|line| line.contains(&format!(" {name} "))).count();
    assert_eq!((rows("resolve"), rows("tls")), (1, 1), "{shown}");
    assert!(!spins(&shown), "{shown}");
    assert!(terminal.is_left_clean(), "{shown}");
}

#[test]
fn stages_appear_while_they_run_and_leave_one_table() {
    let scene = Scene::small();
    scene.server().set_fault_at("info/refs", Fault::Stall);
    let mut terminal = on_terminal(&scene, 100, &["--deadline", "4"]);
    terminal.wait_for("the rows of a test that runs", |shown| {
        let row = |start: &str| shown.lines().any(|line| line.starts_with(start));
        row("✔ tls ") && row("✔ connect ") && spins(shown) && !shown.contains("failed")
    });
    assert_eq!(terminal.wait(), Some(1));
    assert_one_table(&terminal);
    let shown = terminal.shown();
    assert!(shown.contains("deadline_exceeded") && shown.contains("More: sortie explain"), "{shown}");
    let colored = terminal.painted();
    assert!(colored.contains("\u{1b}[32m"), "the marks have their colors: {colored}");
}

#[test]
fn ctrl_c_leaves_the_terminal_clean() {
    let scene = Scene::small();
    scene.server().set_fault_at("info/refs", Fault::Stall);
    let mut terminal = on_terminal(&scene, 80, &[]);
    terminal.wait_for("a test that runs", spins);
    scene.wait_for_request("git is asked", |request| request.path.contains("info/refs"));
    terminal.press(b"\x03");
    assert_eq!(terminal.wait(), Some(130), "{}", terminal.shown());
    assert_one_table(&terminal);
    assert!(terminal.shown().contains("cancelled"), "{}", terminal.shown());
}

#[test]
fn a_good_test_fits_its_terminal() {
    let scene = Scene::small();
    for columns in [44, 80, 120] {
        let mut terminal = on_terminal(&scene, columns, &[]);
        assert_eq!(terminal.wait(), Some(0), "{}", terminal.shown());
        assert_one_table(&terminal);
        let shown = terminal.shown();
        assert!(shown.trim_end().lines().last().unwrap().starts_with("succeeded in"), "{shown}");
        assert_eq!(shown.contains('█') || shown.contains('▏'), columns >= 80, "{shown}");
    }
}
