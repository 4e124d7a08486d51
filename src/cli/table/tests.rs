#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use sortie_protocol::report::TaskOutput;
use unicode_width::UnicodeWidthStr as _;

use super::*;
use crate::cli::markdown;
use crate::report::{Code, Diagnosis as Found, Stage, StageRecord, Status};
use crate::task::{wire_diagnosis, wire_stage};

const WIDE: Screen = Screen { width: 100, unicode: true, colors: false, live: false };
const NARROW: Screen = Screen { width: 40, unicode: false, colors: false, live: false };

fn record(stage: Stage, status: Status, offset_ms: u64, ms: u64, facts: Value) -> StageRecord {
    let Value::Object(facts) = facts else { panic!("facts are an object") };
    let time = std::time::Duration::from_millis;
    StageRecord { stage, status, offset: time(offset_ms), duration: time(ms), facts }
}

/// A report of these stages, as it comes out of `--json`.
fn report_of(stages: &[StageRecord], diagnosis: Option<&Found>, warnings: &[Found]) -> Report {
    let wire: Vec<_> = stages.iter().map(wire_stage).collect();
    let report = json!({
        "started_at": "2026-11-21T04:00:00Z", "duration_ms": 41.0,
        "outcome": if diagnosis.is_some() { "failed" } else { "succeeded" },
        "target": {"url": "https://ado.corp.example/DefaultCollection/Shop/_git/web", "provider": "azure-devops",
            "scope": "repository"},
        "server": {"product": "Azure DevOps Server", "version": "2022", "api_version": "7.0"},
        "identity": {"name": "Ada"},
        "credential": {"kind": "pat", "expires_at": "2027-01-01", "scopes": ["vso.code"], "missing_scopes": []},
        "capabilities": {"read_code": "yes", "read_projects": "yes", "set_status": "unknown", "manage_hooks": "no"},
        "repository": {"default_branch": "main", "head": "67f8f19ee4e619f1384895bcf9e5544b376b9c7d",
            "references": 12, "empty": false},
        "stages": wire,
        "warnings": warnings.iter().map(wire_diagnosis).collect::<Vec<_>>(),
        "diagnosis": diagnosis.map(wire_diagnosis),
    });
    serde_json::from_value(report).expect("a report")
}

fn stages() -> Vec<StageRecord> {
    vec![
        record(Stage::Resolve, Status::Passed, 0, 2, json!({"addresses": ["192.0.2.1", "192.0.2.2"]})),
        record(Stage::Connect, Status::Passed, 2, 10, json!({"address": "192.0.2.1:443"})),
        record(
            Stage::Tls,
            Status::Passed,
            12,
            20,
            json!({"version": "1.3", "issuer": "O=Corp, CN=Corp Root", "not_after": "2027-11-21T10:48:31Z"}),
        ),
        record(Stage::Authenticate, Status::Passed, 32, 8, json!({})),
        record(Stage::Authorize, Status::Passed, 40, 0, json!({})),
        record(Stage::Repository, Status::Passed, 40, 0, json!({"repository": "Shop/web"})),
        record(Stage::References, Status::Passed, 40, 0, json!({})),
    ]
}

fn clocked(stages: &[StageRecord]) -> Vec<Clocked> {
    stages.iter().map(Clocked::from).collect()
}

#[test]
fn each_stage_has_its_mark_its_time_its_place_and_its_fact() {
    let stages = stages();
    let shown = report(&report_of(&stages, None, &[]), &clocked(&stages), &WIDE);
    let expected = "\
target        https://ado.corp.example/DefaultCollection/Shop/_git/web
kind          azure-devops, repository
credential    pat, vso.code, until 2027-01-01

✔ resolve         2.0 ms  █                     192.0.2.1, 192.0.2.2
✔ connect        10.0 ms   █████                192.0.2.1:443
✔ tls            20.0 ms        ██████████      TLS 1.3, by Corp Root, until 2027-11-21
✔ authenticate    8.0 ms                  ████  Ada, by pat
✔ authorize       0.0 ms                     ▏  manage_hooks no, read_code yes
✔ repository      0.0 ms                     ▏  Shop/web, default branch main
✔ references      0.0 ms                     ▏  12 references, HEAD at 67f8f19ee4e6

succeeded in 41.0 ms
";
    // What a later version may do beside is of no concern here.
    assert_eq!(shown.replace(", read_projects yes", ""), expected);
}

