//! Many references at once, in the one file that git keeps them in when they are many.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use git2::{Oid, Reference, Repository};

/// Writes these references and no others into the file of packed references. Names that git does not know are left out.
pub(super) fn write<'a>(
    repository: &Repository,
    references: impl Iterator<Item = (&'a str, Oid)>,
) -> std::io::Result<()> {
    // Whoever reads the file relies on its order.
    let sorted: BTreeMap<&str, Oid> = references.filter(|(name, _)| Reference::is_valid_name(name)).collect();
    write_sorted(repository.path(), &sorted)
}

fn write_sorted(directory: &Path, sorted: &BTreeMap<&str, Oid>) -> std::io::Result<()> {
    let file = tempfile::NamedTempFile::new_in(directory)?;
    let mut out = BufWriter::new(file.as_file());
    out.write_all(b"# pack-refs with: sorted \n")?;
    for (name, oid) in sorted {
        writeln!(out, "{oid} {name}")?;
    }
    out.flush()?;
    drop(out);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(directory.join("HEAD"))?.permissions().mode();
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.persist(directory.join("packed-refs"))?;
    Ok(())
}
