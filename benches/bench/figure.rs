//! One line of what comes out.

use std::time::Duration;

use crate::statistics::{Times, milliseconds};

/// What a figure must not exceed, or must come to.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// Times as long as the other program takes.
    Ratio(f64),
    /// Milliseconds.
    Milliseconds(f64),
    /// Megabytes of a million bytes.
    Megabytes(f64),
    /// At least as many a second.
    PerSecond(f64),
    /// At least as many times the other quantity.
    RatioAtLeast(f64),
    /// Nothing was promised; it is shown for orientation.
    None,
}

/// A quantity in its unit.
#[derive(Clone, Copy)]
pub(crate) enum Quantity {
    /// Milliseconds.
    Milliseconds(f64),
    /// Megabytes of a million bytes.
    Megabytes(f64),
    /// How many a second.
    PerSecond(f64),
}

/// A measured quantity, beside another program's where there is one to compare with.
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) name: String,
    /// Sortie's.
    pub(crate) ours: Quantity,
    /// The other program's.
    pub(crate) theirs: Option<Quantity>,
    /// What was promised.
    pub(crate) target: Target,
    /// What is aimed at beyond that, as a ratio.
    pub(crate) aim: Option<f64>,
}

impl Quantity {
    /// A time.
    pub(crate) fn of(time: Duration) -> Self {
        Self::Milliseconds(milliseconds(time))
    }

    fn number(self) -> f64 {
        match self {
            Self::Milliseconds(number) | Self::Megabytes(number) | Self::PerSecond(number) => number,
        }
    }

    /// The number with its unit.
    pub(crate) fn in_words(self) -> String {
        match self {
            Self::Milliseconds(number) if number >= 10_000.0 => format!("{:.2} s", number / 1000.0),
            Self::Milliseconds(number) if number >= 100.0 => format!("{number:.0} ms"),
            Self::Milliseconds(number) => format!("{number:.1} ms"),
            Self::Megabytes(number) => format!("{number:.1} MB"),
            Self::PerSecond(number) => format!("{number:.0}/s"),
        }
    }
}

impl Figure {
    /// The medians of two programs.
    pub(crate) fn compared(name: &str, ours: &Times, theirs: &Times, target: Target) -> Self {
        Self::beside(name, Quantity::of(ours.median()), Quantity::of(theirs.median()), target)
    }

    /// Quantities of two programs.
    pub(crate) fn beside(name: &str, ours: Quantity, theirs: Quantity, target: Target) -> Self {
        Self { theirs: Some(theirs), ..Self::alone(name, ours, target) }
    }

    /// A quantity of Sortie's alone.
    pub(crate) fn alone(name: &str, ours: Quantity, target: Target) -> Self {
        Self { name: name.to_owned(), ours, theirs: None, target, aim: None }
    }

    /// The same with a ratio that is aimed at.
    pub(crate) fn aiming_at(mut self, ratio: f64) -> Self {
        self.aim = Some(ratio);
        self
    }

    /// How many times the other program's quantity ours is.
    pub(crate) fn ratio(&self) -> Option<f64> {
        self.theirs.map(|theirs| self.ours.number() / theirs.number())
    }

    /// Whether it misses its target.
    pub(crate) fn is_over(&self) -> bool {
        match self.target {
            Target::Ratio(most) => self.ratio().is_some_and(|ratio| ratio > most),
            Target::Milliseconds(most) | Target::Megabytes(most) => self.ours.number() > most,
            Target::PerSecond(least) => self.ours.number() < least,
            Target::RatioAtLeast(least) => self.ratio().is_some_and(|ratio| ratio < least),
            Target::None => false,
        }
    }
}
