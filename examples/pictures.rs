//! The manual's pictures: `make pictures`, or `cargo run --example pictures`.
//!
//! Runs the real program on a terminal, against servers that behave like Azure DevOps Server and GitLab, and writes
//! what is then to be seen to `docs/pictures`. Times, ports and fingerprints differ from run to run.

// It talks to whoever started it, and like the rigs it may panic with what to do about it.
#![allow(clippy::print_stdout, clippy::expect_used)]

use std::num::NonZero;
use std::path::Path;

use stand_ins::{Authority, AzureDevOps, Gitlab, Repository, Running, StandIns, World};

#[path = "../tests/support/terminal.rs"]
mod screen;
#[path = "../tests/support/mod.rs"]
mod support;

use screen::Terminal;
use support::process::write_private;
use support::repository::SampleRepository;

/// The width of the terminal in columns.
const COLUMNS: NonZero<u16> = NonZero::new(120).expect("not zero");
/// The tokens that the stand-ins accept. They open nothing else.
const AZURE_PAT: &str = "picture-token-of-ada-at-azure-devops";
const GITLAB_PAT: &str = "picture-token-of-ada-at-gitlab";

/// One picture: its name, the command's arguments, and the exit status that it must have.
struct Picture {
    name: &'static str,
    arguments: String,
    status: i32,
}

fn main() {
    let scratch = tempfile::Builder::new().prefix("sortie-pictures-").tempdir().expect("a private directory");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
    std::fs::create_dir_all(&directory).expect("docs/pictures");
    let servers = start(scratch.path());
    for picture in pictures(&servers) {
        let arguments: Vec<String> = picture.arguments.split(' ').map(str::to_owned).collect();
        let mut terminal = Terminal::start(COLUMNS, scratch.path(), &arguments);
        assert_eq!(terminal.wait(), Some(picture.status), "{}", terminal.shown());
        let typed = format!("\u{1b}[1m$ sortie {}\u{1b}[0m\n", picture.arguments);
        let drawn = anstyle_svg::Term::new().render_svg(&format!("{typed}{}", terminal.painted()));
        let file = directory.join(format!("{}.svg", picture.name));
        std::fs::write(&file, drawn).expect("the picture is written");
        println!("{}", file.display());
    }
}

fn start(scratch: &Path) -> Running {
    let sample = SampleRepository::small(&scratch.join("web.git"));
    let authority = Authority::create(scratch).expect("an authority for certificates");
    let web = &sample.directory;
    let world = World::new()
        .with_azure_devops(AzureDevOps { base_path: "/tfs".into(), ..AzureDevOps::default() })
        .with_gitlab(Gitlab::default())
        .with_user("ada", "secret")
        .with_pat("ada", AZURE_PAT, &["vso.code", "vso.project"])
        .with_pat("ada", GITLAB_PAT, &["read_repository", "read_api"])
        .with_repository(Repository::azure_devops("DefaultCollection", "Shop", "web", web).read_by("ada"))
        .with_repository(Repository::gitlab("shop/web", web).read_by("ada"));
    for (file, token) in
        [("ado.pat", AZURE_PAT), ("old.pat", "picture-token-that-was-revoked"), ("gitlab.pat", GITLAB_PAT)]
    {
        write_private(&scratch.join(file), token).expect("the file of a token");
    }
    StandIns::start(world, &authority).expect("the stand-ins start")
}

fn pictures(servers: &Running) -> [Picture; 4] {
    let gitlab = format!("{}/shop/web.git", servers.gitlab.as_ref().expect("a GitLab").url());
    let azure = servers.azure.as_ref().expect("an Azure DevOps Server");
    let place = "DefaultCollection/Shop/_git/web";
    let with_base = format!("https://127.0.0.1:{}/tfs/{place}", azure.port());
    let without_base = format!("https://127.0.0.1:{}/{place}", azure.port());
    [
        Picture {
            name: "succeeded",
            arguments: format!("test {gitlab} --pat-file gitlab.pat --ca-file ca.pem"),
            status: 0,
        },
        Picture {
            name: "pat_rejected",
            arguments: format!(
                "test {with_base} --provider azure-devops --pat-file old.pat --ca-file ca.pem"
            ),
            status: 1,
        },
        Picture {
            name: "tls_untrusted_issuer",
            arguments: format!("test {gitlab} --provider gitlab --pat-file gitlab.pat"),
            status: 1,
        },
        Picture {
            name: "wrong_base_path",
            arguments: format!(
                "test {without_base} --provider azure-devops --pat-file ado.pat --ca-file ca.pem"
            ),
            status: 1,
        },
    ]
}
