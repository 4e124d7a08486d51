//! Submodules of a clone: each one a repository of its own, admitted by policy and fetched as whoever may fetch it.

use std::collections::VecDeque;

use serde_json::json;

use super::clone::Request;
use super::diagnose::{Failure, OfSubmodule, Subject, submodule_refused};
use super::login::{self, Prepared};
use super::remote::{self, Open, Reached};
use super::target::TargetError;
use super::{TargetSpec, Tools, lfs};
use crate::config::Server;
use crate::git::modules::{self, MAX_SUBMODULE_DEPTH, MAX_SUBMODULES};
use crate::git::{self, Control, Draft, Holder, Submodule};
use crate::remote_url::{RemoteUrl, scrubbed};
use crate::report::{Diagnosis, Stage, StageLog};

/// Submodules as a clone asks for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Submodules {
    /// Which ones.
    pub which: Which,
    /// Whether those that policy does not allow are left out with a warning, instead of failing the clone.
    pub skip_refused: bool,
}

/// Which submodules come along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Which {
    /// None; an empty directory stands for each.
    #[default]
    Nothing,
    /// All of them, and theirs.
    All,
    /// Those at these paths, without theirs.
    Named(Vec<String>),
}

/// What a clone is done for and with.
pub(super) struct Along<'a> {
    pub(super) request: &'a Request,
    pub(super) tools: &'a Tools,
    pub(super) control: &'a Control,
    pub(super) log: &'a StageLog,
}

/// What came along.
#[derive(Default)]
pub(super) struct Taken {
    /// Where, from the root of the clone.
    pub(super) paths: Vec<String>,
    /// What was left out.
    pub(super) warnings: Vec<Diagnosis>,
    /// Whether something went over the line as it is.
    pub(super) is_plain: bool,
}

/// A submodule that is still to come.
struct Awaited {
    submodule: Submodule,
    /// Where it is in the whole clone.
    path: String,
    holder: Holder,
    target: TargetSpec,
    /// How many repositories it is below the clone itself.
    depth: usize,
}

/// Whoever has submodules: the clone itself, or one of them.
struct Above<'a> {
    holder: &'a Holder,
    url: &'a RemoteUrl,
    depth: usize,
}

struct Walk<'a> {
    along: &'a Along<'a>,
    /// The server of the clone itself, and the credential that it is asked with.
    root: (&'a Server, Option<&'a str>),
    /// Clients that have been used.
    open: Vec<Open>,
    awaited: VecDeque<Awaited>,
    /// How many there are so far.
    count: usize,
    facts: Vec<serde_json::Value>,
    taken: Taken,
}

/// Takes the submodules along that were asked for, one after the other in the order of the tree.
pub(super) async fn take_along(
    draft: &mut Draft,
    along: &Along<'_>,
    reached: &Reached,
    credential: Option<&str>,
) -> Result<Taken, Failure> {
    let mut walk = Walk {
        along,
        root: (&reached.server, credential),
        open: Vec::new(),
        awaited: VecDeque::new(),
        count: 0,
        facts: Vec::new(),
        taken: Taken::default(),
    };
    walk.keep_client(reached);
    let walked = walk.walk(draft, &reached.remote.url).await;
    along.log.fact_at(Stage::Checkout, "submodules", walk.facts);
    walked?;
    if !walk.taken.warnings.is_empty() {
        along.log.warn_at(Stage::Checkout);
    }
    Ok(walk.taken)
}

