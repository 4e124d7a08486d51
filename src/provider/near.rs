//! Names that are like another one, for whoever mistyped it.

/// How many names are offered.
const MAX_NEAR: usize = 3;

/// The longest name that is compared, in bytes. The work grows with the product of two lengths.
const MAX_NAME_BYTES: usize = 256;

/// How many names are compared.
const MAX_NAMES: usize = 1000;

/// How alike two names must be, between 0 and 1.
const NEAR_ENOUGH: f64 = 0.8;

/// How alike two paths are of which only the last parts are the same.
const SAME_LAST_PART: f64 = 0.9;

/// How alike two names are, however short, with one letter too many, too few, wrong or swapped.
const ONE_SLIP: f64 = 0.85;

/// Those of `names` that are like `wanted` and not the same, the most alike first. Case does not count, and a path
/// that ends in the same name is alike wherever it is.
pub fn near(wanted: &str, names: &[String]) -> Vec<String> {
    if wanted.len() > MAX_NAME_BYTES {
        return Vec::new();
    }
    let wanted = wanted.to_lowercase();
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let likeness = |name: &str| {
        let same_last_part = if last(name) == last(&wanted) { SAME_LAST_PART } else { 0.0 };
        let one_slip = if strsim::damerau_levenshtein(&wanted, name) <= 1 { ONE_SLIP } else { 0.0 };
        strsim::jaro_winkler(&wanted, name).max(same_last_part).max(one_slip)
    };
    let names = names.iter().filter(|name| name.len() <= MAX_NAME_BYTES).take(MAX_NAMES);
    let lowered = names.map(|name| (name.to_lowercase(), name)).filter(|(lowered, _)| *lowered != wanted);
    let mut scored: Vec<(f64, &String)> = lowered
        .map(|(lowered, name)| (likeness(&lowered), name))
        .filter(|(score, _)| *score >= NEAR_ENOUGH)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup();
    scored.into_iter().take(MAX_NEAR).map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn the_most_alike_comes_first_and_strangers_do_not_come() {
        let names = ["Tools", "Shop", "Shops", "Website"].map(str::to_owned);
        assert_eq!(near("shpo", &names), ["Shop", "Shops"]);
        assert_eq!(near("wbe", &["web".to_owned()]), ["web"]);
        assert_eq!(near(&"x".repeat(4000), &vec!["x".repeat(990); 5000]), Vec::<String>::new());
        assert_eq!(near("zzz", &names), Vec::<String>::new());
        let paths =
            ["zoo/web", "shop/sub/wbe", "Shop/sub/web", "shop/sub/wbe", "zoo/lion"].map(str::to_owned);
        assert_eq!(near("shop/sub/web", &paths), ["shop/sub/wbe", "zoo/web"]);
    }
}