#[test]
fn a_failure_stands_with_its_evidence_and_comes_last() {
    let mut stages = stages();
    stages.truncate(1);
    let attempts = json!([{"address": "192.0.2.1", "ms": 10000.1, "error": "timed_out"}]);
    stages.push(record(Stage::Connect, Status::Failed, 2, 10_000, json!({ "attempts": attempts })));
    stages.push(StageRecord::skipped(Stage::Tls));
    let found = Found::new(Code::ConnectionTimedOut, Stage::Connect, "192.0.2.1:443", vec![]);
    let shown = report(&report_of(&stages, Some(&found), &[]), &clocked(&stages), &WIDE);
    assert!(shown.contains("✘ connect         10.0 s  ████████████████████\n    attempts  192.0.2.1, timed_out, 10000.1 ms\n– tls\n"), "{shown}");
    let last: Vec<_> = shown.lines().skip_while(|line| !line.starts_with("failed")).collect();
    assert_eq!(last[0], "failed in 41.0 ms: connection_timed_out (connect)");
    assert_eq!(last.last(), Some(&"  More: sortie explain connection_timed_out"));
}

#[test]
fn a_narrow_screen_without_unicode_gets_short_lines_of_ascii() {
    let mut stages = stages();
    stages[2].facts.insert("issuer".into(), "CN=Größe".into());
    let warning = Found::new(Code::CertificateExpiresSoon, Stage::Tls, "Größe", vec![]);
    let shown = report(&report_of(&stages, None, &[warning]), &clocked(&stages), &NARROW);
    assert!(shown.is_ascii(), "{shown}");
    // Nothing but words that have no space to break at may be longer.
    let long: Vec<_> = shown.lines().filter(|line| line.width() > 40 && line.trim().contains("  ")).collect();
    assert!(long.iter().all(|line| line.starts_with("target")), "{long:?}\n{shown}");
    assert!(shown.contains("+ tls            20.0 ms\n    TLS 1.3, by Gr??e, until 2027-11-21\n"), "{shown}");
}

#[test]
fn every_code_reads_well_in_every_form() {
    for code in Code::ALL.iter().copied() {
        let entry = code.entry();
        let stage = entry.stages[0];
        let stages = [record(stage, Status::Failed, 0, 1, json!({}))];
        let found = Found::new(code, stage, "as seen", vec![]);
        let failed = report_of(&stages, Some(&found), std::slice::from_ref(&found));
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for screen in [WIDE, Screen { colors: true, ..WIDE }] {
            let shown = one_line(&report(&failed, &clocked(&stages), &screen));
            assert!(shown.contains(&one_line(&found.summary)), "{shown}");
            assert!(shown.contains(&format!("- {}", one_line(&found.remedies[0]))), "{shown}");
        }
        assert!(report(&failed, &clocked(&stages), &NARROW).is_ascii(), "{}", entry.code);
        let ticket = markdown::report(&failed);
        assert!(ticket.contains(&format!("`{}`", entry.code)) && ticket.contains("\n- "), "{ticket}");
        let json = serde_json::to_value(TaskOutput::Report(Box::new(failed))).unwrap();
        assert_eq!(json["diagnosis"]["code"], entry.code);
        assert_eq!(json["diagnosis"]["summary"], found.summary);
        assert!(!json["diagnosis"]["remedies"].as_array().unwrap().is_empty());
    }
}

#[test]
fn texts_of_servers_cannot_draw_on_the_terminal_or_in_a_ticket() {
    let hostile = "x\u{1b}[2J\u{9b}31m\r\n| a | <img src=x> \u{202e}@all ```\n";
    let stages =
        [record(Stage::Authenticate, Status::Failed, 0, 1, json!({"said": hostile, hostile: hostile}))];
    let found = Found::new(Code::UnexpectedAnswer, Stage::Authenticate, hostile, vec![hostile.into()]);
    let mut failed = report_of(&stages, Some(&found), std::slice::from_ref(&found));
    failed.identity.name = Some(hostile.into());
    failed.target.url = hostile.into();
    let shown = report(&failed, &clocked(&stages), &WIDE);
    let ticket = markdown::report(&failed);
    for text in [&shown, &ticket] {
        assert!(text.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{202e}')), "{text}");
    }
    // A row of a table has as many cells as its head, whatever stands in them.
    let cells = |line: &str| line.replace("\\|", "").matches('|').count();
    let rows = ticket.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    assert!(rows.clone().count() > 3 && rows.clone().all(|line| matches!(cells(line), 3..=5)), "{ticket}");
    assert!(rows.filter(|line| line.starts_with("| authenticate")).all(|line| cells(line) == 4), "{ticket}");
    let prose = ticket.lines().filter(|line| !line.starts_with('|'));
    assert!(prose.clone().all(|line| !line.contains("<img") && !line.contains("@all")), "{ticket}");
}