impl Walk<'_> {
    async fn walk(&mut self, draft: &mut Draft, url: &RemoteUrl) -> Result<(), Failure> {
        self.look_below(draft, &Above { holder: &Holder::root(), url, depth: 0 }).await?;
        while let Some(next) = self.awaited.pop_front() {
            let (holder, url) = self.take(draft, &next).await?;
            self.taken.paths.push(next.path.clone());
            if self.along.request.submodules.which == Which::All {
                let above = Above { holder: &holder, url: &url, depth: next.depth };
                self.look_below(draft, &above).await.map_err(|failed| {
                    of_submodule(&next.path, failed, Subject { url: url.to_string(), ..Subject::default() })
                })?;
            }
        }
        Ok(())
    }

    /// Finds the submodules of a repository and asks policy about each, before anything is fetched.
    async fn look_below(&mut self, draft: &Draft, above: &Above<'_>) -> Result<(), Failure> {
        let submodules = &self.along.request.submodules;
        let mut found = draft.submodules(above.holder, self.along.control).await?;
        if submodules.which == Which::All {
            found.retain(|module| !module.is_left_out);
        } else if let Which::Named(names) = &submodules.which {
            let missing = names.iter().filter(|name| found.iter().all(|module| module.path != **name));
            let paths: Vec<String> = missing.map(|name| scrubbed(name)).collect();
            if !paths.is_empty() {
                return Err(git::Error::PathNotFound { paths, near: Vec::new() }.into());
            }
            found.retain(|module| names.contains(&module.path));
        }
        let depth = above.depth + 1;
        if !found.is_empty() && depth > MAX_SUBMODULE_DEPTH {
            return Err(modules::too_deep().into());
        }
        self.count += found.len();
        if self.count > MAX_SUBMODULES {
            return Err(modules::too_many().into());
        }
        // They come before what else waits: the order is that of the tree.
        for submodule in found.into_iter().rev() {
            let path = above.holder.within(&submodule.path);
            match self.admit(above.url, &submodule) {
                Ok(target) => {
                    let holder = above.holder.clone();
                    self.awaited.push_front(Awaited { submodule, path, holder, target, depth });
                }
                Err(refused) if submodules.skip_refused => {
                    let (error, subject) = *refused;
                    self.taken.warnings.push(submodule_refused(&path, &error, &subject));
                }
                Err(refused) => {
                    let (error, subject) = *refused;
                    let failure = Failure::Target(error);
                    return Err(Failure::Submodule(Box::new(OfSubmodule { path, subject, failure })));
                }
            }
        }
        Ok(())
    }

    /// Asks policy about the URL of a submodule. Nothing is opened for that.
    fn admit(
        &self,
        above: &RemoteUrl,
        submodule: &Submodule,
    ) -> Result<TargetSpec, Box<(TargetError, Subject)>> {
        let refused = |error, shown| Box::new((error, Subject { url: shown, ..Subject::default() }));
        let url = modules::resolve(above, &submodule.url)
            .map_err(|error| refused(error.into(), scrubbed(&submodule.url)))?;
        let target = TargetSpec::Url(url);
        match target.resolve(&self.along.tools.policy) {
            Ok(_) => Ok(target),
            Err(error) => Err(refused(error, target.shown())),
        }
    }

    async fn take(&mut self, draft: &mut Draft, next: &Awaited) -> Result<(Holder, RemoteUrl), Failure> {
        let mut subject = Subject { url: next.target.shown(), ..Subject::default() };
        let fetched = self.fetch(draft, next, &mut subject).await;
        let (inner, reached) = fetched.map_err(|failed| of_submodule(&next.path, failed, subject.clone()))?;
        let adopted = draft.adopt(&next.holder, &next.submodule, inner).await;
        let holder = adopted.map_err(|error| of_submodule(&next.path, error.into(), subject))?;
        self.taken.is_plain |= reached.is_plain;
        self.facts.push(json!({
            "path": next.path, "commit": next.submodule.commit, "server": reached.server.name,
        }));
        Ok((holder, reached.remote.url))
    }

    async fn fetch(
        &mut self,
        draft: &Draft,
        next: &Awaited,
        subject: &mut Subject,
    ) -> Result<(Draft, Reached), Failure> {
        let Along { request, tools, control, .. } = *self.along;
        // Its stages are none of the report's, which has each once.
        let log = StageLog::default();
        let prepared = self.prepare(&next.target, &log, subject).await?;
        let identity = login::identity(prepared.credential.as_ref());
        let reached = remote::reach_another(prepared, &self.open, tools, control, &log, subject).await?;
        self.keep_client(&reached);
        let lfs = match request.lfs {
            true => {
                Some(lfs::remote(&reached.remote, &reached.place, &reached.server, tools, control).await?)
            }
            false => None,
        };
        let of_git = |error| Failure::of_git(error, subject.provider);
        let (remote, depth) = (&reached.remote, request.want.depth);
        let means = tools.means(remote, &identity);
        let drafted = draft.draft_submodule(&next.submodule, remote, depth, means, control, &log).await;
        let mut inner = drafted.map_err(of_git)?;
        if let Some(remote) = lfs
            && let Err(error) = draft.fetch_lfs_of_submodule(&mut inner, &remote, control, &log).await
        {
            inner.discard().await;
            return Err(of_git(error));
        }
        Ok((inner, reached))
    }

    /// Loads the credential: that of the clone itself for the same server, and any other server's own one.
    async fn prepare(
        &self,
        target: &TargetSpec,
        log: &StageLog,
        subject: &mut Subject,
    ) -> Result<Prepared, Failure> {
        let Along { tools, control, .. } = *self.along;
        let (server, credential) = self.root;
        let resolved = target.resolve(&tools.policy).map_err(Failure::Target)?;
        let asked = credential.filter(|_| resolved.server.name == server.name);
        login::prepare(target, asked, tools, control, log, subject).await
    }

    fn keep_client(&mut self, reached: &Reached) {
        if let Some(open) = Open::of(reached)
            && !self.open.iter().any(|known| known.is_like(&open))
        {
            self.open.push(open);
        }
    }
}

/// Which submodule a failure belongs to; an end of the whole work is none of its.
fn of_submodule(path: &str, failure: Failure, subject: Subject) -> Failure {
    match failure {
        stopped @ Failure::Stopped(_) => stopped,
        known @ Failure::Submodule(_) => known,
        failure => Failure::Submodule(Box::new(OfSubmodule { path: path.to_owned(), subject, failure })),
    }
}
