//! Against a git server that is not git's own: what holds for git's holds there.

use sortie::provider::Provider;
use stand_ins::Authority;

use crate::support::dulwich::Dulwich;
use crate::support::repository::{SampleRepository, run_git};
use crate::trial::Trial;

const TOKEN: &str = "dulwich-canary";

#[tokio::test(flavor = "multi_thread")]
async fn dulwich_is_tested_and_cloned_from() {
    let scratch = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&scratch.path().join("web.git"));
    let authority = Authority::create(scratch.path()).unwrap();
    let server = Dulwich::serve("/group/web.git", &sample.directory, TOKEN, &authority);
    let trial = || {
        let url = format!("{}/group/web.git", server.url());
        Trial::of(Some(Provider::Git), &server.url(), &url).trust(authority.ca_file()).pat(TOKEN)
    };
    let outcome = Box::pin(trial().run()).await;
    assert!(outcome.succeeded(), "{:#}\n{}", outcome.0, server.log());
    assert_eq!(outcome.0["repository"]["head"], sample.commit("main"));
    assert_eq!(outcome.0["repository"]["default_branch"], "main");
    let refused = Box::pin(trial().pat("wrong").run()).await;
    assert_eq!(refused.diagnosis(), ("pat_rejected", "authenticate"), "{:#}", refused.0);
    for (depth, commits) in [(None, "3"), (Some(1), "1")] {
        let target = scratch.path().join(format!("clone-{commits}"));
        let clone = Box::pin(trial().clone_of(depth, &target)).await;
        assert!(clone.succeeded(), "{:#}\n{}", clone.0, server.log());
        assert_eq!(clone.0["commit"], sample.commit("main"));
        assert_eq!(run_git(&target, ["rev-list", "--count", "HEAD"]), commits);
        assert!(target.join("docs/日本語.txt").is_file());
    }
}
