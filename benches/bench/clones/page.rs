//! docs/performance.md: the figures of clones, and what one has to know of them.

use super::lab::LINE_BYTES;
use super::{CROWD, Clones, growth};
use crate::effort::Effort;
use crate::paper;

/// The whole page.
pub(crate) fn text(clones: &Clones, facts: &[(&str, String)], effort: &Effort) -> String {
    let table = paper::table(&clones.figures);
    let growth = growth::table(&clones.sizes);
    let bends = growth::sentences(&clones.sizes);
    let facts = paper::listed(facts);
    let how = how(clones, effort);
    format!(
        "# Performance of clones\n\n\
         Written by `BENCH_ONLY=clones make bench` (`cargo bench --bench bench`), which measures all of it in one run; do\n\
         not edit. `make bench` writes it as well, along with [the other measurements](benchmarks.md).\n\n\
         {table}\n\
         A ratio is Sortie's median to git's. What is not to be exceeded is the target; the aim is where it should be.\n\n\
         ## Cost grows with the work\n\n\
         Full clones by HTTPS of generated repositories that differ in size alone: wall time, and the most memory of the\n\
         largest process.\n\n\
         {growth}\n\
         {bends}\n\
         ## The machine\n\n\
         {facts}\n\
         {how}\n\
         {MEMORY}"
    )
}

fn how(clones: &Clones, effort: &Effort) -> String {
    let Effort { clones: runs, quick_clones, crowds, behind, archives, sizes, .. } = effort;
    let [small, medium, large] = sizes.each_ref().map(|size| size.clones);
    let references = clones.references;
    let line = LINE_BYTES / 1_000_000;
    format!(
        "## How it is measured\n\n\
         - Both programs run as a user runs them: a time is the wall time of a whole process from its start to its end, and\n\
         \x20 the server's work is part of it. They take turns, and who goes first changes; a figure is the median.\n\
         - Repositories, clones, mirrors and the agent's state lie in memory (`/dev/shm`), where the system has that: the disk\n\
         \x20 is not what is measured. The server runs on the same machine and shares its cores with whoever clones.\n\
         - HTTPS is nginx with `git http-backend`, by TLS on loopback, with a token that both send with the first request.\n\
         \x20 SSH is OpenSSH's sshd with `git upload-pack`; git goes there by `ssh`, Sortie by its own client, both with one\n\
         \x20 Ed25519 key.\n\
         - The repositories are generated, the same in every run: files of 24 to 1,024 lines in two levels of directories,\n\
         \x20 and some pictures; a commit changes up to 48 lines in each of up to three files of one area. Each is one pack with\n\
         \x20 a bitmap, so that the server hardly counts before it sends.\n\
         - Full clones of the three sizes: runs of each program {small}, {medium} and {large}, under GNU time, which tells the\n\
         \x20 most memory of the largest process: `sortie` has one, and git's largest is `index-pack`. Both read packs by\n\
         \x20 mapping them, and what is mapped counts while it is used.\n\
         - The other clones: {runs} runs of each program, or {quick_clones} where a clone takes a moment only.\n\
         - The held line is a relay in front of nginx that passes {line} MB a second each way, for both programs.\n\
         - By a mirror: `sortie clone --server`, whose agent's mirror an earlier clone has filled; git has `--reference` to a\n\
         \x20 bare repository with the same commits. Behind means that the server has got {behind} commits since; each run of\n\
         \x20 Sortie brings its mirror up to date, and the mirror is put back before the next one. Sortie's clones have hard\n\
         \x20 links to the mirror's packs and stand by themselves; git's lean on the reference repository.\n\
         - At once: {CROWD} processes are started together, and the last to end is waited for; runs of each: {crowds}. Sortie begins\n\
         \x20 without any mirror: one process fetches, and the others take what it has brought.\n\
         - Many references: a small repository with {references} branches, all of which both fetch.\n\
         - Archives, where the table has them: {archives} runs, of the newest tree of the middle repository. Sortie's is one\n\
         \x20 process that writes a `tar.zst`; git's are two, `git archive` and `zstd -3`, with a pipe between them.\n\
         - Each run is looked at: the commit that was checked out is the server's. Once for each case the files are compared\n\
         \x20 with the commit (`git status`) and every object is looked for.\n"
    )
}

/// What a clone may take, as the code has it.
const MEMORY: &str = "\
## What bounds the memory

- What comes is a stream: at most 64 pieces of 64 KiB wait between the network and the pack's file, whatever the pack's size.
- What grows with a repository is measured above: about 500 bytes for each object, most of which is the mapped pack.
  The tree of deltas itself, with each object's place in the pack, its checksum and its name, and the beginning of every name
  that objects refer to, by which holes are found, come by reckoning to 100 to 150 bytes for each object, which is about 60 MB
  for half a million.
- A file of 16 MiB or more that the pack holds whole, and that nothing is a delta of, is hashed as it comes and held nowhere.
- Each thread that resolves deltas holds one object, the delta that makes it and its base: three times `limits.blob_bytes` at
  the most. There are as many threads as cores. What is held because further deltas of it are still to come is 2 GiB at the
  most, for all threads together; a pack that asks for more is refused, and so is a chain of more than 10,000 deltas. Where
  deltas name their bases by their identifiers, as servers without `ofs-delta` have it and as what is new for a mirror comes, the
  pack is unpacked twice, under the same limits both times.
- The pack is mapped and not read into memory. The kernel counts what is mapped as long as it is in use, and takes it back when
  it needs the room; on a memory file system, as here, it counts as shared memory.
- The checkout holds one file of at most 16 MiB for each thread, the form that attributes ask for beside it, and a cache of
  bases of 16 MiB at most for each of them. Larger files are streamed, hashed on the way. One that is stored as a delta, or that
  is converted, is held whole, one at a time. libgit2's own checkout, where it is chosen, holds every file whole.
";
