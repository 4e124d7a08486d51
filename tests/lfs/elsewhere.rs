//! Objects come from the declared server, and the credential goes to no other.

use super::*;

/// What counts the connections of whoever is led to it.
fn elsewhere() -> (TcpListener, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    (listener, url)
}

fn assert_no_hit(listener: &TcpListener) {
    let refused = listener.accept().map(|(_, from)| from).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
}

/// A batch answer that gives this URL for every object, whatever was asked for.
fn leading_to(scene: &Scene, href: &str) -> Fault {
    let objects = scene.files.values().map(|(content, _)| {
        let name = oid(content);
        serde_json::json!({"oid": name, "size": content.len(),
            "actions": {"download": {"href": href.replace("OID", &name), "header": {"X-Canary": TOKEN}}}})
    });
    let body = serde_json::json!({"transfer": "basic", "objects": objects.collect::<Vec<_>>()}).to_string();
    Fault::Words { status: 200, content_type: "application/vnd.git-lfs+json", body }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_said_to_be_elsewhere_is_not_fetched_from_there() {
    let (listener, foreign) = elsewhere();
    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    let own = scene.gitlab().url();
    for href in [
        format!("{foreign}/OID?token=x"),
        format!("{}/OID", foreign.replace("https", "http")),
        format!("https://127.0.0.1@{}/OID", foreign.trim_start_matches("https://")),
        format!("{}/OID", own.replace("https://", "https://user:secret@")),
        format!("{}/OID", own.replace("https", "http")),
        "file:///etc/passwd".to_owned(),
        "not a url".to_owned(),
    ] {
        scene.gitlab().clear_fault();
        scene.gitlab().set_fault_at("/batch", leading_to(&scene, &href));
        let log = StageLog::default();
        let failed = scene.fetch(&remote, &a_minute(), &log).await.unwrap_err();
        let LfsError::Elsewhere { host, object: Some(object) } = lfs_error(&failed) else {
            panic!("{href}: {failed:?}")
        };
        assert!(!host.contains("token") && !host.contains("secret"), "{host}");
        assert!(scene.files.contains_key(&object.path));
        if href.starts_with(&foreign) {
            assert!(failed.to_string().contains(&foreign), "{failed}");
        }
    }
    // By a redirect of the download, or of the batch request itself.
    for (path, status) in [("/gitlab-lfs/objects/", 302), ("/gitlab-lfs/objects/", 307), ("/batch", 307)] {
        scene.gitlab().clear_fault();
        scene.gitlab().set_fault_at(path, Fault::Redirect { status, location: format!("{foreign}/x?sig=y") });
        let failed = scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap_err();
        assert!(
            matches!(lfs_error(&failed), LfsError::Elsewhere { host, .. } if *host == format!("{foreign}/x"))
        );
    }
    assert_no_hit(&listener);
    assert!(!scene.gitlab().requests().iter().any(|request| request.path.contains("passwd")));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_application_at_the_same_origin_is_elsewhere() {
    let scene = Scene::start();
    let mut remote = over_http(&scene.url(Provider::Gitlab), None, Some(&scene.authority)).await;
    if let Access::Https { authorization, .. } = &mut remote.access {
        *authorization = Some(basic("oauth2", &Secret::new(TOKEN.to_owned())));
    }
    scene.cloned(Provider::Gitlab).await;
    let own = scene.gitlab().url();
    let narrow = scene.lfs(remote, &format!("{own}/shop"));
    for path in ["/shopping/OID", "/other/OID", "/shop/../other/OID", "/shop/%2e%2e/other/OID", "/"] {
        scene.gitlab().clear_fault();
        scene.gitlab().set_fault_at("/batch", leading_to(&scene, &format!("{own}{path}")));
        let failed = scene.fetch(&narrow, &a_minute(), &StageLog::default()).await.unwrap_err();
        assert!(matches!(lfs_error(&failed), LfsError::Elsewhere { .. }), "{path}: {failed:?}");
    }
    assert!(!scene.gitlab().requests().iter().any(is_object), "{:?}", scene.gitlab().requests());
    // At the declared place a redirect is followed.
    scene.gitlab().clear_fault();
    let name = oid(&scene.files["small.bin"].0);
    let moved = leading_to(&scene, &format!("{own}/shop/moved/OID"));
    scene.gitlab().set_fault_at("/batch", moved);
    for (content, _) in scene.files.values() {
        let name = oid(content);
        let location = format!("/shop/web.git/gitlab-lfs/objects/{name}");
        scene.gitlab().set_fault_at(&format!("/moved/{name}"), Fault::Redirect { status: 302, location });
    }
    scene.fetch(&narrow, &a_minute(), &StageLog::default()).await.unwrap();
    scene.assert_whole();
    let asked = |path: &str| {
        let requests = scene.gitlab().requests();
        requests.into_iter().find(|request| request.path.ends_with(path)).unwrap()
    };
    assert!(asked(&format!("/moved/{name}")).has_authorization);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_repository_says_of_its_lfs_server_is_not_read() {
    let (listener, foreign) = elsewhere();
    let scene = Scene::with(|work| {
        let text = format!("[lfs]\n url = {foreign}/lfs\n[remote \"origin\"]\n lfsurl = {foreign}/lfs\n");
        fs::write(work.join(".lfsconfig"), text).unwrap();
    });
    let remote = scene.cloned(Provider::Gitlab).await;
    scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap();
    scene.assert_whole();
    assert_no_hit(&listener);
}

#[tokio::test(flavor = "multi_thread")]
async fn authorization_is_the_actions_own_or_ours() {
    for (provider, scheme) in [(Provider::Gitlab, "Basic"), (Provider::AzureDevOps, "Basic")] {
        let scene = Scene::start();
        let remote = scene.cloned(provider).await;
        scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap();
        let requests = scene.server(provider).requests();
        assert!(requests.iter().all(|r| r.authorization_scheme.as_deref() == Some(scheme)), "{requests:?}");
    }
    // A request that is authenticated by its URL gets no credential of ours.
    let scene = Scene::start();
    let name = oid(&scene.files["small.bin"].0);
    let own = scene.gitlab().url();
    let Fault::Words { body, .. } = leading_to(&scene, &format!("{own}/signed/OID?signature=1")) else {
        panic!("words")
    };
    let body = body.replace("\"actions\"", "\"authenticated\":true,\"actions\"");
    let words = Fault::Words { status: 200, content_type: "application/vnd.git-lfs+json", body };
    scene.failure(Provider::Gitlab, |server| server.set_fault_at("/batch", words)).await;
    let requests = scene.gitlab().requests();
    let signed: Vec<_> = requests.iter().filter(|request| request.path.contains("/signed/")).collect();
    assert!(
        !signed.is_empty() && signed.iter().all(|request| !request.has_authorization),
        "{name} {signed:?}"
    );
}
