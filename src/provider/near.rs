//! Names that are like another one, for whoever mistyped it.

/// How many names are offered.
const MAX_NEAR: usize = 3;

/// How alike two names must be, between 0 and 1.
const NEAR_ENOUGH: f64 = 0.8;

/// Those of `names` that are like `wanted`, the most alike first. Case does not count.
pub fn near(wanted: &str, names: &[String]) -> Vec<String> {
    let lowered = wanted.to_lowercase();
    let mut scored: Vec<(f64, &String)> = names
        .iter()
        .map(|name| (strsim::jaro_winkler(&lowered, &name.to_lowercase()), name))
        .filter(|(score, _)| *score >= NEAR_ENOUGH)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(MAX_NEAR).map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn the_most_alike_comes_first_and_strangers_do_not_come() {
        let names = ["Tools", "Shop", "Shops", "Website"].map(str::to_owned);
        assert_eq!(near("shpo", &names), ["Shop", "Shops"]);
        assert_eq!(near("zzz", &names), Vec::<String>::new());
    }
}
