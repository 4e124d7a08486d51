//! The daemon that runs, and what it is asked.

use super::*;

#[test]
fn a_daemon_carries_out_one_doctor_at_a_time_and_ends_with_its_client() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let (plan, _credentials) = unit_agent(&scene);
    let mut agent = plan.start(&control_plane);
    scene.server().set_fault(Fault::Stall);
    let first = Sortie::new();
    let mut running = first.start(["doctor", "--config", agent.config().to_str().unwrap()]);
    scene.wait_for_request("the daemon is at work", |_| true);
    let second = doctor(agent.config(), &["--json"]).json();
    assert_eq!(status(&second, "server:lab"), "skipped");
    assert!(summary(&second, "server:lab").contains("another doctor"), "{second:#}");
    running.interrupt();
    assert_eq!(running.wait(LIMIT).and_then(|status| status.code()), Some(130));
    wait_until("the daemon is free", LIMIT, || {
        let report = doctor(agent.config(), &["--json", "--deadline", "2"]).json();
        summary(&report, "server:lab").contains("deadline_exceeded")
    });
    // One that is at work does not hold the daemon's end up.
    let _third = first.start(["doctor", "--config", agent.config().to_str().unwrap()]);
    scene.server().clear_requests();
    scene.wait_for_request("the daemon is at work again", |_| true);
    let begun = Instant::now();
    agent.terminate();
    assert_eq!(agent.wait(LIMIT).and_then(|status| status.code()), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_daemon_that_is_not_connected_or_goes_by_another_configuration_is_told() {
    let scene = Scene::small();
    let mut control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").start(&control_plane);
    let text = std::fs::read_to_string(agent.config()).unwrap();
    std::fs::write(agent.config(), text.replace("max_tasks = 4", "max_tasks = 5")).unwrap();
    let report = doctor(agent.config(), &["--json"]).json();
    assert_eq!(status(&report, "daemon"), "warned");
    assert!(check(&report, "daemon")["remedies"].to_string().contains("systemctl restart"), "{report:#}");
    control_plane.kill();
    wait_until("the daemon has noticed", LIMIT, || {
        status(&doctor(agent.config(), &["--json", "--deadline", "5"]).json(), "daemon") == "failed"
    });
    control_plane.restart();
}
