//! Which release answers: from the versions of its REST interface, which it lists or else is asked for.

use serde_json::Value;
use time::{Date, Month};

use super::Place;
use crate::provider::ProviderError;
use crate::provider::rest::{Answer, Api, text};

/// A version of the REST interface, as (major, minor).
type Version = (u32, u32);

/// A version that no server has: a server that is asked for it answers with the highest one that it has.
const FAR_AHEAD: &str = "99.0";

/// What is tried where the server does not even tell that, newest first.
const KNOWN_VERSIONS: [Version; 10] =
    [(7, 2), (7, 1), (7, 0), (6, 0), (5, 1), (5, 0), (4, 1), (4, 0), (3, 0), (2, 0)];

/// The oldest version that is supported: that of Azure DevOps Server 2019.
const OLDEST_SUPPORTED: Version = (5, 0);

/// How many days before the end of mainstream support a release is warned about.
pub const SUPPORT_WARNING_DAYS: i64 = 180;

/// Product and release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The product's name.
    pub product: &'static str,
    /// The release by its marketing name; `None` for the cloud edition, and for a version that no release
    /// known here has.
    pub release: Option<&'static str>,
    /// The version of the REST interface to use; `None` where the server takes whatever is asked for.
    version: Option<Version>,
}

impl Release {
    /// The version of the REST interface to use, as `major.minor`.
    pub fn api_version(&self) -> Option<String> {
        self.version.map(shown)
    }

    /// What a server with this version is.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub fn for_tests(version: (u32, u32)) -> Self {
        named(Some(version), false).unwrap()
    }

    /// A call with the version in its query.
    pub(super) fn call(&self, call: &str) -> String {
        let Some(version) = self.version else { return call.to_owned() };
        let joint = if call.contains('?') { '&' } else { '?' };
        format!("{call}{joint}api-version={}", shown(version))
    }

    /// The day on which mainstream support of the release ends: after it, only security fixes come.
    ///
    /// From Microsoft's list of products under the fixed lifecycle policy
    /// (<https://learn.microsoft.com/lifecycle/products/?terms=Azure%20DevOps%20Server>). An update of a release
    /// has the dates of its release.
    pub fn mainstream_support_ends(&self) -> Option<Date> {
        let (year, month, day) = match self.release? {
            "2019" | "2019.1" => (2024, Month::April, 9),
            "2020" => (2025, Month::October, 14),
            "2022" | "2022.1" | "2022.2" => (2028, Month::January, 11),
            _ => return None,
        };
        Date::from_calendar_date(year, month, day).ok()
    }

    /// The day on which extended support ends, and with it every fix. Source as above.
    pub fn extended_support_ends(&self) -> Option<Date> {
        let (year, month, day) = match self.release? {
            "2019" | "2019.1" => (2029, Month::April, 10),
            "2020" => (2030, Month::October, 8),
            "2022" | "2022.1" | "2022.2" => (2033, Month::January, 11),
            _ => return None,
        };
        Date::from_calendar_date(year, month, day).ok()
    }
}

/// Finds the release by the version of the REST interface, from what the server lists, or else by asking for
/// versions downwards.
///
/// # Errors
/// [`ProviderError::TooOld`], and what any call can fail with.
pub async fn release(api: &Api, place: &Place, hosted: Option<bool>) -> Result<Release, ProviderError> {
    let listed = listed_version(&api.options(&place.api("core")).await?);
    let version = match listed {
        Some(version) => Some(version),
        None => probed_version(api, place).await?,
    };
    named(version, hosted.unwrap_or_else(|| place.is_cloud()))
}

fn named(version: Option<Version>, is_hosted: bool) -> Result<Release, ProviderError> {
    if is_hosted {
        return Ok(Release { product: "Azure DevOps Services", release: None, version });
    }
    if let Some(version) = version.filter(|version| *version < OLDEST_SUPPORTED) {
        let release = match version {
            (4, _) => "2018",
            (3, _) => "2017",
            _ => "2015 or older",
        };
        return Err(ProviderError::TooOld { seen: format!("Team Foundation Server {release}") });
    }
    // Servers have versions in preview above those of their release, so that an unknown one names nothing.
    let release = match version {
        Some((5, 0)) => Some("2019"),
        Some((5, 1)) => Some("2019.1"),
        Some((6, 0)) => Some("2020"),
        Some((7, 0)) => Some("2022"),
        Some((7, 1)) => Some("2022.1"),
        Some((7, 2)) => Some("2022.2"),
        _ => None,
    };
    Ok(Release { product: "Azure DevOps Server", release, version })
}

/// The highest version in which one of the listed calls was released. A call that was never released has
/// `0.0`, and `maxVersion` counts previews as well.
fn listed_version(answer: &Answer) -> Option<Version> {
    if answer.status != 200 {
        return None;
    }
    let json = answer.json()?;
    let locations = json.get("value")?.as_array()?;
    let highest = |key| locations.iter().filter_map(|location: &Value| number(&text(location, key)?)).max();
    let told = |version: &Version| *version > (0, 0);
    highest("releasedVersion").filter(told).or_else(|| highest("maxVersion").filter(told))
}

