//! Artifacts from an agent to whoever wants them: cut lines, restarts, cancels, a bucket, and the download.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use sortie::artifact::{Delivery, Piece, UploadError, Uploaded, Uploader, pieces};
use sortie::git::Control;
use sortie::report::Code;
use sortie::task::upload_diagnosis;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::attempt::RunningAttempt;
use crate::support::binary::{binary, isolate};
use crate::support::control_plane::{ControlPlane, ServeSettings, secret_file};
use crate::support::cutter::Cutter;
use crate::support::process::{START_LIMIT, wait_until};
use crate::support::s3::S3;

const MIB: usize = 1024 * 1024;

/// The size of a part where nothing else is said.
const PART: usize = 8 * MIB;

/// Bytes of which no two parts are alike.
fn content(length: usize) -> Vec<u8> {
    (0..length as u64).map(|position| (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn control(seconds: u64) -> Control {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    Control::new(deadline, CancellationToken::new())
}

/// Uploads these bytes as a thread that writes them would.
async fn upload(
    uploader: &Uploader,
    delivery: &Delivery,
    bytes: &[u8],
    control: &Control,
) -> Result<Uploaded, UploadError> {
    let (mut writer, receiver) = pieces();
    let bytes = bytes.to_vec();
    let writing = tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        // Once the upload has failed there is nobody to write for.
        writer.write_all(&bytes).and_then(|()| writer.finish())
    });
    let done = uploader.upload(delivery, receiver, control).await;
    // A failed upload lets go of its writer; one that is short enough had written everything by then.
    let written = writing.await.unwrap();
    assert!(written.is_ok() || done.is_err(), "{written:?}");
    done
}

/// What lies in the store on the disk: a directory for each artifact with a part.
fn stored(control_plane: &ControlPlane) -> usize {
    fs::read_dir(control_plane.artifacts()).unwrap().count()
}

fn until_nothing_is_stored(control_plane: &ControlPlane) {
    wait_until("the store is empty", START_LIMIT, || stored(control_plane) == 0);
}

/// Runs `sortie-control artifact get`: its exit status and what it said on standard error.
fn get(url: &str, token: &str, id: &str, output: &Path, more: &[&str]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let token = secret_file(directory.path(), "token", token);
    let mut command = Command::new(binary("sortie-control"));
    isolate(&mut command, directory.path())
        .args(["artifact", "get", id, "--url", url, "--token-file"])
        .arg(token)
        .arg("--output")
        .arg(output)
        .args(more);
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn an_upload_goes_on_in_the_middle_of_a_part_where_its_line_was_cut() {
    let control_plane = ControlPlane::start();
    let line = Cutter::start(control_plane.port());
    let attempt = RunningAttempt::start(&control_plane, line.port()).await;
    let whole = content(2 * PART + MIB);
    let before = line.uploaded();
    line.cut_upload_after((PART + PART / 2) as u64);
    let delivery = attempt.delivery("Grün.tar.zst");
    let uploaded = upload(&attempt.uploader, &delivery, &whole, &control(60)).await.unwrap();
    assert_eq!(line.reached(), 1);
    assert_eq!((uploaded.bytes, uploaded.file_name.as_str()), (whole.len() as u64, "Gr_n.tar.zst"));
    // The half of a part that was lost is sent again, and nothing else.
    let sent = line.uploaded() - before;
    let most = (whole.len() + PART / 2 + MIB / 2) as u64;
    assert!(sent <= most, "{sent} bytes were sent, {most} would do");
    // The download is cut as well, and taken up again.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.tar.zst");
    line.cut_download_after((PART + 5000) as u64);
    let url = format!("http://127.0.0.1:{}", line.port());
    let viewer = control_plane.create_token("viewer");
    let (status, said) = get(&url, &viewer, &uploaded.id, &file, &[]);
    assert_eq!((status, line.reached()), (Some(0), 2), "{said}");
    assert!(fs::read(&file).unwrap() == whole, "the file is another one");
    assert!(said.contains("going on at byte"), "{said}");
    // Nothing else is beside it, and it is not replaced without being asked.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    fs::write(&file, "mine").unwrap();
    let (status, said) = get(&url, &viewer, &uploaded.id, &file, &[]);
    assert_eq!((status, fs::read_to_string(&file).unwrap().as_str()), (Some(1), "mine"), "{said}");
    assert_eq!(get(&url, &viewer, &uploaded.id, &file, &["--force"]).0, Some(0));
    assert!(fs::read(&file).unwrap() == whole, "the file was not replaced");
    // What is damaged in the store is not kept.
    let part = control_plane.artifacts().join(&uploaded.id).join("1");
    let mut damaged = fs::read(&part).unwrap();
    damaged[0] ^= 1;
    fs::write(&part, damaged).unwrap();
    let other = directory.path().join("other");
    let (status, said) = get(&url, &viewer, &uploaded.id, &other, &[]);
    assert!(status == Some(1) && said.contains("another SHA-256"), "{said}");
    let (status, said) = get(&url, &viewer, "artifact_none", &other, &[]);
    assert!(status == Some(1) && said.contains("artifact_not_found"), "{said}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "something was left beside it");
}

#[tokio::test]
async fn an_upload_outlives_a_control_plane_that_is_killed() {
    let mut control_plane = ControlPlane::start();
    let line = Cutter::start(control_plane.port());
    let attempt = RunningAttempt::start(&control_plane, line.port()).await;
    let whole = content(2 * PART + MIB);
    line.silence_upload_after((PART + PART / 2) as u64);
    let delivery = attempt.delivery("web.tar.zst");
    let control = control(60);
    let uploading = upload(&attempt.uploader, &delivery, &whole, &control);
    let restarted = async {
        let reached = async {
            while line.reached() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(START_LIMIT, reached).await.expect("the line is silent");
        let restarting = tokio::task::spawn_blocking(move || {
            control_plane.restart();
            control_plane
        });
        restarting.await.unwrap()
    };
    let (uploaded, control_plane) = tokio::join!(uploading, restarted);
    let uploaded = uploaded.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.tar.zst");
    let (status, said) = get(&control_plane.url(), control_plane.token(), &uploaded.id, &file, &[]);
    assert_eq!(status, Some(0), "{said}");
    assert!(fs::read(&file).unwrap() == whole, "the file is another one");
}

#[tokio::test]
async fn a_cancel_ends_an_upload_within_a_second_and_leaves_nothing() {
    let control_plane = ControlPlane::start();
    let line = Cutter::start(control_plane.port());
    let attempt = RunningAttempt::start(&control_plane, line.port()).await;
    let whole = content(3 * PART);
    // In the middle of a part; while the source says nothing; and by the deadline.
    line.silence_upload_after((PART + PART / 2) as u64);
    let cancelled = control(60);
    let cancel = cancelled.cancel.clone();
    let delivery = attempt.delivery("a.tar.zst");
    let uploading = upload(&attempt.uploader, &delivery, &whole, &cancelled);
    let ended = tokio::join!(uploading, async {
        until_stored(&control_plane, &line).await;
        cancel.cancel();
        Instant::now()
    });
    assert_eq!(ended.0, Err(UploadError::Cancelled));
    assert!(ended.1.elapsed() < Duration::from_secs(1), "{:?}", ended.1.elapsed());
    until_nothing_is_stored(&control_plane);

    let (sender, receiver) = mpsc::channel(2);
    let idle = control(60);
    let cancel = idle.cancel.clone();
    sender.send(Piece::Data(vec![1; 1000].into())).await.unwrap();
    let delivery = attempt.delivery("b.tar.zst");
    let ended = tokio::join!(attempt.uploader.upload(&delivery, receiver, &idle), async {
        // It is taken once the upload waits for more.
        sender.reserve_many(2).await.unwrap();
        cancel.cancel();
        Instant::now()
    });
    assert_eq!(ended.0, Err(UploadError::Cancelled));
    assert!(ended.1.elapsed() < Duration::from_secs(1), "{:?}", ended.1.elapsed());

    line.silence_upload_after((PART / 2) as u64);
    let (short, began) = (control(2), Instant::now());
    let delivery = attempt.delivery("c.tar.zst");
    let late = upload(&attempt.uploader, &delivery, &whole, &short).await;
    assert_eq!(late, Err(UploadError::DeadlineExceeded));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    for (error, code) in
        [(UploadError::Cancelled, Code::Cancelled), (late.unwrap_err(), Code::DeadlineExceeded)]
    {
        assert_eq!(upload_diagnosis(&error).code, code);
    }
    until_nothing_is_stored(&control_plane);
}

/// Waits until the line is silent and the store has something, so that there is something to leave behind.
async fn until_stored(control_plane: &ControlPlane, line: &Cutter) {
    let both = async {
        while line.reached() == 0 || stored(control_plane) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(START_LIMIT, both).await.expect("a part is stored");
}

#[tokio::test]
async fn what_is_not_made_to_its_end_is_no_artifact() {
    let control_plane = ControlPlane::start();
    let attempt = RunningAttempt::start(&control_plane, control_plane.port()).await;
    let (sender, receiver) = mpsc::channel(2);
    let making = async move {
        for _ in 0..3 {
            sender.send(Piece::Data(content(PART).into())).await.unwrap();
        }
        // The maker panics, or gives up: its end of the queue is dropped.
    };
    let (delivery, control) = (attempt.delivery("web.tar.zst"), control(60));
    let (broken, ()) = tokio::join!(attempt.uploader.upload(&delivery, receiver, &control), making);
    assert_eq!(broken, Err(UploadError::SourceFailed));
    until_nothing_is_stored(&control_plane);
    let listed = control_plane.request(Method::GET, "/api/v1/artifacts", None).body;
    assert_eq!(listed["artifacts"], serde_json::json!([]));
    // Nothing at all is an artifact, where its maker says so.
    let empty = upload(&attempt.uploader, &attempt.delivery("empty"), b"", &control).await.unwrap();
    assert_eq!(empty.bytes, 0);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("empty");
    let (status, said) = get(&control_plane.url(), control_plane.token(), &empty.id, &file, &[]);
    assert_eq!((status, fs::read(&file).unwrap().len()), (Some(0), 0), "{said}");
}

#[tokio::test]
async fn what_keeps_an_artifact_from_the_control_plane_is_named() {
    let arguments = ["--artifact-bytes", "1000", "--artifacts-total-bytes", "1500"].map(str::to_owned);
    let settings = ServeSettings { arguments: arguments.to_vec(), ..ServeSettings::default() };
    let mut control_plane = ControlPlane::start_with(settings);
    let attempt = RunningAttempt::start(&control_plane, control_plane.port()).await;
    let uploader = &attempt.uploader;
    let told = |error: &UploadError, words: &[&str]| {
        let diagnosis = upload_diagnosis(error);
        assert_eq!(
            (diagnosis.code, diagnosis.stage.as_str()),
            (Code::DeliveryFailed, "deliver"),
            "{error:?}"
        );
        let said = format!("{} {}", diagnosis.summary, diagnosis.remedies.join(" "));
        for word in words {
            assert!(said.contains(word), "{error:?}: {said}");
        }
    };
    let large = upload(uploader, &attempt.delivery("large"), &content(1001), &control(60)).await;
    let large = large.unwrap_err();
    assert_eq!(large, UploadError::TooLarge { limit: 1000 });
    told(&large, &["1000 bytes", "--artifact-bytes"]);
    upload(uploader, &attempt.delivery("fits"), &content(1000), &control(60)).await.unwrap();
    let full = upload(uploader, &attempt.delivery("full"), &content(600), &control(60)).await.unwrap_err();
    assert!(matches!(full, UploadError::StoreFull { .. }), "{full:?}");
    told(&full, &["1500 bytes", "--artifacts-total-bytes"]);
    let stale = Delivery { attempt: 7, ..attempt.delivery("stale") };
    let stale = upload(uploader, &stale, b"x", &control(60)).await.unwrap_err();
    assert_eq!(stale, UploadError::AttemptRefused);
    told(&stale, &["attempts"]);
    control_plane.kill();
    let away = upload(uploader, &attempt.delivery("away"), b"x", &control(2)).await.unwrap_err();
    assert!(matches!(away, UploadError::Unreachable(_)), "{away:?}");
    told(&away, &["sortie doctor", "refused"]);
}

#[tokio::test]
async fn a_bucket_keeps_artifacts_as_a_directory_does() {
    let s3 = S3::start("builds");
    let settings = ServeSettings {
        arguments: ["--artifacts", "s3://builds/sortie/artifacts"].map(str::to_owned).to_vec(),
        environment: s3.environment(),
        ..ServeSettings::default()
    };
    let mut control_plane = ControlPlane::start_with(settings);
    let attempt = RunningAttempt::start(&control_plane, control_plane.port()).await;
    let whole = content(PART + MIB);
    let delivery = attempt.delivery("web.tar.zst");
    let uploaded = upload(&attempt.uploader, &delivery, &whole, &control(60)).await.unwrap();
    let keys = |numbers: &[u32]| -> Vec<String> {
        numbers.iter().map(|number| format!("sortie/artifacts/{}/{number}", uploaded.id)).collect()
    };
    assert_eq!(s3.keys(), keys(&[1, 2]));
    assert!(!control_plane.artifacts().exists(), "something lies on the disk");
    control_plane.restart();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.tar.zst");
    let (status, said) = get(&control_plane.url(), control_plane.token(), &uploaded.id, &file, &[]);
    assert_eq!(status, Some(0), "{said}");
    assert!(fs::read(&file).unwrap() == whole, "the file is another one");
    let path = format!("/api/v1/artifacts/{}", uploaded.id);
    assert_eq!(control_plane.request(Method::DELETE, &path, None).status, 204);
    assert_eq!(s3.keys(), keys(&[]));
}
