//! Which release a server is, and whether GitLab still maintains it.

use serde_json::Value;
use time::OffsetDateTime;

use super::Place;
use super::answers::judge;
use crate::provider::ProviderError;
use crate::provider::rest::{Api, text};

/// The oldest major release that is supported.
const OLDEST_SUPPORTED_MAJOR: u32 = 14;

/// The year in which the major release 0 would have come out, had there always been one each May: 18.0 came in
/// May 2025, 17.0 in May 2024, 16.0 in May 2023 and 15.0 in May 2022, and a minor release follows every month.
const YEAR_OF_MAJOR_ZERO: i32 = 2007;

/// GitLab maintains its latest three monthly releases, and for some time it gave security fixes to a few more. After
/// a year a release gets nothing, whatever the policy of that year was.
const MAINTAINED_MONTHS: i32 = 12;

/// What a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its version, such as `16.11.2-ee`.
    pub version: String,
    /// Its edition; `None` where the server does not tell.
    pub is_enterprise: Option<bool>,
}

impl Release {
    /// The product with its edition.
    pub fn product(&self) -> &'static str {
        match self.is_enterprise {
            Some(true) => "GitLab Enterprise Edition",
            Some(false) => "GitLab Community Edition",
            None => "GitLab",
        }
    }

    /// How many months ago it came out, about, where it is old enough that nobody maintains it. `None` for a
    /// release that may be maintained, and for the builds between two releases that gitlab.com runs.
    pub fn months_out_of_maintenance(&self, now: OffsetDateTime) -> Option<i32> {
        if self.version.contains("-pre") {
            return None;
        }
        let (major, minor) = numbers(&self.version)?;
        let (major, minor) = (i32::try_from(major).ok()?, i32::try_from(minor).ok()?);
        const MAY: i32 = 5;
        let came_out = YEAR_OF_MAJOR_ZERO.checked_add(major)?.checked_mul(12)?.checked_add(MAY + minor)?;
        let months = now.year() * 12 + i32::from(u8::from(now.month())) - came_out;
        (months > MAINTAINED_MONTHS).then_some(months)
    }
}

/// The release, where the token may ask for it.
///
/// # Errors
/// [`ProviderError::TooOld`] and what any call can fail with; a refusal is `None`.
pub async fn release(api: &Api, place: &Place) -> Result<Option<Release>, ProviderError> {
    let mut answer = api.get(&place.api("metadata")).await?;
    // Releases before 15.2 do not have this call.
    if answer.status == 404 {
        answer = api.get(&place.api("version")).await?;
    }
    let json = match judge(&answer, "the version in JSON") {
        Err(error) if error.is_forbidden() => return Ok(None),
        judged => judged?,
    };
    read(&json)
}

fn read(json: &Value) -> Result<Option<Release>, ProviderError> {
    let Some(version) = text(json, "version") else { return Ok(None) };
    if numbers(&version).is_some_and(|(major, _)| major < OLDEST_SUPPORTED_MAJOR) {
        return Err(ProviderError::TooOld { seen: format!("GitLab {version}") });
    }
    let by_suffix = version.ends_with("-ee").then_some(true);
    let is_enterprise = json.get("enterprise").and_then(Value::as_bool).or(by_suffix);
    Ok(Some(Release { version, is_enterprise }))
}

/// Major and minor.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().ok());
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn release(json: &Value) -> Release {
        read(json).unwrap().unwrap()
    }

    #[test]
    fn the_edition_is_told_by_its_own_field_or_by_the_version() {
        let product = |json: &Value| release(json).product();
        assert_eq!(product(&json!({"version": "18.1.1", "enterprise": false})), "GitLab Community Edition");
        assert_eq!(
            product(&json!({"version": "18.1.1-ee", "enterprise": true})),
            "GitLab Enterprise Edition"
        );
        assert_eq!(product(&json!({"version": "14.9.0-ee"})), "GitLab Enterprise Edition");
        assert_eq!(product(&json!({"version": "14.9.0"})), "GitLab");
    }

    #[test]
    fn releases_before_14_are_refused_by_name() {
        let seen = |version: &str| match read(&json!({"version": version})) {
            Err(ProviderError::TooOld { seen }) => Some(seen),
            _ => None,
        };
        assert_eq!(seen("13.12.15-ee").as_deref(), Some("GitLab 13.12.15-ee"));
        assert_eq!(seen("14.0.0"), None);
        assert_eq!(seen("of our own"), None);
    }

    #[test]
    fn a_release_is_out_of_maintenance_after_a_year() {
        // 2026-11-21.
        let now = OffsetDateTime::from_unix_timestamp(1_795_233_600).unwrap();
        let months = |version: &str| {
            Release { version: version.into(), is_enterprise: None }.months_out_of_maintenance(now)
        };
        assert_eq!(months("16.11.2"), Some(31));
        assert_eq!(months("18.5.0-ee"), Some(13));
        assert_eq!(months("18.6.0"), None);
        assert_eq!(months("19.6.0"), None);
        assert_eq!(months("17.0.0-pre"), None);
        assert_eq!(months("4294967295.4294967295"), None);
        assert_eq!(months("unknown"), None);
    }
}
