//! Odd repositories that git clones: what Sortie makes of them is what git makes of them, with both engines.
//!
//! A table is a list of rows; each row builds a repository with real git and says what is expected: the same clone as
//! git's, or a failure with a code. To add a row, write a builder beside its like and name it in the table there.

mod contents;
mod maker;
mod objects;
mod refs;
mod rig;
mod trees;

use self::rig::hold;

#[test]
fn contents_come_out_as_git_writes_them() {
    hold(contents::rows());
}

#[test]
fn objects_out_of_the_ordinary_are_taken_as_git_takes_them() {
    hold(objects::rows());
}

#[test]
fn references_out_of_the_ordinary_are_followed_as_git_follows_them() {
    hold(refs::rows());
}

#[test]
fn trees_out_of_the_ordinary_are_written_as_git_writes_them() {
    hold(trees::rows());
}
