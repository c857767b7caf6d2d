//! Which packages belong together: the newest kernel whose source is there too.

use super::version;
use crate::error::LabError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The series of kernels that Kerf is built and tested with.
pub(super) const SERIES: &str = "6.12";

/// One package and the version that is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// A kernel with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    /// What `uname -r` will print.
    pub(crate) release: String,
    /// The image, the headers and what they depend on.
    pub(crate) packages: Vec<Package>,
    /// The source, of the same version.
    pub(crate) source: Package,
}

/// The source package's name.
pub(super) fn source_name() -> String {
    format!("linux-source-{SERIES}")
}

/// The source package of a release: that of its first two numbers.
pub(super) fn source_of(release: &str) -> String {
    let mut numbers = release.split(['.', '-', '+']);
    format!("linux-source-{}.{}", numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// The newest of a package's versions.
pub(super) fn newest_of(versions: Vec<String>) -> Option<String> {
    versions.into_iter().max_by(|a, b| version::compare(a, b))
}

/// Whether this is the plain flavour of its series, whose source tree is configured by version.
pub(crate) fn is_plain(release: &str) -> bool {
    image_release(&format!("linux-image-{release}")).is_some()
}

/// The release, when this is the name of a signed image of the plain flavour.
pub(super) fn image_release(name: &str) -> Option<&str> {
    let release = name.strip_prefix("linux-image-")?;
    let numbers = release.strip_suffix("-amd64")?;
    let of_series = numbers.strip_prefix(SERIES)?.starts_with('.');
    (of_series && !numbers.contains('-')).then_some(release)
}

/// Reads `apt-cache madison`: name, version and origin between bars.
pub(super) fn parse_madison(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let mut columns = line.split('|').map(str::trim);
        if let (Some(name), Some(version), Some(origin)) = (columns.next(), columns.next(), columns.next())
            && !origin.ends_with("Sources")
        {
            let known = versions.entry(name.to_owned()).or_default();
            if !known.iter().any(|other| other == version) {
                known.push(version.to_owned());
            }
        }
    }
    versions
}

/// The newest image whose version equals one of the source's versions: release and version.
pub(super) fn newest(versions: &BTreeMap<String, Vec<String>>) -> Result<(String, String), LabError> {
    let source = source_name();
    let of_source = versions.get(&source).map(Vec::as_slice).unwrap_or_default();
    let images = versions.iter().filter_map(|(name, versions)| Some((image_release(name)?, versions)));
    let pairs = images.flat_map(|(release, versions)| versions.iter().map(move |version| (release, version)));
    let best = pairs
        .clone()
        .filter(|(_, version)| of_source.contains(version))
        .max_by(|a, b| version::compare(a.1, b.1).then_with(|| a.0.cmp(b.0)));
    match best {
        Some((release, version)) => Ok((release.to_owned(), version.clone())),
        None => Err(LabError::Archive { reason: why_none(&source, of_source, pairs.map(|(_, version)| version)) }),
    }
}

fn why_none<'a>(source: &str, of_source: &[String], images: impl Iterator<Item = &'a String>) -> String {
    let images: Vec<&str> = images.map(String::as_str).collect();
    let list = |items: &[&str]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    let of_source: Vec<&str> = of_source.iter().map(String::as_str).collect();
    format!(
        "no linux-image-{SERIES}.*-amd64 has the version of a {source} (images: {}; sources: {}); \
         enable Debian's security archive in /etc/apt and run `sudo apt-get update`",
        list(&images),
        list(&of_source)
    )
}

/// The names in a `Depends:` line of `apt-cache show` that belong to the kernel's own packages.
pub(super) fn parse_depends(show: &str) -> Vec<String> {
    let Some(line) = show.lines().find_map(|line| line.strip_prefix("Depends:")) else { return Vec::new() };
    let names = line.split([',', '|']).filter_map(|item| item.split_whitespace().next());
    let own = |name: &&str| name.starts_with("linux-headers-") || name.starts_with("linux-kbuild-");
    names.filter(own).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADISON: &str = "\
 linux-source-6.12 | 6.12.117-1~deb12u1 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
 linux-source-6.12 | 6.12.115-2~deb12u1 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
linux-image-6.12.9+deb12-amd64 | 6.12.9-1~deb12u1 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
linux-image-6.12.115+deb12-amd64 | 6.12.115-2~deb12u1 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
linux-image-6.12.117+deb12-amd64 | 6.12.117-1~deb12u1 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
linux-image-6.12.118+deb12-amd64 | 6.12.118-1~deb12u1 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
linux-image-6.12.117+deb12-rt-amd64 | 6.12.117-1~deb12u1 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
linux-image-6.12.118+deb12-amd64 | 6.12.117-1~deb12u1 | http://deb.debian.org/debian-security bookworm-security/main Sources
";

    #[test]
    fn the_newest_image_with_its_source_is_chosen() {
        let best = newest(&parse_madison(MADISON)).unwrap();
        assert_eq!(best, ("6.12.117+deb12-amd64".to_owned(), "6.12.117-1~deb12u1".to_owned()));
    }

    #[test]
    fn an_older_pair_will_do() {
        let text: String =
            MADISON.lines().filter(|l| !l.contains("source-6.12 | 6.12.117")).fold(String::new(), |t, l| t + l + "\n");
        assert_eq!(newest(&parse_madison(&text)).unwrap().0, "6.12.115+deb12-amd64");
    }

    #[test]
    fn without_a_pair_the_error_lists_both_sides() {
        let text = MADISON.lines().filter(|l| !l.contains("6.12.11")).collect::<Vec<_>>().join("\n");
        let message = newest(&parse_madison(&text)).unwrap_err().to_string();
        assert!(message.contains("images: 6.12.9-1~deb12u1; sources: none"), "{message}");
    }

    #[test]
    fn other_flavours_are_not_taken() {
        assert_eq!(image_release("linux-image-6.12.117+deb12-amd64"), Some("6.12.117+deb12-amd64"));
        for other in [
            "linux-image-6.12-amd64",
            "linux-image-6.1.0-1-amd64",
            "linux-image-6.12.117+deb12-amd64-unsigned",
            "linux-image-6.12.117+deb12-amd64-dbg",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-rt-amd64",
            "linux-image-6.121.1-amd64",
            "linux-headers-6.12.117+deb12-amd64",
        ] {
            assert_eq!(image_release(other), None, "{other}");
        }
    }

    #[test]
    fn a_release_names_its_source() {
        assert_eq!(source_of("6.12.117+deb12-cloud-amd64"), "linux-source-6.12");
        assert_eq!(source_of("6.1.0-56-amd64"), "linux-source-6.1");
        assert!(is_plain("6.12.117+deb12-amd64") && !is_plain("6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest_of(vec!["6.1.9-1".into(), "6.1.10-1".into()]).as_deref(), Some("6.1.10-1"));
    }

    #[test]
    fn headers_name_what_they_need() {
        let show = "Package: linux-headers-6.12.117+deb12-amd64\nDepends: linux-headers-6.12.117+deb12-common (= 6.12.117-1~deb12u1), linux-image-6.12.117+deb12-amd64 (= 1) | linux-image-6.12.117+deb12-amd64-unsigned (= 1), linux-kbuild-6.12.117+deb12 (>= 1), gcc-12\n";
        assert_eq!(parse_depends(show), ["linux-headers-6.12.117+deb12-common", "linux-kbuild-6.12.117+deb12"]);
        assert!(parse_depends("Package: x\n").is_empty());
    }
}
