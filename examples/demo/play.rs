//! Submits the tasks, waits for each, and compares.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::scenes::{Expected, Scene};
use crate::screen::{Table, Tone, colored};
use crate::support::control_plane::ControlPlane;

/// How long any task may take.
const TASK_LIMIT: Duration = Duration::from_secs(60);
/// What stands for something that is not there.
const NOTHING: &str = "-";

/// What became of a task.
struct Played {
    outcome: String,
    agent: Option<String>,
    /// From the POST to the end, as the control plane saw it.
    took: Option<Duration>,
    diagnosis: Option<String>,
    /// Sentences on why it came out so; none for a success.
    reasons: Vec<String>,
}

/// Plays all scenes and prints what became of them; says whether all went as expected.
pub(crate) fn all(control_plane: &ControlPlane, scenes: &[Scene]) -> bool {
    println!();
    let widest = |text: fn(&Scene) -> Option<&str>| {
        scenes.iter().filter_map(text).map(|text| text.chars().count()).max().unwrap_or_default()
    };
    let widths = [
        widest(|scene| Some(scene.name)),
        widest(|scene| Some(scene.expected.outcome)),
        widest(|scene| scene.expected.agent),
        "0000 ms".len(),
        widest(|scene| scene.expected.diagnosis),
        0,
    ];
    let names = ["what", "outcome", "agent", "time", "diagnosis", "as expected"];
    let table = Table::begin(names, widths);
    let mut reasons = Vec::new();
    let mut all_as_expected = true;
    for scene in scenes {
        let played = play(control_plane, scene);
        let is_expected = scene.expected.is(&played);
        all_as_expected &= is_expected;
        print_row(&table, scene, &played, is_expected);
        if !played.reasons.is_empty() {
            reasons.push((scene.name, played.reasons));
        }
    }
    println!();
    for (name, reasons) in reasons {
        println!("{name}:");
        for reason in reasons {
            println!("  {reason}");
        }
    }
    let (tone, verdict) = if all_as_expected {
        (Tone::Good, "Everything went as expected.")
    } else {
        (Tone::Bad, "Not everything went as expected.")
    };
    println!("\n{}", colored(tone, verdict));
    all_as_expected
}

fn print_row(table: &Table<6>, scene: &Scene, played: &Played, is_expected: bool) {
    let or_nothing = |text: &Option<String>| text.clone().unwrap_or_else(|| NOTHING.to_owned());
    let took = played.took.map(|took| format!("{:>4} ms", took.as_millis()));
    let verdict = if is_expected {
        (Tone::Good, "yes".to_owned())
    } else {
        (Tone::Bad, format!("NO: {}", scene.expected.in_words()))
    };
    table.row([
        (Tone::Plain, scene.name.to_owned()),
        (if played.outcome == "succeeded" { Tone::Good } else { Tone::Plain }, played.outcome.clone()),
        (Tone::Plain, or_nothing(&played.agent)),
        (Tone::Plain, or_nothing(&took)),
        (Tone::Plain, or_nothing(&played.diagnosis)),
        verdict,
    ]);
}

fn play(control_plane: &ControlPlane, scene: &Scene) -> Played {
    let id = control_plane.post_task(&scene.task);
    // A task that nobody takes can be asked about only while it waits.
    let explained = scene.expected.agent.is_none().then(|| explain(control_plane, &id));
    let task = control_plane.wait_task(&id, TASK_LIMIT);
    let attempt = task["attempts"].as_array().and_then(|attempts| attempts.last()).unwrap_or(&Value::Null);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let diagnosis =
        [&task["result"]["diagnosis"], &attempt["diagnosis"]].into_iter().find(|found| found.is_object());
    let diagnosis = diagnosis.unwrap_or(&Value::Null);
    let mut reasons = explained.unwrap_or_default();
    reasons.extend(text(&diagnosis["summary"]));
    reasons.extend(text(&diagnosis["remedies"][0]).map(|remedy| format!("-> {remedy}")));
    // The control plane may say the same of the task as the agent said of its attempt.
    reasons.extend(text(&task["reason"]).filter(|reason| !reasons.contains(reason)));
    Played {
        outcome: text(&task["outcome"]).unwrap_or_default(),
        agent: text(&attempt["agent"]),
        took: time_between(&task["created_at"], &task["completed_at"]),
        diagnosis: text(&diagnosis["code"]),
        reasons,
    }
}

/// Why a waiting task is not given to an agent: the whole in a sentence, then agent by agent.
fn explain(control_plane: &ControlPlane, id: &str) -> Vec<String> {
    let answer = control_plane.request(Method::GET, &format!("/api/v1/tasks/{id}/explain"), None);
    let mut lines = vec![answer.body["summary"].as_str().unwrap_or("no explanation").to_owned()];
    for agent in answer.body["agents"].as_array().into_iter().flatten() {
        let reasons = agent["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let name = agent["name"].as_str().unwrap_or(NOTHING);
        lines.push(format!("{name}: {}", reasons.collect::<Vec<_>>().join("; ")));
    }
    lines
}

fn time_between(start: &Value, end: &Value) -> Option<Duration> {
    let time = |value: &Value| OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok();
    (time(end)? - time(start)?).try_into().ok()
}

impl Expected {
    fn is(&self, played: &Played) -> bool {
        self.outcome == played.outcome
            && self.agent == played.agent.as_deref()
            && self.diagnosis == played.diagnosis.as_deref()
    }

    fn in_words(&self) -> String {
        let agent = self.agent.map(|agent| format!(" by {agent}")).unwrap_or_default();
        let diagnosis = self.diagnosis.map(|code| format!(" with {code}")).unwrap_or_default();
        format!("{}{agent}{diagnosis}", self.outcome)
    }
}
