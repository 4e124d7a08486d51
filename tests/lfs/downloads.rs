//! How objects come: side by side, on from where they were cut, as fast as the server wants, and not after a cancel.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn four_objects_come_at_once_and_no_more() {
    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    scene.gitlab().set_fault_at("/gitlab-lfs/objects/", Fault::PauseAfter { bytes: 1 });
    let server = scene.gitlab().clone();
    let watcher = tokio::task::spawn_blocking(move || {
        let objects = || server.requests().into_iter().filter(is_object).count();
        wait_until("four downloads", START_LIMIT, || objects() >= 4);
        let seen = objects();
        server.clear_fault();
        seen
    });
    scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap();
    assert_eq!(watcher.await.unwrap(), 4);
    scene.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_was_cut_goes_on_where_it_was() {
    let scene = Scene::start();
    // With HTTP/2, what the library still holds is lost with the stream.
    let remote = scene.cloned_by(Alpn::Http1, Provider::Gitlab).await;
    scene.gitlab().set_fault_at("/gitlab-lfs/objects/", Fault::CutAfter { bytes: 2 * MIB });
    let (control, log) = (a_minute(), StageLog::default());
    let fetched = scene.fetch(&remote, &control, &log).await.unwrap();
    assert_eq!(fetched.resumed, 3, "twice for the one of 5 MiB and once for that of 3 MiB");
    assert_eq!(control.transfer.lfs_bytes(), fetched.bytes, "nothing came twice");
    scene.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_go_on_begins_anew() {
    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    let path = format!("/gitlab-lfs/objects/{}", oid(&scene.files["media/big.bin"].0));
    scene.gitlab().set_fault_at(&path, Fault::RangeIgnored);
    scene.gitlab().set_fault_at(&path, Fault::CutAfter { bytes: 100 });
    let server = scene.gitlab().clone();
    let watched = path.clone();
    let watcher = tokio::task::spawn_blocking(move || {
        let tries = || server.requests().iter().filter(|request| request.path.ends_with(&watched)).count();
        wait_until("a second try", START_LIMIT, || tries() >= 2);
        server.clear_fault();
        server.set_fault_at(&watched, Fault::RangeIgnored);
    });
    let fetched = scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap();
    watcher.await.unwrap();
    assert_eq!(fetched.resumed, 0);
    scene.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_always_cut_is_given_up_and_named() {
    let scene = Scene::start();
    let path = format!("/gitlab-lfs/objects/{}", oid(&scene.files["media/big.bin"].0));
    let remote = scene.cloned_by(Alpn::Http1, Provider::Gitlab).await;
    scene.gitlab().set_fault_at(&path, Fault::CutAfter { bytes: 200_000 });
    let log = StageLog::default();
    let failed = scene.fetch(&remote, &a_minute(), &log).await.unwrap_err();
    log.fail();
    let (named, problem) = problem(&failed);
    assert_eq!(named, "media/big.bin");
    assert!(
        matches!(problem, ObjectProblem::Interrupted { tries: 5, received: 1..=1_000_000, .. }),
        "{problem:?}"
    );
    let tries = scene.gitlab().requests().iter().filter(|request| request.path.ends_with(&path)).count();
    assert_eq!(tries, 5);
    assert_eq!(log.records()[0].facts["lfs_path"], "media/big.bin");
    scene.assert_is_pointer("media/big.bin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_to_wait_is_waited_for_within_reason() {
    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    scene.gitlab().set_fault_at("/batch", Fault::RateLimited { retry_after: 3600 });
    let failed = scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap_err();
    assert!(matches!(failed, Error::RateLimited { retry_after: Some(wait) } if wait.as_secs() == 3600));
    assert_eq!(scene.gitlab().requests().len(), 1);
    scene.gitlab().clear_fault();
    scene.gitlab().clear_requests();
    scene.gitlab().set_fault_at("/batch", Fault::RateLimited { retry_after: 1 });
    let server = scene.gitlab().clone();
    let watcher = tokio::task::spawn_blocking(move || {
        let came = server.wait_for_request(|_| true, START_LIMIT);
        server.clear_fault();
        came
    });
    scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap();
    assert!(watcher.await.unwrap());
    scene.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_and_the_deadline_take_effect_within_a_second() {
    for fault in [Fault::PauseAfter { bytes: 1000 }, Fault::Stall] {
        let scene = Scene::start();
        let remote = scene.cloned(Provider::Gitlab).await;
        let path = if fault == Fault::Stall { "/batch" } else { "/gitlab-lfs/" };
        scene.gitlab().set_fault_at(path, fault);
        let work = a_minute();
        let (server, cancel) = (scene.gitlab().clone(), work.cancel.clone());
        let canceller = tokio::task::spawn_blocking(move || {
            assert!(server.wait_for_request(|request| request.path.contains(path), START_LIMIT));
            let now = Instant::now();
            cancel.cancel();
            now
        });
        let failed = scene.fetch(&remote, &work, &StageLog::default()).await.unwrap_err();
        assert!(matches!(failed, Error::Cancelled), "{failed:?}");
        assert!(canceller.await.unwrap().elapsed() < STOP_LIMIT);

        let time = Duration::from_millis(300);
        let began = Instant::now();
        let failed = scene.fetch(&remote, &control(time), &StageLog::default()).await.unwrap_err();
        assert!(matches!(failed, Error::DeadlineExceeded), "{failed:?}");
        assert!(began.elapsed() < time + STOP_LIMIT);
        assert_no_secret(&scene.target());
    }
}
