//! From the log of stages to the list that a report shows.

use crate::report::{Stage, StageLog, StageRecord, Status};

/// Ends the log at a failure and lists the stages: those before it, the failed one, and as `skipped` those
/// of `planned` that would have come after it.
///
/// A cause can show later than the stage that it belongs to: git learns from the list of references that a
/// password is wrong. What was recorded of later stages is then no achievement of theirs, so that their facts
/// go to the failed stage and they count as skipped.
pub(super) fn failed(log: &StageLog, stage: Stage, planned: &[Stage]) -> Vec<StageRecord> {
    if log.running().is_some_and(|running| running >= stage) {
        log.fail();
    } else {
        log.pass();
    }
    let (mut kept, later): (Vec<_>, Vec<_>) =
        log.records().into_iter().partition(|record| record.stage < stage);
    let mut failure = StageRecord { status: Status::Failed, ..StageRecord::skipped(stage) };
    let later = later.into_iter().filter(|record| record.status != Status::Skipped);
    for (position, record) in later.enumerate() {
        if position == 0 {
            failure.offset = record.offset;
        }
        failure.duration += record.duration;
        failure.facts.extend(record.facts);
    }
    kept.push(failure);
    let after = planned.iter().filter(|planned| **planned > stage);
    kept.extend(after.map(|planned| StageRecord::skipped(*planned)));
    kept
}

/// Ends the log of work that succeeded, and lists its stages.
pub(super) fn succeeded(log: &StageLog) -> Vec<StageRecord> {
    log.pass();
    log.records()
}

/// Puts what was recorded on another way to the same target among the stages, up to the one that failed. Where
/// both ways went through a stage it stands once, with the facts of both.
pub(super) fn with_other_way(mut stages: Vec<StageRecord>, other_way: Vec<StageRecord>) -> Vec<StageRecord> {
    let failed = stages.iter().find(|record| record.status == Status::Failed).map(|record| record.stage);
    for other in other_way.into_iter().filter(|other| failed.is_none_or(|failed| other.stage <= failed)) {
        let Some(own) = stages.iter_mut().find(|own| own.stage == other.stage) else {
            stages.push(other);
            continue;
        };
        own.duration += other.duration;
        if own.status == Status::Passed && other.status == Status::Warned {
            own.status = Status::Warned;
        }
        for (name, value) in other.facts {
            own.facts.entry(name).or_insert(value);
        }
    }
    stages.sort_by_key(|record| record.stage);
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(records: &[StageRecord]) -> Vec<(Stage, Status)> {
        records.iter().map(|record| (record.stage, record.status)).collect()
    }

    #[test]
    fn what_would_have_come_after_a_failure_is_skipped() {
        let log = StageLog::default();
        log.begin(Stage::Resolve);
        log.begin(Stage::Connect);
        let planned = [Stage::Resolve, Stage::Connect, Stage::Tls, Stage::References];
        let records = failed(&log, Stage::Connect, &planned);
        let expected = [
            (Stage::Resolve, Status::Passed),
            (Stage::Connect, Status::Failed),
            (Stage::Tls, Status::Skipped),
            (Stage::References, Status::Skipped),
        ];
        assert_eq!(seen(&records), expected);
    }

    #[test]
    fn a_cause_that_shows_late_fails_its_own_stage() {
        let log = StageLog::default();
        log.begin(Stage::Tls);
        log.begin(Stage::Authenticate);
        log.begin(Stage::References);
        log.fact("status", 401);
        let records = failed(&log, Stage::Authenticate, &[Stage::Authenticate, Stage::References]);
        let expected = [
            (Stage::Tls, Status::Passed),
            (Stage::Authenticate, Status::Failed),
            (Stage::References, Status::Skipped),
        ];
        assert_eq!(seen(&records), expected);
        assert_eq!(records[1].facts["status"], 401);
    }

    #[test]
    fn what_another_way_recorded_stands_among_the_stages_up_to_the_failure() {
        let log = StageLog::default();
        for stage in [Stage::Policy, Stage::Identify, Stage::Authenticate, Stage::Repository] {
            log.begin(stage);
        }
        log.fact("repository", "shop/web");
        let other_way = log.take_from(Stage::Resolve);
        for stage in [Stage::Connect, Stage::HostKey, Stage::Authenticate, Stage::Repository] {
            log.begin(stage);
        }
        let all = with_other_way(succeeded(&log), other_way.clone());
        let stages: Vec<_> = all.iter().map(|record| record.stage).collect();
        let expected = [
            Stage::Policy,
            Stage::Connect,
            Stage::HostKey,
            Stage::Identify,
            Stage::Authenticate,
            Stage::Repository,
        ];
        assert_eq!(stages, expected);
        assert_eq!(all[5].facts["repository"], "shop/web");
        let cut = StageLog::default();
        cut.begin(Stage::Connect);
        let failed = with_other_way(failed(&cut, Stage::Connect, &[Stage::Identify]), other_way);
        assert_eq!(seen(&failed), [(Stage::Connect, Status::Failed), (Stage::Identify, Status::Skipped)]);
    }
}