/// Asks for a version that no server has, goes on from the highest one that the answer names, and steps down
/// until the server takes it: the highest one may be in preview.
async fn probed_version(api: &Api, place: &Place) -> Result<Option<Version>, ProviderError> {
    let first = ask(api, place, FAR_AHEAD).await?;
    if !refuses_version(&first)? {
        return Ok(None);
    }
    let named = named_version(&first);
    let below = |version: &&Version| named.is_none_or(|named| **version < named);
    let candidates = named.into_iter().chain(KNOWN_VERSIONS.iter().filter(below).copied());
    for version in candidates {
        if !refuses_version(&ask(api, place, &shown(version)).await?)? {
            return Ok(Some(version));
        }
    }
    Err(ProviderError::TooOld { seen: "a Team Foundation Server older than 2015".to_owned() })
}

async fn ask(api: &Api, place: &Place, version: &str) -> Result<Answer, ProviderError> {
    api.get(&place.api(&format!("projects?$top=1&api-version={version}"))).await
}

/// Whether the server refuses the version itself. Whatever else it says, it took the version.
fn refuses_version(answer: &Answer) -> Result<bool, ProviderError> {
    match answer.status {
        400 => Ok(true),
        429 | 500.. => Err(answer.general_error("projects in JSON")),
        _ => Ok(false),
    }
}

/// The highest version in the message that refuses another one. The words around the numbers are in the
/// server's own language.
fn named_version(answer: &Answer) -> Option<Version> {
    let message = answer.field("message")?;
    let words = message.split(|c: char| !c.is_ascii_digit() && c != '.').map(|word| word.trim_matches('.'));
    words.filter_map(number).filter(|version| Some(*version) != number(FAR_AHEAD)).max()
}

fn number(version: &str) -> Option<Version> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn shown((major, minor): Version) -> String {
    format!("{major}.{minor}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::provider::rest::tests::answer;

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    #[test]
    fn the_version_is_the_highest_released_one() {
        let listed = |released: &str, max: &str| {
            let body = format!(
                r#"{{"value":[{{"area":"core","resourceName":"teams","releasedVersion":"0.0","maxVersion":"{max}"}},
                    {{"area":"core","resourceName":"projects","releasedVersion":"{released}","maxVersion":"{max}"}}]}}"#
            );
            listed_version(&answer(200, &[JSON], &body))
        };
        assert_eq!(listed("7.0", "7.1"), Some((7, 0)));
        assert_eq!(listed("0.0", "6.0"), Some((6, 0)));
        assert_eq!(listed_version(&answer(401, &[], "")), None);
        assert_eq!(listed_version(&answer(200, &[JSON], r#"{"value":[]}"#)), None);
    }

    #[test]
    fn a_refused_version_names_the_highest_in_any_language() {
        let named = |message: &str| {
            named_version(&answer(400, &[JSON], &serde_json::json!({"message": message}).to_string()))
        };
        let english = "The requested REST API version of 99.0 is out of range for this server. The latest REST API \
            version this server supports is 6.1.";
        assert_eq!(named(english), Some((6, 1)));
        let german = "Die REST-API-Version 99.0 liegt außerhalb des Bereichs. Unterstützt wird bis zu 5.1.";
        assert_eq!(named(german), Some((5, 1)));
        assert_eq!(named("version 99.0 is out of range"), None);
    }

    #[test]
    fn a_release_is_named_only_where_it_is_known() {
        let release = |version| named(Some(version), false).map(|release| release.release).unwrap();
        assert_eq!(release((5, 0)), Some("2019"));
        assert_eq!(release((5, 1)), Some("2019.1"));
        assert_eq!(release((6, 1)), None);
        assert_eq!(release((8, 0)), None);
        assert!(
            matches!(named(Some((4, 1)), false), Err(ProviderError::TooOld { seen }) if seen.ends_with("2018"))
        );
        let hosted = named(Some((7, 1)), true).unwrap();
        assert_eq!((hosted.product, hosted.release), ("Azure DevOps Services", None));
        assert_eq!(hosted.call("projects?$top=1"), "projects?$top=1&api-version=7.1");
    }

    #[test]
    fn an_update_has_the_dates_of_its_release() {
        for (version, mainstream, extended) in
            [((5, 1), 2024, 2029), ((6, 0), 2025, 2030), ((7, 1), 2028, 2033)]
        {
            let release = named(Some(version), false).unwrap();
            assert_eq!(release.mainstream_support_ends().unwrap().year(), mainstream);
            assert_eq!(release.extended_support_ends().unwrap().year(), extended);
        }
        assert_eq!(named(Some((8, 0)), false).unwrap().mainstream_support_ends(), None);
    }
}
