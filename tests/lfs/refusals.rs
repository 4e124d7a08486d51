//! What a server refuses and what is refused here, each told apart.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_what_the_pointer_names_is_refused() {
    let scene = Scene::start();
    let wrong = content(9, 3 * MIB);
    fs::write(scene.object("media/other.bin"), &wrong).unwrap();
    let (failed, _) = scene.failure(Provider::Gitlab, |_| ()).await;
    let (named, what) = problem(&failed);
    assert_eq!(named, "media/other.bin");
    assert!(
        matches!(what, ObjectProblem::WrongContent { found } if found.to_string() == oid(&wrong)),
        "{what:?}"
    );
    scene.assert_is_pointer("media/other.bin");
    let kept = scene.target().join(".git/lfs/objects");
    let name = oid(&scene.files["media/other.bin"].0);
    assert!(!kept.join(&name[..2]).join(&name[2..4]).join(&name).exists());

    // Longer, shorter, and without an end.
    for length in [3 * MIB + 1, 3 * MIB - 1] {
        let scene = Scene::start();
        fs::write(scene.object("media/other.bin"), content(3, length)).unwrap();
        let (failed, _) = scene.failure(Provider::Gitlab, |_| ()).await;
        let (_, what) = problem(&failed);
        let is_right = match what {
            ObjectProblem::TooLong { size } => length > 3 * MIB && *size == 3 * MIB as u64,
            ObjectProblem::TooShort { received, .. } => length < 3 * MIB && *received == length as u64,
            _ => false,
        };
        assert!(is_right, "{length}: {what:?}");
        scene.assert_is_pointer("media/other.bin");
    }
    let scene = Scene::start();
    let path = format!("/objects/{}", oid(&scene.files["small.bin"].0));
    let (failed, _) =
        scene.failure(Provider::Gitlab, |server| server.set_fault_at(&path, Fault::HugeBody)).await;
    assert!(matches!(problem(&failed).1, ObjectProblem::TooLong { size: 11 }), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_told_apart() {
    let scene = Scene::start();
    fs::remove_file(scene.object("bin/run.bin")).unwrap();
    let (failed, log) = scene.failure(Provider::Gitlab, |_| ()).await;
    let (named, what) = problem(&failed);
    assert_eq!(named, "bin/run.bin");
    assert!(
        matches!(what, ObjectProblem::Refused { code: 404, message } if message.starts_with("Object does not"))
    );
    assert_eq!(log.records()[0].facts["lfs_object"], oid(&scene.files["bin/run.bin"].0));
    assert_eq!(failed.stage(None), Stage::Checkout);

    for (provider, expected) in [(Provider::Gitlab, 501), (Provider::AzureDevOps, 404)] {
        let scene = Scene::start();
        fs::remove_dir_all(scene.scratch.path().join("web.lfs")).unwrap();
        let (failed, _) = scene.failure(provider, |_| ()).await;
        let LfsError::NotServed { status, message } = lfs_error(&failed) else { panic!("{failed:?}") };
        assert!(*status == expected && message.contains("LFS"), "{failed}");
    }

    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    let words = |status, body: &str| Fault::Words {
        status,
        content_type: "application/vnd.git-lfs+json",
        body: body.to_owned(),
    };
    let said = r#"{"message":"Say\u0007 no"}"#;
    let page = Fault::Words { status: 200, content_type: "text/html", body: "<html>".into() };
    let deep = format!("{{\"objects\":{}", "[".repeat(100_000));
    type Expected = fn(&Error) -> bool;
    let cases: [(Fault, Expected); 11] = [
        (
            words(401, said),
            |e| matches!(lfs_error(e), LfsError::Denied { status: 401, message } if message == "Say no"),
        ),
        (words(403, said), |e| matches!(lfs_error(e), LfsError::Denied { status: 403, .. })),
        (words(410, said), |e| matches!(lfs_error(e), LfsError::NotServed { status: 410, .. })),
        (words(422, said), |e| matches!(lfs_error(e), LfsError::Refused { status: 422, .. })),
        (page, |e| matches!(lfs_error(e), LfsError::Unexpected { .. })),
        (words(200, "{"), |e| matches!(lfs_error(e), LfsError::Unexpected { .. })),
        (words(200, &deep), |e| matches!(lfs_error(e), LfsError::Unexpected { .. })),
        (words(200, r#"{"transfer":"ssh","objects":[]}"#), |e| {
            matches!(lfs_error(e), LfsError::Unexpected { .. })
        }),
        (words(200, r#"{"objects":[]}"#), |e| matches!(problem(e).1, ObjectProblem::NoAction)),
        (Fault::HugeBody, |e| {
            matches!(lfs_error(e), LfsError::Unexpected { problem: "it is too large", .. })
        }),
        (Fault::ServerError(503), |e| matches!(e, Error::ServerError { status: 503, .. })),
    ];
    for (fault, expected) in cases {
        scene.gitlab().clear_fault();
        scene.gitlab().set_fault_at("/batch", fault.clone());
        let failed = scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap_err();
        assert!(expected(&failed), "{fault:?}: {failed:?}");
    }
    scene.gitlab().clear_fault();
    scene.gitlab().set_fault_at("/gitlab-lfs/", words(410, said));
    let failed = scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap_err();
    assert!(
        matches!(problem(&failed).1, ObjectProblem::Answer { status: 410, message } if message == "Say no")
    );
    scene.assert_is_pointer("media/big.bin");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_not_even_asked_for() {
    type Change = fn(&mut Control);
    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    let cases: [(Change, Limit); 2] = [
        (|control| control.limits.max_blob_bytes = 3 * MIB as u64, Limit::BlobBytes),
        (|control| control.limits.max_lfs_bytes = 8 * MIB as u64, Limit::LfsBytes),
    ];
    for (change, expected) in cases {
        let mut control = a_minute();
        change(&mut control);
        let failed = scene.fetch(&remote, &control, &StageLog::default()).await.unwrap_err();
        assert!(matches!(failed, Error::TooLarge { what, .. } if what == expected), "{failed:?}");
    }
    // More than any disk has: the pointer alone tells.
    let text = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n",
        "1".repeat(64),
        u64::MAX
    );
    let scene = Scene::with(|work| fs::write(work.join("huge.bin"), text).unwrap());
    let remote = scene.cloned(Provider::Gitlab).await;
    let mut control = a_minute();
    (control.limits.max_blob_bytes, control.limits.max_lfs_bytes) = (u64::MAX, u64::MAX);
    let failed = scene.fetch(&remote, &control, &StageLog::default()).await.unwrap_err();
    assert!(matches!(&failed, Error::DiskFull { path } if *path == scene.target()), "{failed:?}");
    assert_eq!(scene.gitlab().requests(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_needs_a_program_is_refused() {
    let scene = Scene::with(|work| {
        let text = pointer(b"x").replace("oid", &format!("ext-0-secret sha256:{}\noid", "1".repeat(64)));
        fs::write(work.join("extended.bin"), text).unwrap();
    });
    let (failed, _) = scene.failure(Provider::Gitlab, |_| ()).await;
    assert!(matches!(problem(&failed), ("extended.bin", ObjectProblem::HasExtensions)), "{failed:?}");
}
